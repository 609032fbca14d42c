//! `lowrank tokenize`: prints token ids.

use super::common::{Checkpoint, say, say_json};
use super::notes::{note, warning};
use super::outcome::Outcome;
use clap::Args;
use lowrank::data::{WordPiece, read_text};
use lowrank::{Error, Result};
use serde_json::json;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

/// The lines of standard input.
fn lines() -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|e| Error::io("standard input", e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        Error::file("standard input", format!("line {line}"), "not UTF-8; convert it, or give a file with --encoding")
    })?;
    Ok(text.lines().map(String::from).collect())
}

/// Arguments of `tokenize`.
#[derive(Args)]
pub struct Tokenize {
    /// Folder of a checkpoint, a vocab.txt, a tokenizer.json, or the name of a fetched model
    #[arg(long, value_name = "PATH")]
    model: Checkpoint,
    /// Tokens kept of each text, [CLS] and [SEP] included [default: all]
    #[arg(long)]
    max_length: Option<usize>,
    /// Read lines of {"text": …} and write lines of {"ids": […]}, instead of plain text
    #[arg(long)]
    jsonl: bool,
    /// Texts [default: the lines of --file or of standard input]
    texts: Vec<String>,
    /// File with one text a line
    #[arg(long)]
    file: Option<PathBuf>,
    /// Encoding of the file, such as windows-1252 [default: UTF-8, or UTF-16 if the file has its mark]
    #[arg(long, value_name = "NAME", requires = "file")]
    encoding: Option<String>,
}

impl Tokenize {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let wordpiece = WordPiece::open(&self.model)?;
        let given = !self.texts.is_empty();
        let (name, lines) = match (&self.file, given) {
            (Some(_), true) => return Err(Error::invalid("tokenize: give texts or --file, not both")),
            (Some(path), false) => {
                let text = read_text(path, self.encoding.as_deref())?;
                (path.display().to_string(), text.lines().map(String::from).collect())
            }
            (None, true) => {
                if let [text] = &self.texts[..]
                    && Path::new(text).is_file()
                {
                    warning!("{text}: taken as a text; there is a file of that name, too: --file {text} reads its lines");
                }
                (String::new(), self.texts)
            }
            (None, false) => {
                if std::io::stdin().is_terminal() {
                    note!("waiting for texts on standard input, one a line");
                }
                ("standard input".to_string(), lines()?)
            }
        };
        let max_length = self.max_length.unwrap_or(usize::MAX);
        if max_length < 2 {
            return Err(Error::invalid("--max-length must be at least 2: [CLS] and [SEP]"));
        }
        for (number, line) in lines.iter().enumerate() {
            if self.jsonl && given {
                say_json(&json!({ "ids": wordpiece.encode(line, max_length) }))?;
            } else if self.jsonl {
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
