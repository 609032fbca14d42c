//! Where labelled texts come from: the IMDB archive, its unpacked folder, or tables.

use super::{Dataset, Encoder, WordPiece, imdb, stream, table};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A half of a data set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Split {
    /// What is trained on.
    Train,
    /// What is only evaluated.
    Test,
}

impl Split {
    /// "train" or "test".
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Split> {
        let found = [Split::Train, Split::Test].into_iter().find(|split| split.name() == name);
        found.ok_or_else(|| Error::invalid(format_args!("the split is train or test, got {name:?}")))
    }
}

/// The columns of a table. Where none is given, the text is `text`, else the only one of `review` and `sentence`; the label is `label`,
/// else `sentiment`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableOptions {
    /// Name of the column (or JSON key) with the text.
    pub text_column: Option<String>,
    /// Name of the column (or JSON key) with the label.
    pub label_column: Option<String>,
}

/// Reads a split of the data set at `path`, its labels named in sorted order (by value if all are numbers):
/// [`load_with_labels`] without given names.
///
/// # Errors
/// As [`load_with_labels`].
pub fn load(path: &Path, split: Split, options: &TableOptions) -> Result<Dataset> {
    load_with_labels(path, split, options, None)
}

/// Reads a split of the data set at `path`, which is one of
/// - `aclImdb_v1.tar.gz` (any `.tar.gz` or `.tgz`), read as a stream and never unpacked, or the unpacked folder `aclImdb` or its
///   parent: the files `{train,test}/{neg,pos}/*.txt`, sorted by path, with the labels "negative" and "positive". Maas et al. 2011,
///   <https://ai.stanford.edu/~amaas/data/sentiment/>;
/// - a table, `.csv`, `.tsv` or `.jsonl`, whatever the split;
/// - a folder with `train.*` and `test.*` of those.
///
/// A CSV field may be quoted and then hold line breaks; a TSV field is literal, as in GLUE. Bytes that are not UTF-8 become U+FFFD and are
/// counted. `labels` are the names of the training split, in the order of the ids; without them the names are those found.
///
/// # Errors
/// If there is nothing of the kind, a file is truncated or malformed, or a label is not in `labels`: with the file and the line.
pub fn load_with_labels(path: &Path, split: Split, options: &TableOptions, labels: Option<&[String]>) -> Result<Dataset> {
    load_as(path, split, options, labels, || |text| text)
}

/// As [`load_with_labels`], with the ids of each text (at most `max_length`) in its place: texts are encoded while others are still being
/// read. [`super::Tokenized`] can be made from it.
///
/// # Errors
/// As [`load_with_labels`].
pub fn load_encoded(
    path: &Path,
    split: Split,
    options: &TableOptions,
    labels: Option<&[String]>,
    wordpiece: &WordPiece,
    max_length: usize,
) -> Result<Dataset<Vec<u32>>> {
    load_as(path, split, options, labels, || {
        let mut encoder = Encoder::new(wordpiece);
        move |text: String| encoder.encode(&text, max_length)
    })
}

/// `make` gives each thread a function of a text.
fn load_as<T: Default + Send, F: FnMut(String) -> T>(
    path: &Path,
    split: Split,
    options: &TableOptions,
    labels: Option<&[String]>,
    make: impl Fn() -> F + Sync + Send,
) -> Result<Dataset<T>> {
    let (file, rows) = match locate(path, split)? {
        Place::Archive(file) => (file.clone(), imdb::from_archive(&file, split, make)?),
        Place::Folder(folder) => (folder.clone(), imdb::from_folder(&folder, split, make)?),
        Place::Table(file) => (file.clone(), table::read(&file, options)?.map(make)),
    };
    rows.into_dataset(&file, labels)
}

/// The files that a split is read from, sorted.
pub(super) fn files(path: &Path, split: Split) -> Result<Vec<PathBuf>> {
    match locate(path, split)? {
        Place::Archive(file) | Place::Table(file) => Ok(vec![file]),
        Place::Folder(folder) => Ok(imdb::files(&folder, split)?.into_iter().map(|(file, _)| file).collect()),
    }
}

/// The archive, the table or the folders that a split is read from; nothing if there is no such split.
pub fn sources(path: &Path, split: Split) -> Vec<PathBuf> {
    match locate(path, split) {
        Ok(Place::Archive(file) | Place::Table(file)) => vec![file],
        Ok(Place::Folder(folder)) => ["pos", "neg"].map(|label| folder.join(split.name()).join(label)).to_vec(),
        Err(_) => Vec::new(),
    }
}

enum Place {
    Archive(PathBuf),
    /// Holds `{split}/pos` and `{split}/neg`.
    Folder(PathBuf),
    Table(PathBuf),
}

fn locate(path: &Path, split: Split) -> Result<Place> {
    if !path.is_dir() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            return Ok(Place::Archive(path.to_path_buf()));
        }
        if table::Kind::of(path).is_some() {
            return Ok(Place::Table(path.to_path_buf()));
        }
        std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        return Err(Error::file(path, "name", "not a kind of data set; expected .tar.gz, .tgz, .csv, .tsv, .jsonl or a folder"));
    }
    let is_imdb = |folder: &PathBuf| [Split::Train, Split::Test].iter().any(|s| folder.join(s.name()).join("pos").is_dir());
    if let Some(folder) = [path.to_path_buf(), path.join("aclImdb")].into_iter().find(is_imdb) {
        return Ok(Place::Folder(folder));
    }
    let tables: Vec<PathBuf> = table::EXTENSIONS.iter().map(|e| path.join(format!("{split}.{e}"))).filter(|file| file.is_file()).collect();
    match tables.as_slice() {
        [one] => Ok(Place::Table(one.clone())),
        [] => {
            let problem = format_args!("found neither {split}/pos and {split}/neg, nor {split}.csv, {split}.tsv or {split}.jsonl");
            Err(Error::file(path, "data set", problem))
        }
        [one, two, ..] => {
            Err(Error::file(path, "data set", format_args!("both {} and {} are here; remove one or name it", one.display(), two.display())))
        }
    }
}

