//! Arguments and helpers that several commands share.

use super::notes::{is_silent, printable, printable_json};
use crate::hub::Hub;
use clap::builder::{OsStringValueParser, TryMapValueParser, TypedValueParser, ValueParserFactory};
use clap::{Args, ValueEnum};
use lowrank::cut::{Cut, SHORTEST};
use lowrank::data::{
    Dataset, Encoded, Labels, Row, Split, TableOptions, TokenKey, Tokenized, WordPiece, cached, load_encoded, load_rows, load_with_labels,
};
use lowrank::nn::Config;
use lowrank::tensor::DType;
use lowrank::text::thousands;
use lowrank::train::Evaluation;
use lowrank::{Error, Result};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How a command ended.
pub enum Outcome {
    Done,
    /// A check found a difference.
    Failed,
    /// Ctrl-C or another signal asked to stop; the state was saved.
    Interrupted,
}

/// Data types of a computation.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ComputeType {
    F32,
    F64,
    /// Activations and frozen weights in bfloat16 (half the memory); sums, parameters and optimizer state in f32
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

/// A checkpoint, given by its folder or by the name of a fetched model.
#[derive(Clone)]
pub struct Checkpoint {
    /// The argument as given. Adapters store it as the name of their base.
    pub name: String,
    pub path: PathBuf,
}

impl ValueParserFactory for Checkpoint {
    type Parser = Parsed<Checkpoint>;

    fn value_parser() -> Self::Parser {
        parsed(|name| {
            let path = Path::new(&name);
            let found = if path.exists() { path.to_path_buf() } else { Hub::from_env()?.model_path(path)? };
            Ok(Checkpoint { name: name.to_string_lossy().into_owned(), path: found })
        })
    }
}

type Parsed<T> = TryMapValueParser<OsStringValueParser, fn(OsString) -> Result<T>>;

/// Parses an argument with `f`. Unlike a function of `&str`, it accepts names of files that are not UTF-8.
pub fn parsed<T: Clone + Send + Sync + 'static>(f: fn(OsString) -> Result<T>) -> Parsed<T> {
    OsStringValueParser::new().try_map(f)
}

/// The path of labelled texts; `imdb` stands for the fetched archive, unless there is a file of that name.
fn data(name: OsString) -> Result<PathBuf> {
    let path = PathBuf::from(name);
    if path == Path::new("imdb") && !path.exists() { Hub::from_env()?.data_path(&path) } else { Ok(path) }
}

/// Arguments that select labelled texts.
#[derive(Args, Clone)]
pub struct DataArgs {
    /// imdb (after fetch), aclImdb_v1.tar.gz or its unpacked folder; a CSV, TSV, JSON or JSONL file (also with .gz); or a folder with train.*
    /// and optionally validation.* and test.*, or with a folder of .txt files for each class
    #[arg(long, value_name = "PATH", value_parser = parsed(data))]
    pub data: PathBuf,
    /// Column of the text [default: text]
    #[arg(long, value_name = "NAME")]
    pub text_column: Option<String>,
    /// Column of the second text of each pair: the model reads [CLS] text [SEP] second text [SEP] [default: each text stands alone; eval: as in training]
    #[arg(long, value_name = "NAME")]
    pub text_pair_column: Option<String>,
    /// Column of the label [default: label]
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// Encoding of the files, such as windows-1252 [default: UTF-8, or UTF-16 if a file has its mark]
    #[arg(long, value_name = "NAME")]
    pub encoding: Option<String>,
    /// Names of the classes in order (negative,positive), or the class that each label of the data means (neg=negative,pos=positive)
    #[arg(long, value_delimiter = ',', value_name = "NAME|LABEL=NAME", allow_hyphen_values = true)]
    labels: Vec<String>,
}

/// Arguments of the cache: tokens, and hashes of bases.
#[derive(Args, Clone)]
pub struct CacheArgs {
    /// Folder for tokenised data [default: the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Do not use the cache of tokenised data and of the base's hash
    #[arg(long)]
    no_cache: bool,
}

impl CacheArgs {
    /// The folder of the cache.
    pub fn folder(&self) -> Option<PathBuf> {
        if self.no_cache { None } else { self.cache.clone().or_else(user_cache) }
    }

    /// Tokens of a split of the data set at a path, from the cache if they are there. `select` chooses texts, and `selection` is the key of this
    /// choice in the cache. Selection comes after tokenising, because tokenising runs in parallel with reading and is faster.
    pub fn tokens(
        &self,
        (args, path, split): (&DataArgs, &Path, Split),
        labels: &Labels,
        wordpiece: &WordPiece,
        cut: Cut,
        selection: &str,
        select: impl FnOnce(Dataset<Encoded>) -> Result<Dataset<Encoded>>,
    ) -> Result<Tokenized> {
        let options = args.options();
        let recipe = TokenKey { source: path, split, options: &options, labels, selection, wordpiece, cut };
        let make = || Ok(select(load_encoded(path, split, &options, labels, wordpiece, cut)?)?.into());
        cached(self.folder().as_deref(), &recipe, make)?.with_targets(labels, path)
    }
}

