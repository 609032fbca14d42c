//! Finds and reads labelled texts: the IMDB archive, folders of text files, or tables.

use super::dataset::Dataset;
use super::encoder::Encoder;
use super::labels::Labels;
use super::rows::{Row, Wanted, dataset};
use super::split::Split;
use super::table::{self, EMPTY_LABEL, TableOptions};
use super::tokenized::Encoded;
use super::wordpiece::WordPiece;
use super::{decode, imdb, records, stream};
use crate::cut::Cut;
use crate::files::{is_there, read_stream};
use crate::outputs::Outputs;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Whether a data set has a split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The data set has it.
    There,
    /// The data set has other splits, but not this one.
    Missing,
    /// The data set has no splits: it is one table, or one set of class folders.
    Undivided,
}

/// Looks for a split of the data set at `path`.
///
/// # Errors
/// If there is no data set.
pub fn find(path: &Path, split: Split) -> Result<Found> {
    Ok(match open(path)? {
        Source::Undivided(_) => Found::Undivided,
        Source::Splits(splits) if splits.iter().any(|(found, _)| *found == split) => Found::There,
        Source::Splits(_) => Found::Missing,
    })
}

/// The table of `split` in the folder of `path`, if `path` is a table with the name `train.*`.
///
/// # Errors
/// If there are several.
pub fn sibling_split(path: &Path, split: Split) -> Result<Option<PathBuf>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let Some(parent) = path.parent().filter(|_| name.starts_with("train.") && table::Kind::of(path).is_some()) else { return Ok(None) };
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Ok(table_of(folder, split)?.map(|place| place.path))
}

/// [`load_with_labels`] without given names: the classes are the labels of the data, sorted (by value if all are numbers).
///
/// # Errors
/// As [`load_with_labels`].
pub fn load(path: &Path, split: Split, options: &TableOptions) -> Result<Dataset> {
    load_with_labels(path, split, options, &Labels::default())
}

/// Reads a split of the data set at `path`, which is one of
/// - `aclImdb_v1.tar.gz` (any `.tar.gz` or `.tgz`), read as a stream and never unpacked, or the unpacked folder `aclImdb` or its
///   parent: the files `{train,test}/{neg,pos}/*.txt`, sorted by path, with the labels "negative" and "positive". Maas et al. 2011,
///   <https://ai.stanford.edu/~amaas/data/sentiment/>;
/// - a table, `.csv`, `.tsv`, `.json` or `.jsonl`, each also with `.gz`: it is read whole for every split;
/// - a folder with `train.*`, and perhaps `validation.*` and `test.*` of those;
/// - a folder with a folder of `.txt` files for each class, read whole for every split; or a folder with such folders in `train`,
///   `validation` and `test`.
///
/// A quoted CSV field may have line breaks. The delimiter is the first of `,`, `;`, tab and `|` with which the header has the columns. Fields
/// of a TSV file are quoted if the whole file follows that form (as pandas writes it), else literal (as in GLUE). A row has at most 64 MiB.
///
/// With [`Labels::outputs`], a label may also be a number, or several labels: names between `|`, `;` or `,`, a JSON list of names, or a JSON list of a 0 or 1 for
/// each. Such a data set keeps them as in the file; [`super::Tokenized::with_targets`] reads them.
///
/// # Errors
/// If there is no such data set, a file is truncated, malformed or not in the encoding, or a label is none of the classes. The message has the
/// file and the line.
pub fn load_with_labels(path: &Path, split: Split, options: &TableOptions, labels: &Labels) -> Result<Dataset> {
    load_as(path, split, options, labels, || |text, second| (text, second))
}

/// [`load_with_labels`] with token ids instead of texts, cut as `cut` says. Texts are encoded while others are being read.
/// [`super::Tokenized`] can be made from the result.
///
/// # Errors
/// As [`load_with_labels`].
pub fn load_encoded(
    path: &Path,
    split: Split,
    options: &TableOptions,
    labels: &Labels,
    wordpiece: &WordPiece,
    cut: impl Into<Cut>,
) -> Result<Dataset<Encoded>> {
    let cut = cut.into();
    load_as(path, split, options, labels, || {
        let mut encoder = Encoder::new(wordpiece);
        move |text: String, second: Option<String>| (Encoded::of(&mut encoder, &text, second.as_deref(), cut), None)
    })
}

