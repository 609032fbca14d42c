//! `lowrank eval`, `predict` and `tokenize`.

use super::Outcome;
use super::adapted::{Adapted, AdaptedArgs};
use super::common::{Checkpoint, Source, count, say, say_json, user_cache};
use super::train::{describe, evaluate_on};
use crate::data::{Split, WordPiece};
use crate::train::{Evaluation, answer, predict};
use crate::{Error, Result};
use clap::Args;
use serde_json::json;
use std::io::{BufRead, Read};
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    adapted: AdaptedArgs,
    #[command(flatten)]
    source: Source,
    /// train or test
    #[arg(long, default_value = "test")]
    split: Split,
    /// Measure on this many reviews, drawn with equal labels
    #[arg(long, value_name = "N", value_parser = count::<{ usize::MAX }>)]
    limit: Option<usize>,
    /// Reviews computed together
    #[arg(long, default_value_t = 16, value_parser = count::<{ 1 << 20 }>)]
    batch: usize,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Eval {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let all = self.adapted.open(self.source.cache_folder().as_deref())?;
        let mut results = Vec::new();
        for adapted in &all {
            let (labels, result) = self.measure(adapted)?;
            if self.json {
                results.push(json!({ "adapter": adapted.name, "test": result, "labels": labels }));
                continue;
            }
            let name = if all.len() > 1 { format!("{}: ", adapted.name) } else { String::new() };
            say(format!("{name}{}", describe(&result)))?;
            for (label, row) in labels.iter().zip(&result.confusion) {
                let cells: Vec<String> = labels.iter().zip(row).map(|(answer, n)| format!("{n} as {answer}")).collect();
                say(format!("{name}{label}: {}", cells.join(", ")))?;
            }
        }
        if self.json { say_one_or_all(results) } else { Ok(()) }.map(|()| Outcome::Done)
    }

    /// Names of the labels, and how well they are found.
    fn measure(&self, adapted: &Adapted) -> Result<(Vec<String>, Evaluation)> {
        // LABEL_0, LABEL_1 are names of ours, not of the data.
        let known = (!adapted.labels.iter().any(|l| l.starts_with("LABEL_"))).then_some(&adapted.labels[..]);
        let data = self.source.sample(self.split, known, &adapted.wordpiece, adapted.max_length, self.limit)?;
        let result = evaluate_on(&adapted.model, &data, self.batch)?;
        Ok((data.label_names, result))
    }
}

/// Prints the result of the one model, or of all as `{"adapters": […]}`.
fn say_one_or_all(mut results: Vec<serde_json::Value>) -> Result<()> {
    match results.len() {
        1 => say_json(&results.remove(0)),
        _ => say_json(&json!({ "adapters": results })),
    }
}

/// Arguments of `predict`.
#[derive(Args)]
pub struct Predict {
    #[command(flatten)]
    adapted: AdaptedArgs,
    /// Texts; without any, each line of --file or of standard input is one
    texts: Vec<String>,
    /// File with a text a line
    #[arg(long)]
    file: Option<PathBuf>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Predict {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let texts = match (&self.file, self.texts.is_empty()) {
            (Some(_), false) => return Err(Error::invalid("predict: give texts or --file, not both")),
            (Some(path), true) => lines(std::fs::File::open(path).map_err(|e| Error::io(path, e))?, &path.to_string_lossy())?,
            (None, true) => lines(std::io::stdin(), "standard input")?,
            (None, false) => self.texts,
        };
        let all = self.adapted.open(user_cache().as_deref())?;
        let mut results = Vec::new();
        for adapted in &all {
            let ids: Vec<Vec<u32>> = texts.iter().map(|t| adapted.wordpiece.encode(t, adapted.max_length)).collect();
            let answers = predict(&adapted.model, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>(), 16)?;
            let mut predictions = Vec::new();
            for (text, probabilities) in texts.iter().zip(&answers) {
                let best = answer(probabilities);
                let (label, probability) = (&adapted.labels[best], probabilities[best]);
                if self.json {
                    predictions.push(json!({ "text": text, "label": label, "probability": probability, "probabilities": probabilities }));
                } else {
                    let name = if all.len() > 1 { format!("{}\t", adapted.name) } else { String::new() };
                    say(format!("{name}{label}\t{probability:.4}\t{}", text.replace(['\t', '\n', '\r'], " ")))?;
                }
            }
            results.push(json!({ "adapter": adapted.name, "labels": adapted.labels, "predictions": predictions }));
        }
        if self.json { say_one_or_all(results) } else { Ok(()) }.map(|()| Outcome::Done)
    }
}

/// Lines of a reader, decoded lossily.
fn lines(reader: impl Read, name: &str) -> Result<Vec<String>> {
    let split = std::io::BufReader::new(reader).split(b'\n');
    let text = |line: std::io::Result<Vec<u8>>| line.map(|l| String::from_utf8_lossy(&l).trim_end_matches('\r').to_string());
    split.map(text).collect::<std::io::Result<_>>().map_err(|e| Error::io(name, e))
}

/// Arguments of `tokenize`.
#[derive(Args)]
pub struct Tokenize {
    /// Directory of a checkpoint, a vocab.txt or a tokenizer.json
    #[arg(long, value_name = "PATH")]
    model: Checkpoint,
    /// Tokens kept of a text, [CLS] and [SEP] included [default: all]
    #[arg(long)]
    max_length: Option<usize>,
    /// Read {"text": …} and write {"ids": […]} a line, instead of plain lines
    #[arg(long)]
    jsonl: bool,
    /// File with a text a line [default: standard input]
    file: Option<PathBuf>,
}

impl Tokenize {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let wordpiece = WordPiece::open(&self.model)?;
        let (name, lines) = match &self.file {
            Some(path) => {
                (path.display().to_string(), lines(std::fs::File::open(path).map_err(|e| Error::io(path, e))?, &path.to_string_lossy())?)
            }
            None => ("standard input".to_string(), lines(std::io::stdin(), "standard input")?),
        };
        let max_length = self.max_length.unwrap_or(usize::MAX);
        if max_length < 2 {
            return Err(Error::invalid("--max-length must be at least 2: [CLS] and [SEP]"));
        }
        for (number, line) in lines.iter().enumerate() {
            if self.jsonl {
                let bad = |e: String| Error::file(&name, format!("line {}", number + 1), e);
                let value: serde_json::Value = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
                let text = value["text"].as_str().ok_or_else(|| bad("has no \"text\"".to_string()))?;
                say_json(&json!({ "ids": wordpiece.encode(text, max_length) }))?;
            } else {
                let ids: Vec<String> = wordpiece.encode(line, max_length).iter().map(u32::to_string).collect();
                say(ids.join(" "))?;
            }
        }
        Ok(Outcome::Done)
    }
}