/// Labelled texts, or what was made of them, whose labels have no ids yet.
#[derive(Default)]
pub(super) struct Rows<T = String> {
    texts: Vec<T>,
    names: Vec<String>,
    /// Index into `found` of each text.
    labels: Vec<usize>,
    found: Vec<String>,
    index: HashMap<String, usize>,
    lossy: usize,
}

/// Text decoded as UTF-8 with U+FFFD for what is not, and whether there was any.
pub(super) fn decode(text: Vec<u8>) -> (String, bool) {
    match String::from_utf8(text) {
        Ok(text) => (text, false),
        Err(e) => (String::from_utf8_lossy(e.as_bytes()).into_owned(), true),
    }
}

impl Rows {
    fn map<T: Send, F: FnMut(String) -> T>(mut self, make: impl Fn() -> F + Sync + Send) -> Rows<T> {
        let texts = stream::map_chunks(self.texts.chunks_mut(stream::CHUNK), || {
            let mut f = make();
            move |text: &mut String| f(std::mem::take(text))
        });
        let Rows { names, labels, found, index, lossy, .. } = self;
        Rows { texts, names, labels, found, index, lossy }
    }
}

impl<T> Rows<T> {
    /// Adds a text; `lossy` if it was not valid UTF-8. `name` says where it stands.
    pub fn push(&mut self, name: String, text: T, label: &str, lossy: bool) {
        self.lossy += usize::from(lossy);
        self.texts.push(text);
        let label = match self.index.get(label) {
            Some(&i) => i,
            None => {
                self.found.push(label.to_string());
                self.index.insert(label.to_string(), self.found.len() - 1);
                self.found.len() - 1
            }
        };
        self.labels.push(label);
        self.names.push(name);
    }

    fn into_dataset(self, path: &Path, given: Option<&[String]>) -> Result<Dataset<T>> {
        if self.texts.is_empty() {
            return Err(Error::file(path, "data set", "holds no text"));
        }
        let label_names = given.map_or_else(|| sorted(self.found.clone()), <[String]>::to_vec);
        let ids: Vec<Option<usize>> = self.found.iter().map(|label| label_names.iter().position(|name| name == label)).collect();
        let id = |(&label, name): (&usize, &String)| {
            let known = ids[label].and_then(|id| u32::try_from(id).ok());
            known.ok_or_else(|| {
                let label = &self.found[label];
                let known = label_names.join(", ");
                Error::file(path, name, format_args!("the label {label:?} is unknown; the training split has {known}"))
            })
        };
        let labels = self.labels.iter().zip(&self.names).map(id).collect::<Result<Vec<u32>>>()?;
        Ok(Dataset { texts: self.texts, labels, label_names, lossy: self.lossy, names: self.names })
    }
}

/// By value if all are numbers, else as texts.
fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    let numbers: Option<Vec<f64>> = names.iter().map(|name| name.parse().ok()).collect();
    if let Some(numbers) = numbers {
        let mut both: Vec<_> = numbers.into_iter().zip(names).collect();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        names = both.into_iter().map(|(_, name)| name).collect();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_names_are_sorted_by_value() {
        let of = |names: &[&str]| sorted(names.iter().map(|s| s.to_string()).collect());
        assert_eq!(of(&["10", "9", "-1", "2.5"]), ["-1", "2.5", "9", "10"]);
        assert_eq!(of(&["10", "9", "many"]), ["10", "9", "many"]);
        assert_eq!(of(&["positive", "negative"]), ["negative", "positive"]);
    }

    #[test]
    fn finds_the_kind_of_source() {
        let dir = tempfile::tempdir().unwrap();
        let options = TableOptions::default();
        let error = |path: &Path| load(path, Split::Test, &options).unwrap_err().to_string();
        assert!(error(dir.path()).contains("neither test/pos"));
        assert!(error(&dir.path().join("none")).contains("none: "));
        std::fs::write(dir.path().join("x.parquet"), "").unwrap();
        assert!(error(&dir.path().join("x.parquet")).contains("not a kind of data set"));
        std::fs::write(dir.path().join("test.csv"), "text,label\na,1\nb,0\n").unwrap();
        assert_eq!(load(dir.path(), Split::Test, &options).unwrap().labels, [1, 0]);
        assert_eq!(files(dir.path(), Split::Test).unwrap(), [dir.path().join("test.csv")]);
        assert!(load(dir.path(), Split::Train, &options).is_err());
        assert!(load(&dir.path().join("test.csv"), Split::Train, &options).is_ok());
        std::fs::write(dir.path().join("test.tsv"), "text\tlabel\na\t1\n").unwrap();
        assert!(error(dir.path()).contains("remove one"));
        assert_eq!(("train".parse::<Split>().unwrap(), Split::Test.to_string()), (Split::Train, "test".to_string()));
        assert!("dev".parse::<Split>().is_err());
    }
}