/// The rows of a split as they stand in its files, in their order. A text or a label that is missing is empty, and a label may be anything.
///
/// # Errors
/// If there is no such data set, or a file is truncated, malformed or not in the encoding.
pub fn load_rows(path: &Path, split: Split, options: &TableOptions) -> Result<Vec<Row>> {
    read_as(&locate(path, split)?, split, options, Wanted::AsTheyAre, || |text, second| (text, second))
}

/// The texts of a table, or its pairs of texts if `options` name a second column. It needs no column of labels, and the labels are empty. `None` if the file's
/// extension is not a table's.
///
/// # Errors
/// As [`load_with_labels`].
pub fn load_texts(path: &Path, options: &TableOptions) -> Result<Option<Vec<Row>>> {
    if table::Kind::of(path).is_none() {
        return Ok(None);
    }
    let mut texts = Vec::new();
    records::read(path, options, Wanted::Texts, &mut |row| texts.push(row))?;
    Ok(Some(texts))
}

/// The text of a file or of `/dev/stdin`, in `encoding` if one is given.
///
/// # Errors
/// If the file cannot be read or decoded.
pub fn read_text(path: &Path, encoding: Option<&str>) -> Result<String> {
    decode::text(path, read_stream(path)?, encoding)
}

/// Reads a split. `make` returns the function that is applied to each text, with the second text of a pair; every thread gets its own. They work while the source is being read.
fn load_as<T: Default + Send, F: FnMut(String, Option<String>) -> (T, Option<T>)>(
    path: &Path,
    split: Split,
    options: &TableOptions,
    labels: &Labels,
    make: impl Fn() -> F + Sync + Send,
) -> Result<Dataset<T>> {
    let place = locate(path, split)?;
    let rows = read_as(&place, split, options, Wanted::Labelled, make).map_err(|e| match e {
        Error::File { path, place, problem } if labels.outputs == Outputs::Labels && problem == EMPTY_LABEL => {
            Error::file(path, place, format_args!("{problem}: write [] for a text with none of the labels"))
        }
        other => other,
    })?;
    dataset(rows, &place.path, labels)
}

/// The rows of [`load_as`].
fn read_as<T: Send, F: FnMut(String, Option<String>) -> (T, Option<T>)>(
    Place { kind, path }: &Place,
    split: Split,
    options: &TableOptions,
    wanted: Wanted,
    make: impl Fn() -> F + Sync + Send,
) -> Result<Vec<Row<T>>> {
    if let Some(column) = options.text_pair_column.as_ref().filter(|_| *kind != Kind::Table) {
        let problem = format!("has no column {column:?}: pairs of texts are read from a table (.csv, .tsv, .json or .jsonl)");
        return Err(Error::file(path, "--text-pair-column", problem));
    }
    let read = |emit: &mut dyn FnMut(Row)| match kind {
        Kind::Archive => imdb::read_archive(path, split, emit),
        Kind::Folder => imdb::read_folder(path, options.encoding.as_deref(), emit),
        Kind::Table => records::read(path, options, wanted, emit),
    };
    let convert = || {
        let mut f = make();
        move |Row { name, text, second, label, lossy }| {
            let (text, second) = f(text, second);
            Row { name, text, second, label, lossy }
        }
    };
    let mut rows = stream::map_produced(read, |row: &Row| row.text.len() + row.second.as_ref().map_or(0, String::len), convert)?;
    if *kind != Kind::Table {
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = rows.windows(2).find(|w| w[0].name == w[1].name) {
            return Err(Error::file(path, &twice[0].name, "is there twice"));
        }
    }
    Ok(rows)
}

/// The files that a split is read from, sorted.
///
/// # Errors
/// If the data set does not have the split.
pub(super) fn files(path: &Path, split: Split) -> Result<Vec<PathBuf>> {
    let Place { kind, path } = locate(path, split)?;
    if kind != Kind::Folder {
        return Ok(vec![path]);
    }
    Ok(imdb::files(&path)?.into_iter().map(|(file, _)| file).collect())
}

