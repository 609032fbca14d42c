//! `lowrank tokenize`.

use super::Outcome;
use super::common::{Checkpoint, say, say_json};
use super::notes::{note, warning};
use crate::data::WordPiece;
use crate::{Error, Result};
use clap::Args;
use serde_json::json;
use std::io::{BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

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
    /// Texts; without any, each line of --file or of standard input is one
    texts: Vec<String>,
    /// File with a text a line
    #[arg(long)]
    file: Option<PathBuf>,
}

impl Tokenize {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let wordpiece = WordPiece::open(&self.model)?;
        let given = !self.texts.is_empty();
        let (name, lines) = match (&self.file, given) {
            (Some(_), true) => return Err(Error::invalid("tokenize: give texts or --file, not both")),
            (Some(path), false) => {
                (path.display().to_string(), lines(std::fs::File::open(path).map_err(|e| Error::io(path, e))?, &path.to_string_lossy())?)
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
                ("standard input".to_string(), lines(std::io::stdin(), "standard input")?)
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
