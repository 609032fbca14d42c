//! What several commands share.

use super::notes::warning;
use crate::data::{Dataset, Recipe, Split, TableOptions, Tokenized, WordPiece, cached, load_encoded, load_with_labels};
use crate::hub;
use crate::nn::{Config, DistilBert};
use crate::tensor::DType;
use crate::tensor::safetensors::write_file;
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Data types that one can compute in.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ComputeType {
    F32,
    F64,
    /// Activations and frozen weights in bfloat16, half the memory; sums, what trains and its state in f32
    Bf16,
}

impl From<ComputeType> for DType {
    fn from(t: ComputeType) -> DType {
        match t {
            ComputeType::F32 => DType::F32,
            ComputeType::F64 => DType::F64,
            ComputeType::Bf16 => DType::BF16,
        }
    }
}

/// A checkpoint, given by its folder or by the name of a model that was fetched.
#[derive(Clone)]
pub struct Checkpoint {
    /// As it was given: what an adapter's files name as their base.
    pub name: String,
    path: PathBuf,
}

impl FromStr for Checkpoint {
    type Err = Error;

    fn from_str(name: &str) -> Result<Checkpoint> {
        let path = Path::new(name);
        Ok(Checkpoint { name: name.to_string(), path: if path.exists() { path.to_path_buf() } else { hub::model_path(path)? } })
    }
}

impl Deref for Checkpoint {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// A path, or `imdb`.
fn data(name: &str) -> Result<PathBuf> {
    hub::data_path(Path::new(name))
}

/// Where labelled texts come from.
#[derive(Args, Clone)]
pub struct Source {
    /// imdb (fetched), aclImdb_v1.tar.gz, the unpacked folder, or a CSV, TSV or JSONL file (or a folder with train.* and test.*)
    #[arg(long, value_name = "PATH", value_parser = data)]
    pub data: PathBuf,
    /// Column of the text [default: text]
    #[arg(long, value_name = "NAME")]
    pub text_column: Option<String>,
    /// Column of the label [default: label]
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// Folder for tokenised data [default: the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Neither read nor write tokenised data, and what is known of the base
    #[arg(long)]
    pub no_cache: bool,
}

impl Source {
    /// The data at `data`, read anew.
    pub fn of(data: PathBuf) -> Source {
        Source { data, text_column: None, label_column: None, cache: None, no_cache: true }
    }

    fn options(&self) -> TableOptions {
        TableOptions { text_column: self.text_column.clone(), label_column: self.label_column.clone() }
    }

    /// Where tokens, and what is known of a base, are kept.
    pub fn cache_folder(&self) -> Option<PathBuf> {
        if self.no_cache { None } else { self.cache.clone().or_else(user_cache) }
    }

    /// Tokens of a split, from the cache where they are; `labels` are the names it must use, if known. `selection` names what `select`
    /// takes. It selects after tokenising, which then goes on while the data are read and takes less time than that.
    pub fn tokens(
        &self,
        split: Split,
        labels: Option<&[String]>,
        wordpiece: &WordPiece,
        max_length: usize,
        selection: &str,
        select: impl FnOnce(Dataset<Vec<u32>>) -> Result<Dataset<Vec<u32>>>,
    ) -> Result<Tokenized> {
        let options = self.options();
        let recipe = Recipe { source: &self.data, split, options: &options, labels, selection, wordpiece, max_length };
        cached(self.cache_folder().as_deref(), &recipe, || {
            let data = load_encoded(&self.data, split, &options, labels, wordpiece, max_length)?;
            if data.lossy > 0 {
                warning!("{}: {} texts were not valid UTF-8 and were decoded with replacement characters", self.data.display(), data.lossy);
            }
            Ok(select(data)?.into())
        })
    }
}

impl Source {
    /// [`Source::tokens`] of `limit` texts with equal labels, the same in every run; of all if there is no limit.
    pub fn sample(
        &self,
        split: Split,
        labels: Option<&[String]>,
        wordpiece: &WordPiece,
        max_length: usize,
        limit: Option<usize>,
    ) -> Result<Tokenized> {
        let selection = format!("limit {limit:?} seed 0");
        self.tokens(split, labels, wordpiece, max_length, &selection, |d| limited(d, limit, 0))
    }

    /// The texts of [`Source::sample`].
    pub fn texts(&self, split: Split, labels: &[String], limit: Option<usize>) -> Result<Vec<String>> {
        Ok(limited(load_with_labels(&self.data, split, &self.options(), Some(labels))?, limit, 0)?.texts)
    }
}

/// The user's folder for what can be made again.
pub fn user_cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").or_else(|| std::env::var_os("LOCALAPPDATA")).map(PathBuf::from);
    base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).map(|d| d.join("lowrank"))
}

