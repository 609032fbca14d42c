//! Data sets with one file for each text: the IMDB reviews (Maas et al. 2011, "Learning word vectors for sentiment analysis"), from the archive
//! or unpacked, and folders of the same form.

use super::decode;
use super::rows::Row;
use super::split::Split;
use crate::files::open_file;
use crate::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Folder and class name of each IMDB label.
const LABELS: [(&str, &str); 2] = [("neg", "negative"), ("pos", "positive")];

/// The folder of IMDB's reviews without a label.
const UNLABELLED: &str = "unsup";

/// Largest size of a review in bytes. IMDB's have fewer than 14 thousand. This bounds the memory that a hostile archive can use.
const LONGEST: u64 = 16 << 20;

/// Most bytes that may stand before an entry of an archive, besides the content of the entry before: headers, long names and attributes, which
/// tar reads into memory. A long path has a few hundred bytes.
const HEADERS: u64 = 1 << 20;

/// A reader that ends with an error after a number of bytes that can be set anew at any time.
struct Limited<R> {
    from: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(left.ok_or_else(|| io::Error::other(format!("headers of more than {HEADERS} bytes")))?);
        Ok(read)
    }
}

/// Emits the reviews `*/{split}/{neg,pos}/*.txt` of a gzip-compressed tar archive.
pub(super) fn read_archive(path: &Path, split: Split, emit: &mut dyn FnMut(Row)) -> Result<()> {
    let file = open_file(path)?;
    let left = Rc::new(Cell::new(HEADERS));
    let mut archive = tar::Archive::new(Limited { from: MultiGzDecoder::new(BufReader::new(file)), left: left.clone() });
    let mut last = "the first entry".to_string();
    let damaged = |last: &str, e: io::Error| {
        Error::file(path, format_args!("after {last}"), format_args!("the archive is damaged or truncated ({e}); download it again"))
    };
    let mut found = HashSet::new();
    for entry in archive.entries().map_err(|e| Error::io(path, e))? {
        let entry = entry.map_err(|e| damaged(&last, e))?;
        if entry.header().entry_type().is_gnu_sparse() {
            // Its size is that of what it stands for, which no byte of the archive has to bear out.
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            return Err(Error::file(path, name, "is a sparse file, which is not read: pack the archive without --sparse"));
        }
        // The content of this entry, and the headers of the next one.
        left.set(entry.size().saturating_add(HEADERS));
        last = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((name, label)) = review(&last, split) else { continue };
        let problem = "is of another class than neg and pos, and the classes of an archive are these two: unpack it, and give the folder";
        let label = label.ok_or_else(|| Error::file(path, &last, problem))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let (text, lossy) = decode::lossily(read(entry).map_err(|e| damaged(&last, e))?, None);
        emit(Row { name, text, second: None, label: label.to_string(), lossy });
        found.insert(label);
    }
    // The archive's checksum is after the part that tar reads: read to the end to verify it.
    io::copy(&mut archive.into_inner().from, &mut io::sink()).map_err(|e| damaged(&last, e))?;
    match LABELS.iter().find(|(_, label)| !found.contains(label)) {
        Some((class, _)) => {
            let problem = "holds no review; expected aclImdb_v1.tar.gz or its folder";
            Err(Error::file(path, format_args!("{split}/{class}/*.txt"), problem))
        }
        None => Ok(()),
    }
}

/// Emits the texts `{class}/*.txt` below `folder`.
pub(super) fn read_folder(folder: &Path, encoding: Option<&str>, emit: &mut dyn FnMut(Row)) -> Result<()> {
    let encoding = encoding.map(decode::encoding).transpose()?;
    for (file, label) in files(folder)? {
        let bytes = read(open_file(&file)?).map_err(|e| Error::io(&file, e))?;
        let (text, lossy) = decode::lossily(bytes, encoding);
        let name = file.strip_prefix(folder.parent().unwrap_or(folder)).unwrap_or(&file);
        // Bytes that are not UTF-8 are shown as they are, so that different files have different names.
        let name = name.to_str().map_or_else(|| format!("{name:?}"), String::from);
        emit(Row { name, text, second: None, label, lossy });
    }
    Ok(())
}