impl DataArgs {
    /// How tables are read.
    pub fn options(&self) -> TableOptions {
        TableOptions {
            text_column: self.text_column.clone(),
            text_pair_column: self.text_pair_column.clone(),
            label_column: self.label_column.clone(),
            encoding: self.encoding.clone(),
        }
    }

    /// The classes from `--labels`. `names` are the class names of the model, if it has names; they take precedence.
    pub fn labels(&self, names: Option<&[String]>) -> Result<Labels> {
        let given = if self.labels.is_empty() { Labels::default() } else { Labels::parse(&self.labels)? };
        let (Some(own), Some(wanted)) = (names, &given.names) else {
            return Ok(Labels { names: names.map(<[String]>::to_vec).or(given.names), ..given });
        };
        let same = own.len() == wanted.len() && own.iter().zip(wanted).all(|(a, b)| a.to_lowercase() == b.to_lowercase());
        let problem =
            format!("--labels {}: the model's classes are {}, in this order; map labels with LABEL=CLASS", wanted.join(","), own.join(","));
        if same { Ok(Labels::named(own)) } else { Err(Error::invalid(problem)) }
    }

    /// The rows of a split as they stand in its files.
    pub fn rows(&self, path: &Path, split: Split) -> Result<Vec<Row>> {
        load_rows(path, split, &self.options())
    }

    /// The texts of a split.
    pub fn load(&self, path: &Path, split: Split, labels: &Labels) -> Result<Dataset> {
        load_with_labels(path, split, &self.options(), labels)
    }
}

/// The user's cache folder of this program.
pub fn user_cache() -> Option<PathBuf> {
    // An empty variable counts as not set.
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = folder("XDG_CACHE_HOME").or_else(|| folder("LOCALAPPDATA")).or_else(|| Some(folder("HOME")?.join(".cache")));
    base.map(|base| base.join("lowrank"))
}

/// Reads a number from 1 to `MOST`.
pub fn count<const MOST: usize>(text: &str) -> std::result::Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=MOST).contains(n));
    number.ok_or_else(|| match MOST {
        usize::MAX => "expected a whole number of at least 1".to_string(),
        _ => format!("expected a whole number from 1 to {MOST}"),
    })
}

/// A sample of `limit` texts, or all texts.
pub fn limited<T: Default>(data: Dataset<T>, limit: Option<usize>, seed: u64) -> Result<Dataset<T>> {
    match limit {
        Some(n) => data.limited(n, seed),
        None => Ok(data),
    }
}

/// The tokenizer of a checkpoint. Its ids must all have an embedding in the model.
pub fn open_wordpiece(base: &Path, config: &Config) -> Result<WordPiece> {
    let wordpiece = WordPiece::open(base)?;
    wordpiece.check_fits(config.vocab_size)?;
    Ok(wordpiece)
}

/// Default number of tokens kept of a text, as in the study.
const LONGEST: usize = 512;

/// `asked`, or else [`LONGEST`], for a model with `most` positions for a text.
pub fn length(asked: Option<usize>, most: usize) -> Result<usize> {
    check_length(asked.unwrap_or(LONGEST.min(most)), most)
}

/// `max_length`, if the model has at least that many positions and there is room for a token between `[CLS]` and `[SEP]`.
pub fn check_length(max_length: usize, most: usize) -> Result<usize> {
    if (SHORTEST..=most).contains(&max_length) {
        return Ok(max_length);
    }
    Err(Error::invalid(format!(
        "the maximum length (--max-length, or that of the adapter) is {max_length} and must lie between {SHORTEST} and the {most} positions that the model has for a text"
    )))
}

/// Prints a line on standard output; a closed pipe becomes an error, not a panic. Control characters are escaped.
pub fn say(line: impl std::fmt::Display) -> Result<()> {
    say_as_it_is(&printable(line))
}

fn say_as_it_is(line: &str) -> Result<()> {
    if is_silent() {
        return Ok(());
    }
    writeln!(std::io::stdout().lock(), "{line}").map_err(|e| Error::io("standard output", e))
}

/// Prints a value as one line of JSON. Control characters are escaped as JSON escapes them.
pub fn say_json(value: &impl Serialize) -> Result<()> {
    say_as_it_is(&printable_json(&serde_json::to_string(value).map_err(|e| Error::invalid(format!("json: {e}")))?))
}

/// Whether standard output was closed by its reader, as `| head` does. For most commands that is no error.
pub fn is_closed(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The result of printing the lines of a check. A closed standard output is no error: the exit status counts although nobody reads the lines.
pub fn ignore_closed(printed: Result<()>) -> Result<()> {
    printed.or_else(|e| if is_closed(&e) { Ok(()) } else { Err(e) })
}

/// A measurement in words: `accuracy 86.20 % (84.62–87.64) on 2,000 reviews, loss 0.3312`.
pub fn describe(e: &Evaluation) -> String {
    let [accuracy, low, high] = [e.accuracy, e.interval.0, e.interval.1].map(|x| 100.0 * x);
    format!("accuracy {accuracy:.2} % ({low:.2}–{high:.2}) on {} reviews, loss {:.4}", thousands(e.examples), e.loss)
}