/// The archive, table or folder that a split is read from. `None` if there is no such split.
pub fn location(path: &Path, split: Split) -> Option<PathBuf> {
    locate(path, split).ok().map(|place| place.path)
}

/// Location of the texts of a split.
#[derive(Clone)]
struct Place {
    kind: Kind,
    path: PathBuf,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Archive,
    /// A folder with a folder for each class.
    Folder,
    Table,
}

/// The kind of a data set.
enum Source {
    Undivided(Place),
    Splits(Vec<(Split, Place)>),
}

fn locate(path: &Path, split: Split) -> Result<Place> {
    let splits = match open(path)? {
        Source::Undivided(place) => return Ok(place),
        Source::Splits(splits) => splits,
    };
    if let Some((_, place)) = splits.iter().find(|(found, _)| *found == split) {
        return Ok(place.clone());
    }
    let there: Vec<&str> = splits.iter().map(|(found, _)| found.name()).collect();
    Err(Error::file(path, "data set", format_args!("has no split {split}; it has {}", there.join(", "))))
}

/// Finds the kind of the data set at `path`.
fn open(path: &Path) -> Result<Source> {
    let place = |kind: Kind| Place { kind, path: path.to_path_buf() };
    if !path.is_dir() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            return Ok(Source::Splits([Split::Train, Split::Test].map(|split| (split, place(Kind::Archive))).to_vec()));
        }
        std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if table::Kind::of(path).is_none() {
            let problem = "not a kind of data set; expected .csv, .tsv, .json or .jsonl (perhaps with .gz), .tar.gz, .tgz or a folder";
            return Err(Error::file(path, "name", problem));
        }
        return Ok(Source::Undivided(place(Kind::Table)));
    }
    for folder in [path.to_path_buf(), path.join("aclImdb")] {
        let mut splits = Vec::new();
        for split in Split::ALL {
            for path in split.names().iter().map(|name| folder.join(name)) {
                if imdb::has_classes(&path)? {
                    splits.push((split, Place { kind: Kind::Folder, path }));
                    break;
                }
            }
        }
        if !splits.is_empty() {
            return Ok(Source::Splits(splits));
        }
    }
    let tables = Split::ALL.into_iter().filter_map(|split| Some(table_of(path, split).transpose()?.map(|table| (split, table))));
    let tables = tables.collect::<Result<Vec<_>>>()?;
    if !tables.is_empty() {
        return Ok(Source::Splits(tables));
    }
    if imdb::has_classes(path)? {
        return Ok(Source::Undivided(place(Kind::Folder)));
    }
    let problem = "found neither train.csv (or .tsv, .json, .jsonl), nor train/CLASS/*.txt, nor CLASS/*.txt for two classes or more";
    Err(Error::file(path, "data set", problem))
}

