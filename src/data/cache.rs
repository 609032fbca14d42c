//! Tokens kept on disk under a key of everything that they depend on.
//!
//! A cache file is: magic, version, key, the numbers of labels, sequences, ids, and lossy, empty and cut texts (u64 each), the label names
//! (length as u32, bytes), the key of each text as u64, then labels, lengths and ids as u32, and the SHA-256 of all that. Integers are
//! little-endian.

use super::source::files;
use super::{Labels, Oddities, Split, TableOptions, Tokenized, WordPiece};
use crate::tensor::hex;
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const MAGIC: [u8; 8] = *b"lowrank\0";
/// Also part of the key: raise it when the tokenizer or a reader changes what it gives.
const VERSION: u32 = 2;

type Sha = [u8; 32];

/// What tokens are made from.
#[derive(Clone, Copy, Debug)]
pub struct TokenKey<'a> {
    /// The data set, as given to [`super::load`].
    pub source: &'a Path,
    /// The split of it.
    pub split: Split,
    /// The columns of a table.
    pub options: &'a TableOptions,
    /// What is known of the classes.
    pub labels: &'a Labels,
    /// Which of the texts are taken, in words that name every setting: a limit, a development fraction, their seeds.
    pub selection: &'a str,
    /// The tokenizer.
    pub wordpiece: &'a WordPiece,
    /// Ids kept of a text.
    pub max_length: usize,
}

/// The tokens that `make` gives for `recipe`, from the folder `dir` if they are there, else made and put there. What is found is used only
/// if it is whole and has the recipe's key: the content of the source's files, not their times. Without `dir` nothing is read or written;
/// a folder that cannot be written is no error.
///
/// # Errors
/// If the source cannot be read, or those of `make`.
pub fn cached(dir: Option<&Path>, recipe: &TokenKey, make: impl FnOnce() -> Result<Tokenized>) -> Result<Tokenized> {
    let Some(dir) = dir else { return make() };
    let key = key(recipe)?;
    let path = dir.join(format!("{}.tokens", hex(&key[..16])));
    if let Some(tokens) = fs::read(&path).ok().and_then(|bytes| decode(&bytes, &key, recipe.wordpiece.vocab_size())) {
        return Ok(tokens);
    }
    let tokens = make()?;
    // A cache only saves time: where it cannot be kept, the next run makes the tokens again.
    let _ = write(dir, &path, &encode(&tokens, &key));
    Ok(tokens)
}

fn key(recipe: &TokenKey) -> Result<Sha> {
    let mut hash = Sha256::new();
    // Lengths stand before the parts, so that no two recipes run together.
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let TokenKey { source, split, options, labels, selection, wordpiece, max_length } = *recipe;
    part(format!("{VERSION} {split} {max_length} {options:?} {labels:?}").as_bytes());
    part(selection.as_bytes());
    part(wordpiece.rules().as_bytes());
    for (token, id) in wordpiece.vocabulary() {
        part(token.as_bytes());
        part(&id.to_le_bytes());
    }
    hash_files(source, split, &mut part)?;
    Ok(hash.finalize().into())
}

/// Passes on the names and hashes of the files of a split.
fn hash_files(source: &Path, split: Split, part: &mut dyn FnMut(&[u8])) -> Result<()> {
    for file in files(source, split)? {
        let name = file.strip_prefix(source).unwrap_or(Path::new("")).as_os_str();
        // The reader goes by the extension of a single file.
        part(if name.is_empty() { file.extension().unwrap_or_default() } else { name }.as_encoded_bytes());
        part(&hash_file(&file)?);
    }
    Ok(())
}