/// Reads a number from 1 to `MOST`.
pub fn count<const MOST: usize>(text: &str) -> std::result::Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=MOST).contains(n));
    number.ok_or_else(|| match MOST {
        usize::MAX => "expected a whole number of at least 1".to_string(),
        _ => format!("expected a whole number from 1 to {MOST}"),
    })
}

/// A sample of `limit` texts, or all.
pub fn limited<T: Default>(data: Dataset<T>, limit: Option<usize>, seed: u64) -> Result<Dataset<T>> {
    match limit {
        Some(n) => data.limited(n, seed),
        None => Ok(data),
    }
}

/// The form of `lowrank.json` that is written here, and the newest that is read.
const FORMAT: u64 = 1;

fn first_format() -> u64 {
    1
}

/// `lowrank.json`, beside the adapter: what PEFT's files do not say.
#[derive(Serialize, Deserialize)]
pub struct About {
    /// The form of this file: a reader refuses a newer one than it knows.
    #[serde(default = "first_format")]
    pub format: u64,
    /// Version of this program.
    pub lowrank: String,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Longest sequence trained on, in tokens.
    pub max_length: usize,
    /// Keys and shapes of the base model.
    pub base: BTreeMap<String, Vec<usize>>,
    /// Hash of the base's encoder, see [`crate::nn::fingerprint`]; files of before have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<String>,
    /// Seed of the run.
    pub seed: u64,
    /// The command that was run.
    pub command: Vec<String>,
}

impl About {
    /// Describes a run.
    pub fn new(model: &DistilBert, labels: &[String], max_length: usize, seed: u64) -> About {
        let encoder = model.weights().into_iter().filter(|w| w.name().starts_with("distilbert."));
        About {
            format: FORMAT,
            lowrank: env!("CARGO_PKG_VERSION").to_string(),
            labels: labels.to_vec(),
            max_length,
            base: encoder.map(|w| (w.name().to_string(), w.shape().dims().to_vec())).collect(),
            base_hash: None,
            seed,
            command: std::env::args().collect(),
        }
    }

    /// Writes it into a directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join("lowrank.json");
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(&path, "json", e))?;
        write_file(&path, text.as_bytes())
    }

    /// Reads it from an adapter's directory, if it is there: an adapter of PEFT's own has none.
    pub fn open(directory: &Path) -> Result<Option<About>> {
        let path = directory.join("lowrank.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path, e)),
        };
        let json = |e| Error::file(&path, "json", e);
        // Of a newer form nothing but its number is known.
        let value: serde_json::Value = serde_json::from_str(&text).map_err(json)?;
        if let Some(format) = value.get("format")
            && format.as_u64().is_none_or(|format| format > FORMAT)
        {
            let problem =
                format!("is {format}: written by a newer lowrank, and this one reads forms up to {FORMAT}: install the newer one");
            return Err(Error::file(&path, "\"format\"", problem));
        }
        serde_json::from_value(value).map(Some).map_err(json)
    }
}

/// The tokenizer of a checkpoint, which must not know more tokens than the model.
pub fn open_wordpiece(base: &Path, config: &Config) -> Result<WordPiece> {
    let wordpiece = WordPiece::open(base)?;
    if wordpiece.vocab_size() > config.vocab_size {
        let problem = format!("{} tokens, but the model has embeddings for {}", wordpiece.vocab_size(), config.vocab_size);
        return Err(Error::file(base, "vocabulary", problem));
    }
    Ok(wordpiece)
}

/// Tokens kept of a text where nothing else is asked for, as the study has it; fewer if the model has fewer positions.
const LONGEST: usize = 512;

/// `asked`, or [`LONGEST`], for a model with `most` positions for a text.
pub fn length(asked: Option<usize>, most: usize) -> Result<usize> {
    check_length(asked.unwrap_or(LONGEST.min(most)), most)
}

/// `max_length`, if there are that many positions, `most`, and there is room for a token between `[CLS]` and `[SEP]`.
pub fn check_length(max_length: usize, most: usize) -> Result<usize> {
    if (3..=most).contains(&max_length) {
        return Ok(max_length);
    }
    Err(Error::invalid(format!("--max-length {max_length} must lie between 3 and the {most} positions that the model has for a text")))
}

/// Prints a line on standard output; a closed pipe becomes an error, not a panic.
pub fn say(line: impl std::fmt::Display) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(|e| Error::io("standard output", e))
}

/// Prints a value as one line of JSON.
pub fn say_json(value: &impl Serialize) -> Result<()> {
    say(serde_json::to_string(value).map_err(|e| Error::invalid(format!("json: {e}")))?)
}
