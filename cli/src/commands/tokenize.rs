//! `lowrank tokenize`: prints token ids.

use super::common::{Checkpoint, say, say_json};
use super::cut_args::parser;
use super::notes::warning;
use super::texts::{InputLines, TextArgs};
use clap::Args;
use lowrank::cut::{Cut, Truncate};
use lowrank::data::{Encoded, Encoder, WordPiece, read_text};
use lowrank::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

/// Arguments of `tokenize`.
#[derive(Args)]
pub struct Tokenize {
    /// Folder of a checkpoint, a vocab.txt, a tokenizer.json, or the name of a fetched model
    #[arg(long, value_name = "PATH")]
    model: Checkpoint,
    /// Tokens kept of each text, [CLS] and [SEP] included [default: all]
    #[arg(long)]
    max_length: Option<usize>,
    /// The tokens that are kept of a text that is longer than --max-length: the first, the last, or the first and the last at 128 to 382
    #[arg(long, value_name = "PART", value_parser = parser(), requires = "max_length")]
    truncate: Option<Truncate>,
    /// Read lines of {"text": …} and write lines of {"ids": […]}, instead of plain text. A line may also have "text_pair", the second text of a
    /// pair; its answer then has "token_type_ids" too
    #[arg(long)]
    jsonl: bool,
    #[command(flatten)]
    input: TextArgs,
}

impl Tokenize {
    /// Runs the command.
    pub(super) fn run(self) -> Result<()> {
        let wordpiece = WordPiece::open(&self.model.path)?;
        self.input.check("tokenize")?;
        let TextArgs { texts, file, encoding } = self.input;
        let given = !texts.is_empty();
        if let [text] = &texts[..]
            && Path::new(text).is_file()
        {
            warning!("{text}: taken as a text; there is a file of that name, too: --file {text} reads its lines");
        }
        let (name, lines) = match file {
            Some(path) => {
                let text = read_text(&path, encoding.as_deref())?;
                (path.display().to_string(), text.lines().map(String::from).collect())
            }
            None if given => (String::new(), texts),
            None => ("standard input".to_string(), InputLines::new().collect::<Result<_>>()?),
        };
        let max_length = self.max_length.unwrap_or(usize::MAX);
        if max_length < 2 {
            return Err(Error::invalid("--max-length must be at least 2: [CLS] and [SEP]"));
        }
        let cut = Cut { truncate: self.truncate, ..max_length.into() };
        let mut encoder = Encoder::new(&wordpiece);
        for (number, line) in lines.iter().enumerate() {
            if self.jsonl && given {
                say_json(&json!({ "ids": wordpiece.encode(line, cut) }))?;
            } else if self.jsonl {
                let bad = |e: String| Error::file(&name, format!("line {}", number + 1), e);
                let value: Value = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
                let text = value["text"].as_str().ok_or_else(|| bad("has no \"text\"".to_string()))?;
                say_json(&match (&value["text_pair"], self.truncate) {
                    (Value::Null, _) => json!({ "ids": wordpiece.encode(text, cut) }),
                    (Value::String(_), Some(_)) => return Err(bad("is a pair of texts, and --truncate is for single ones".to_string())),
                    (Value::String(second), None) => {
                        if max_length < 3 {
                            return Err(bad("is a pair of texts: --max-length must be at least 3".to_string()));
                        }
                        let Encoded { ids, second, .. } = Encoded::pair(&mut encoder, [text, second], max_length);
                        let types: Vec<u32> = (0..ids.len()).map(|i| u32::from(i + second >= ids.len())).collect();
                        json!({ "ids": ids, "token_type_ids": types })
                    }
                    (other, _) => return Err(bad(format!("\"text_pair\" is {other}, and must be a text"))),
                })?;
            } else {
                let ids: Vec<String> = wordpiece.encode(line, cut).iter().map(u32::to_string).collect();
                say(ids.join(" "))?;
            }
        }
        Ok(())
    }
}