/// SHA-256 of what a split of the data set at `source` is read from, in hexadecimal digits: of a table or an archive the file's own,
/// wherever it lies and whatever it is called.
///
/// # Errors
/// If there is no such split, or a file cannot be read.
pub fn data_hash(source: &Path, split: Split) -> Result<String> {
    let mut hash = Sha256::new();
    match files(source, split)?.as_slice() {
        [file] => return Ok(hex(&hash_file(file)?)),
        _ => hash_files(source, split, &mut |bytes| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        })?,
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of a file.
///
/// # Errors
/// If it cannot be read.
pub fn hash_file(path: &Path) -> Result<[u8; 32]> {
    let io = |e| Error::io(path, e);
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(io)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match io::Read::read(&mut file, &mut buffer).map_err(io)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn encode(tokens: &Tokenized, key: &Sha) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 * (tokens.tokens() + 2 * tokens.len()) + 1024);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(key);
    let Oddities { lossy, empty, cut } = tokens.oddities;
    for count in [tokens.label_names.len(), tokens.len(), tokens.tokens(), lossy, empty, cut] {
        out.extend_from_slice(&(count as u64).to_le_bytes());
    }
    for name in &tokens.label_names {
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
    }
    tokens.keys.iter().for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
    let lengths = tokens.lengths().into_iter().map(|n| n as u32);
    for word in tokens.labels.iter().copied().chain(lengths).chain(tokens.ids.iter().copied()) {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let sum: Sha = Sha256::digest(&out).into();
    out.extend_from_slice(&sum);
    out
}

/// `None` if the file is not whole, another recipe's, or not what [`encode`] writes.
fn decode(bytes: &[u8], key: &Sha, vocab: usize) -> Option<Tokenized> {
    let (body, sum) = bytes.split_last_chunk::<32>()?;
    let mut rest = body.strip_prefix(&MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?.strip_prefix(key)?;
    if Sha::from(Sha256::digest(body)) != *sum {
        return None;
    }
    let mut count = || {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        rest = tail;
        usize::try_from(u64::from_le_bytes(*head)).ok()
    };
    let (labels, sequences, ids) = (count()?, count()?, count()?);
    let oddities = Oddities { lossy: count()?, empty: count()?, cut: count()? };
    let mut label_names = Vec::new();
    for _ in 0..labels {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let (name, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        label_names.push(String::from_utf8(name.to_vec()).ok()?);
        rest = tail;
    }
    // A key, a label and a length of each sequence.
    if Some(rest.len()) != sequences.checked_mul(4)?.checked_add(ids)?.checked_mul(4) {
        return None;
    }
    let (keys, rest) = rest.split_at(8 * sequences);
    let keys = keys.as_chunks::<8>().0.iter().map(|&key| u64::from_le_bytes(key)).collect();
    let words: Vec<u32> = rest.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word)).collect();
    let (labels, lengths) = words[..2 * sequences].split_at(sequences);
    let ends = lengths.iter().scan(0_usize, |end, &n| {
        *end = end.checked_add(n as usize)?;
        Some(*end)
    });
    let offsets: Vec<usize> = std::iter::once(0).chain(ends).collect();
    let tokens = Tokenized { ids: words[2 * sequences..].to_vec(), labels: labels.to_vec(), offsets, label_names, keys, oddities };
    let whole = tokens.offsets.len() == sequences + 1 && tokens.offsets.last() == Some(&ids);
    let in_range = |values: &[u32], end: usize| values.iter().all(|&v| (v as usize) < end);
    (whole && in_range(&tokens.ids, vocab) && in_range(&tokens.labels, tokens.label_names.len())).then_some(tokens)
}

/// Writes so that no reader ever sees a part.
fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let scratch = path.with_extension(format!("{}.tmp", std::process::id()));
    let done = File::create(&scratch)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&scratch, path));
    if done.is_err() {
        let _ = fs::remove_file(&scratch);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::load;
    use std::cell::Cell;

    fn wordpiece(last: &str) -> WordPiece {
        WordPiece::from_vocab(["[UNK]", "[CLS]", "[SEP]", "a", last].map(String::from)).unwrap()
    }

    #[test]
    fn made_once_and_again_when_anything_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (source, cache) = (dir.path().join("a.csv"), dir.path().join("deep/cache"));
        fs::write(&source, "text,label\na b,1\nb,0\n").unwrap();
        let (made, w, options, any) = (Cell::new(0), wordpiece("b"), TableOptions::default(), Labels::default());
        let recipe =
            TokenKey { source: &source, split: Split::Train, options: &options, labels: &any, selection: "", wordpiece: &w, max_length: 9 };
        let run = |recipe: &TokenKey| {
            let make = || {
                made.set(made.get() + 1);
                Ok(Tokenized::new(&load(recipe.source, recipe.split, recipe.options)?, recipe.wordpiece, recipe.max_length))
            };
            let tokens = cached(Some(&cache), recipe, make).unwrap();
            assert_eq!(
                tokens,
                cached(None, recipe, || Ok(Tokenized::new(&load(&source, Split::Train, &options)?, recipe.wordpiece, recipe.max_length)))
                    .unwrap()
            );
            made.replace(0)
        };
        assert_eq!((run(&recipe), run(&recipe)), (1, 0));
        let (other, labels) = (wordpiece("##b"), Labels::named(&["0".to_string(), "1".into()]));
        let named = TableOptions { text_column: Some("text".into()), ..TableOptions::default() };
        for changed in [
            TokenKey { wordpiece: &other, ..recipe },
            TokenKey { max_length: 8, ..recipe },
            TokenKey { selection: "limit 9 seed 1", ..recipe },
            TokenKey { split: Split::Test, ..recipe },
            TokenKey { options: &named, ..recipe },
            TokenKey { labels: &labels, ..recipe },
        ] {
            assert_eq!((run(&changed), run(&changed)), (1, 0), "{changed:?}");
        }
        fs::write(&source, "text,label\na b,1\na,0\n").unwrap();
        assert_eq!((run(&recipe), run(&recipe)), (1, 0));
        assert!(fs::read_dir(&cache).unwrap().all(|f| f.unwrap().path().extension().unwrap() == "tokens"));
    }

    #[test]
    fn damaged_files_are_made_again() {
        let tokens = Tokenized {
            ids: vec![1, 2, 1, 3, 2],
            offsets: vec![0, 2, 5],
            labels: vec![1, 0],
            label_names: vec!["x".into(), "\u{e9}".into()],
            keys: vec![9, u64::MAX],
            oddities: Oddities { lossy: 1, empty: 2, cut: 3 },
        };
        let (key, bytes) = ([7; 32], encode(&tokens, &[7; 32]));
        assert_eq!(decode(&bytes, &key, 4), Some(tokens.clone()));
        assert!(decode(&bytes, &key, 3).is_none() && decode(&bytes, &[8; 32], 4).is_none());
        for i in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[i] ^= 0x10;
            assert!(decode(&flipped, &key, 4).is_none(), "{i}");
            assert!(decode(&bytes[..i], &key, 4).is_none(), "{i}");
        }
        let wrong = Tokenized { labels: vec![2, 0], ..tokens.clone() };
        assert!(decode(&encode(&wrong, &key), &key, 4).is_none());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("a.csv");
        fs::write(&source, "text,label\na,1\n").unwrap();
        let (w, options, any) = (wordpiece("b"), TableOptions::default(), Labels::default());
        let recipe =
            TokenKey { source: &source, split: Split::Train, options: &options, labels: &any, selection: "", wordpiece: &w, max_length: 9 };
        let make = || Ok(Tokenized::new(&load(&source, Split::Train, &options)?, &w, 9));
        assert_eq!(cached(Some(&source.join("inside")), &recipe, make).unwrap().tokens(), 3);
    }
}