/// The files that [`read_folder`] reads, sorted, and their labels.
pub(super) fn files(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for (class, label) in classes(folder)? {
        found.extend(texts(&class)?.into_iter().map(|file| (file, label.clone())));
    }
    found.sort();
    Ok(found)
}

/// Whether `folder` has folders of texts for two classes or more.
///
/// # Errors
/// If something in it cannot be read.
pub(super) fn has_classes(folder: &Path) -> Result<bool> {
    Ok(folder.is_dir() && classes(folder)?.len() > 1)
}

/// The folders of texts in `folder`, and the names of their classes. If there are only `neg` and `pos`, and perhaps `unsup`, it is IMDB, where the last
/// is no class.
fn classes(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for class in entries(folder)? {
        let kind = std::fs::metadata(&class).map_err(|e| Error::io(&class, e))?;
        if kind.is_dir() && !texts(&class)?.is_empty() {
            let label = name(&class).into_owned();
            found.push((class, label));
        }
    }
    let has = |class: &str| found.iter().any(|(_, label)| label == class);
    let is_imdb =
        LABELS.iter().all(|(class, _)| has(class)) && found.iter().all(|(_, class)| class == UNLABELLED || label(class).is_some());
    if !is_imdb {
        return Ok(found);
    }
    Ok(found.into_iter().filter_map(|(folder, class)| Some((folder, label(&class)?.to_string()))).collect())
}

/// The `.txt` files in a folder.
fn texts(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|file| is_text(&name(file))).collect())
}

/// The files and folders in a folder, without hidden ones.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, e);
    let all = folder.read_dir().map_err(io)?.map(|entry| Ok(entry.map_err(io)?.path())).collect::<Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|entry| !name(entry).starts_with('.')).collect())
}

/// The name of a file or folder.
fn name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Name (from the split's folder on) and label of an archive's entry, if it is a text of `split`; no label, if its class is neither `neg` nor `pos`.
fn review(path: &str, split: Split) -> Option<(String, Option<&'static str>)> {
    let mut parts = path.rsplitn(4, '/');
    let (file, class, folder) = (parts.next()?, parts.next()?, parts.next()?);
    let is_review = folder == split.name() && is_text(file) && class != UNLABELLED && !class.starts_with('.');
    is_review.then(|| (format!("{folder}/{class}/{file}"), label(class)))
}

/// The label of IMDB's class with this folder.
fn label(class: &str) -> Option<&'static str> {
    LABELS.iter().find(|(folder, _)| *folder == class).map(|(_, label)| *label)
}

/// Whether this is the name of a text. macOS adds files that start with `._` to archives.
fn is_text(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".txt") && !name.starts_with('.')
}

fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(LONGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("a review has more than {LONGEST} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use crate::data::{Labels, Split, TableOptions, Tokenized, WordPiece, load, load_encoded, load_with_labels};
    use flate2::{Compression, write::GzEncoder};
    use std::path::Path;

    const FILES: [(&str, &[u8]); 7] = [
        ("aclImdb/train/pos/1_9.txt", b"fine"),
        ("aclImdb/train/neg/10_1.txt", b"bad \xff"),
        ("aclImdb/train/unsup/0_0.txt", b"unlabelled"),
        ("aclImdb/train/pos/._1_9.txt", b"junk"),
        ("aclImdb/test/pos/0_8.txt", b"nice"),
        ("aclImdb/train/pos/0_10.txt", b"great"),
        ("aclImdb/test/neg/3_2.txt", b"dull"),
    ];

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *bytes).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn error(path: &Path) -> String {
        load(path, Split::Train, &TableOptions::default()).unwrap_err().to_string()
    }

    #[test]
    fn archive_and_folder_agree() {
        let dir = tempfile::tempdir().unwrap();
        let packed = dir.path().join("a.tgz");
        std::fs::write(&packed, archive(&FILES)).unwrap();
        for (path, bytes) in FILES {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let options = TableOptions::default();
        let wordpiece = WordPiece::from_vocab("[UNK] [CLS] [SEP] fine bad great nice".split(' ').map(String::from)).unwrap();
        let train = load(&packed, Split::Train, &options).unwrap();
        assert_eq!(train.texts, ["bad \u{fffd}", "great", "fine"]);
        assert_eq!(train.names, ["train/neg/10_1.txt", "train/pos/0_10.txt", "train/pos/1_9.txt"]);
        assert_eq!((&train.labels[..], train.lossy), (&[0, 1, 1][..], 1));
        assert_eq!(train.label_names, ["negative", "positive"]);
        for split in [Split::Train, Split::Test] {
            let want = load(&packed, split, &options).unwrap();
            let encoded = load_encoded(&packed, split, &options, &Labels::default(), &wordpiece, 99).unwrap();
            assert_eq!((&encoded.names, encoded.lossy), (&want.names, want.lossy));
            assert_eq!(Tokenized::from(encoded), Tokenized::new(&want, &wordpiece, 99));
            assert_eq!(load(dir.path(), split, &options).unwrap(), want);
            assert_eq!(load(&dir.path().join("aclImdb"), split, &options).unwrap(), want);
        }
        let swapped = ["positive", "negative"].map(String::from);
        assert_eq!(load_with_labels(&packed, Split::Train, &options, &Labels::named(&swapped)).unwrap().labels, [1, 0, 0]);
        let foreign = ["negative", "good"].map(String::from);
        let message = load_with_labels(&packed, Split::Train, &options, &Labels::named(&foreign)).unwrap_err().to_string();
        assert!(message.contains("train/pos/0_10.txt: the label \"positive\" is none of the classes negative, good"), "{message}");
    }

    #[test]
    fn a_third_class_is_not_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in
            [("neg/1.txt", "bad"), ("pos/1.TXT", "fine"), ("unsup/1.txt", "no"), (".checkpoints/1.txt", "old"), ("notes.md", "")]
        {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = || load(dir.path(), Split::Train, &TableOptions::default());
        assert_eq!(found().unwrap().label_names, ["negative", "positive"]);
        std::fs::create_dir(dir.path().join("neu")).unwrap();
        assert_eq!(found().unwrap().label_names, ["negative", "positive"], "no text is in it yet");
        std::fs::write(dir.path().join("neu/1.txt"), "so so").unwrap();
        assert_eq!(found().unwrap().label_names, ["neg", "neu", "pos", "unsup"]);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("gone", dir.path().join("more")).unwrap();
            assert!(found().unwrap_err().to_string().contains("more"), "a class whose link leads nowhere");
        }
        let packed = dir.path().join("a.tgz");
        let third: (&str, &[u8]) = ("aclImdb/train/neu/1_5.txt", b"so so");
        std::fs::write(&packed, archive(&[FILES[0], FILES[1], third])).unwrap();
        assert!(error(&packed).contains("train/neu/1_5.txt: is of another class than neg and pos"), "{}", error(&packed));
    }

    #[test]
    fn damaged_archives_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let whole = archive(&FILES);
        for length in [0, 5, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(error(&path).contains("a.tar.gz: "), "{length}");
        }
        let mut flipped = whole.clone();
        let crc = whole.len() - 6;
        flipped[crc] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert!(error(&path).contains("damaged or truncated"), "{}", error(&path));
        std::fs::write(&path, archive(&FILES[..1])).unwrap();
        assert!(error(&path).contains("train/neg/*.txt: holds no review"));
        std::fs::write(&path, archive(&[FILES[0], FILES[1], FILES[0]])).unwrap();
        assert!(error(&path).contains("twice"));
        // A long name of 3 MiB, which gzip makes small.
        let long = "a/".repeat(3 << 19);
        std::fs::write(&path, archive(&[FILES[0], (&format!("{long}train/pos/1_9.txt"), b"fine"), FILES[1]])).unwrap();
        assert!(error(&path).contains("headers of more than"), "{}", error(&path));
        // A sparse file says a size that no byte of the archive bears out.
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(0);
        header.as_gnu_mut().unwrap().set_real_size(0);
        tar.append_data(&mut header, "aclImdb/train/pos/1_9.txt", &b""[..]).unwrap();
        std::fs::write(&path, tar.into_inner().unwrap().finish().unwrap()).unwrap();
        assert!(error(&path).contains("1_9.txt: is a sparse file"), "{}", error(&path));
    }
}