/// The table in `folder` that is named after `split`.
fn table_of(folder: &Path, split: Split) -> Result<Option<Place>> {
    let names = split.names().iter().flat_map(|name| table::EXTENSIONS.iter().map(move |end| format!("{name}.{end}")));
    let files = names.flat_map(|name| [folder.join(format!("{name}.gz")), folder.join(name)]).filter(|file| is_there(file));
    match files.collect::<Vec<_>>().as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(Place { kind: Kind::Table, path: one.clone() })),
        [one, two, ..] => {
            let problem = format_args!("both {} and {} are here; remove one or name it", one.display(), two.display());
            Err(Error::file(folder, "data set", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_as_they_are_keep_both_texts_of_a_pair() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.csv");
        std::fs::write(&path, "text,other,label\na,b,x\nc,,\n").unwrap();
        let options = TableOptions { text_pair_column: Some("other".into()), ..TableOptions::default() };
        let rows = load_rows(&path, Split::Train, &options).unwrap();
        let found: Vec<_> = rows.iter().map(|row| (row.text.as_str(), row.second.as_deref(), row.label.as_str())).collect();
        assert_eq!(found, [("a", Some("b"), "x"), ("c", Some(""), "")]);
    }

    #[test]
    #[cfg(unix)]
    fn data_in_a_pipe_are_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["t.csv", "t.jsonl", "t.tar.gz", "t.txt"] {
            let path = dir.path().join(name);
            crate::testing::make_pipe(&path);
            let texts = || read_text(&path, None).map(drop);
            let message = if name == "t.txt" { texts() } else { load(&path, Split::Train, &TableOptions::default()).map(drop) };
            let message = message.unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("is a named pipe, and only regular files are read"), "{message}");
            assert!(crate::data::hash_file(&path).is_err(), "the key of cached tokens");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn names_of_texts_need_not_be_utf_8() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        for (class, file) in [("x", &b"\xfe.txt"[..]), ("x", b"\xff.txt"), ("y", b"\xff.txt")] {
            std::fs::create_dir_all(dir.path().join(class)).unwrap();
            std::fs::write(dir.path().join(class).join(std::ffi::OsStr::from_bytes(file)), class).unwrap();
        }
        assert_eq!(load(dir.path(), Split::Train, &TableOptions::default()).unwrap().labels, [0, 0, 1]);
    }

    #[test]
    fn finds_the_kind_of_source() {
        let dir = tempfile::tempdir().unwrap();
        let options = TableOptions::default();
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        let error = |path: &Path| load(path, Split::Test, &options).unwrap_err().to_string();
        assert!(error(dir.path()).contains("found neither train.csv"));
        assert!(error(&dir.path().join("none")).contains("none: "));
        write("x.parquet", "");
        assert!(error(&dir.path().join("x.parquet")).contains("not a kind of data set"));
        write("test.csv", "text,label\na,1\nb,0\n");
        assert_eq!(load(dir.path(), Split::Test, &options).unwrap().labels, [1, 0]);
        assert_eq!(files(dir.path(), Split::Test).unwrap(), [dir.path().join("test.csv")]);
        assert!(load(dir.path(), Split::Train, &options).unwrap_err().to_string().contains("has no split train; it has test"));
        assert!(load(&dir.path().join("test.csv"), Split::Train, &options).is_ok());
        assert_eq!(find(&dir.path().join("test.csv"), Split::Train).unwrap(), Found::Undivided);
        write("train.csv", "text,label\na,1\nc,0\n");
        write("dev.jsonl", "{\"text\": \"d\", \"label\": 1}\n");
        assert_eq!(load(dir.path(), Split::Validation, &options).unwrap().texts, ["d"]);
        assert_eq!(load(dir.path(), Split::Test, &options).unwrap().texts, ["a", "b"]);
        let train = dir.path().join("train.csv");
        assert_eq!(load(&train, Split::Test, &options).unwrap().texts, ["a", "c"], "a file is what it is");
        assert_eq!(sibling_split(&train, Split::Test).unwrap().unwrap(), dir.path().join("test.csv"));
        assert_eq!(sibling_split(&train, Split::Validation).unwrap().unwrap(), dir.path().join("dev.jsonl"));
        assert_eq!(sibling_split(&dir.path().join("test.csv"), Split::Validation).unwrap(), None);
        std::fs::remove_file(dir.path().join("test.csv")).unwrap();
        assert_eq!(find(dir.path(), Split::Test).unwrap(), Found::Missing);
        write("train.tsv.gz", "");
        assert!(error(dir.path()).contains("remove one"));
    }

    #[test]
    fn a_folder_may_have_a_folder_for_each_class() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("one/billing/a.txt", b"pay");
        write("one/login/b.txt", b"pass\xe9");
        write("one/notes/readme.md", b"no class");
        let latin = TableOptions { encoding: Some("windows-1252".into()), ..TableOptions::default() };
        let data = load(&dir.path().join("one"), Split::Train, &latin).unwrap();
        assert_eq!((&data.texts[..], &data.labels[..]), (&["pay".to_string(), "pass\u{e9}".into()][..], &[0, 1][..]));
        assert_eq!((&data.label_names[..], data.lossy), (&["billing".to_string(), "login".into()][..], 0));
        assert_eq!(find(&dir.path().join("one"), Split::Test).unwrap(), Found::Undivided);
        write("two/train/x/a.txt", b"1");
        write("two/train/y/a.txt", b"2");
        write("two/test/x/a.txt", b"3");
        write("two/test/y/a.txt", b"4");
        assert_eq!(load(&dir.path().join("two"), Split::Test, &latin).unwrap().texts, ["3", "4"]);
        assert_eq!(find(&dir.path().join("two"), Split::Validation).unwrap(), Found::Missing);
    }
}
