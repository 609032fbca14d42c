//! A cache of tokens on disk, under a key of everything that they depend on.
//!
//! A file has, in this order: magic, version, key; the numbers of labels, sequences, ids, and of lossy, empty and cut texts, each a u64; the
//! label names, each a length as u32 and its bytes; the key of each text as u64; labels, lengths and ids as u32; of pairs, the number of ids of each
//! second text as u32; the SHA-256 of all before. Integers are little-endian.

use super::labels::Labels;
use super::source::files;
use super::split::Split;
use super::table::TableOptions;
use super::tokenized::{Oddities, Tokenized};
use super::wordpiece::WordPiece;
use crate::cut::Cut;
use crate::files::{open_file, read_bytes, write_file};
use crate::text::hex;
use crate::{Error, Result};
use byteorder::{ByteOrder, LittleEndian, ReadBytesExt};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::path::Path;

const MAGIC: [u8; 8] = *b"lowrank\0";
/// Version of the format, also part of the key. Raise it when the tokenizer or a reader gives other results.
const VERSION: u32 = 3;

type Sha = [u8; 32];

/// Everything that the tokens of a data set depend on.
#[derive(Clone, Copy, Debug)]
pub struct TokenKey<'a> {
    /// Path of the data set, as given to [`super::load`].
    pub source: &'a Path,
    /// The split.
    pub split: Split,
    /// Columns and encoding of tables.
    pub options: &'a TableOptions,
    /// Names of the classes.
    pub labels: &'a Labels,
    /// The selection of texts, as a string with every setting: a limit, a development fraction, their seeds.
    pub selection: &'a str,
    /// The tokenizer.
    pub wordpiece: &'a WordPiece,
    /// How long texts are cut.
    pub cut: Cut,
}

/// The tokens of `key`: from the folder `dir` if they are there, else from `make`, and then stored there. A file is used only if it is
/// undamaged and has the same key, which includes the content of the source's files. Without `dir` nothing is read or written. It is no error
/// if the folder cannot be written.
///
/// # Errors
/// If the source cannot be read, or those of `make`.
pub fn cached(dir: Option<&Path>, token_key: &TokenKey, make: impl FnOnce() -> Result<Tokenized>) -> Result<Tokenized> {
    let window = token_key.cut.window();
    let Some(dir) = dir else { return Ok(Tokenized { window, ..make()? }) };
    let key = hash_key(token_key)?;
    let path = dir.join(format!("{}.tokens", hex(&key[..16])));
    if let Some(tokens) = read_bytes(&path).ok().and_then(|bytes| decode(&bytes, &key, token_key.wordpiece.vocab_size())) {
        return Ok(Tokenized { window, ..tokens });
    }
    let tokens = Tokenized { window, ..make()? };
    // A cache only saves time: if it cannot be written, the next run makes the tokens again.
    let _ = fs::create_dir_all(dir).is_ok_and(|()| write_file(&path, &encode(&tokens, &key)).is_ok());
    Ok(tokens)
}

/// Adds `bytes` after their length, so that no two lists of parts have the same concatenation.
fn add_part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn hash_key(key: &TokenKey) -> Result<Sha> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| add_part(&mut hash, bytes);
    let TokenKey { source, split, options, labels, selection, wordpiece, cut } = *key;
    part(format!("{VERSION} {split} {cut} {options:?} {labels:?}").as_bytes());
    part(selection.as_bytes());
    part(wordpiece.rules().as_bytes());
    for (token, id) in wordpiece.vocabulary() {
        part(token.as_bytes());
        part(&id.to_le_bytes());
    }
    hash_files(source, split, &mut hash)?;
    Ok(hash.finalize().into())
}

/// Adds the names and hashes of the files of a split.
fn hash_files(source: &Path, split: Split, hash: &mut Sha256) -> Result<()> {
    for file in files(source, split)? {
        let name = file.strip_prefix(source).unwrap_or(Path::new("")).as_os_str();
        // The extension of a single file decides how it is read.
        add_part(hash, if name.is_empty() { file.extension().unwrap_or_default() } else { name }.as_encoded_bytes());
        add_part(hash, &hash_file(&file)?);
    }
    Ok(())
}

/// SHA-256 of the files of a split, in hexadecimal digits. That of a table or an archive is the hash of the file: its path does not matter.
///
/// # Errors
/// If there is no such split, or a file cannot be read.
pub fn data_hash(source: &Path, split: Split) -> Result<String> {
    if let [file] = files(source, split)?.as_slice() {
        return Ok(hex(&hash_file(file)?));
    }
    let mut hash = Sha256::new();
    hash_files(source, split, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of a file.
///
/// # Errors
/// If it cannot be read.
pub fn hash_file(path: &Path) -> Result<[u8; 32]> {
    let io = |e| Error::io(path, e);
    let mut hash = Sha256::new();
    let mut file = open_file(path)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn encode(tokens: &Tokenized, key: &Sha) -> Vec<u8> {
    let mut out = [&MAGIC[..], &VERSION.to_le_bytes(), key].concat();
    out.reserve(4 * (tokens.tokens() + 4 * tokens.len()) + 1024);
    let Oddities { lossy, empty, cut } = tokens.oddities;
    for count in [tokens.label_names.len(), tokens.len(), tokens.tokens(), lossy, empty, cut] {
        out.extend((count as u64).to_le_bytes());
    }
    for name in &tokens.label_names {
        out.extend((name.len() as u32).to_le_bytes());
        out.extend(name.as_bytes());
    }
    tokens.keys.iter().for_each(|key| out.extend(key.to_le_bytes()));
    let lengths: Vec<u32> = tokens.lengths().into_iter().map(|n| n as u32).collect();
    let seconds: Vec<u32> = tokens.seconds.iter().map(|&n| n as u32).collect();
    [&tokens.labels, &lengths, &tokens.ids, &seconds].into_iter().flatten().for_each(|word| out.extend(word.to_le_bytes()));
    let sum = Sha256::digest(&out);
    out.extend(sum);
    out
}

/// Reads what [`encode`] wrote. `None` if the file is damaged or has another key.
fn decode(bytes: &[u8], key: &Sha, vocab: usize) -> Option<Tokenized> {
    let (body, sum) = bytes.split_last_chunk::<32>()?;
    let mut rest = body.strip_prefix(&MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?.strip_prefix(key)?;
    if Sha::from(Sha256::digest(body)) != *sum {
        return None;
    }
    let mut count = || usize::try_from(rest.read_u64::<LittleEndian>().ok()?).ok();
    let (labels, n, ids) = (count()?, count()?, count()?);
    let oddities = Oddities { lossy: count()?, empty: count()?, cut: count()? };
    let mut label_names = Vec::new();
    for _ in 0..labels {
        let length = rest.read_u32::<LittleEndian>().ok()?;
        let (name, tail) = rest.split_at_checked(length as usize)?;
        label_names.push(String::from_utf8(name.to_vec()).ok()?);
        rest = tail;
    }
    // Two words of a key, a label and a length for each sequence.
    let single = n.checked_mul(4)?.checked_add(ids)?.checked_mul(4)?;
    let pairs = match rest.len().checked_sub(single)? {
        0 => 0,
        more if more == 4 * n => n,
        _ => return None,
    };
    let (mut keys, mut words) = (vec![0; n], vec![0; 2 * n + ids + pairs]);
    LittleEndian::read_u64_into(&rest[..8 * n], &mut keys);
    LittleEndian::read_u32_into(&rest[8 * n..], &mut words);
    let (labels, lengths) = words[..2 * n].split_at(n);
    let mut offsets = vec![0_usize];
    for &length in lengths {
        offsets.push(offsets[offsets.len() - 1].checked_add(length as usize)?);
    }
    let (ids, seconds) = words[2 * n..].split_at(ids);
    if seconds.iter().zip(lengths).any(|(second, length)| second > length) {
        return None;
    }
    let seconds = seconds.iter().map(|&n| n as usize).collect();
    let tokens = Tokenized {
        ids: ids.to_vec(),
        seconds,
        labels: labels.to_vec(),
        offsets,
        label_names,
        keys,
        oddities,
        window: None,
        targets: None,
    };
    let whole = tokens.offsets.last() == Some(&tokens.ids.len());
    let in_range = |values: &[u32], end: usize| values.iter().all(|&v| (v as usize) < end);
    (whole && in_range(&tokens.ids, vocab) && in_range(&tokens.labels, tokens.label_names.len())).then_some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::Truncate;
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
            TokenKey { source: &source, split: Split::Train, options: &options, labels: &any, selection: "", wordpiece: &w, cut: 9.into() };
        let run = |recipe: &TokenKey| {
            let make = || {
                made.set(made.get() + 1);
                Ok(Tokenized::new(&load(recipe.source, recipe.split, recipe.options)?, recipe.wordpiece, recipe.cut))
            };
            let tokens = cached(Some(&cache), recipe, make).unwrap();
            assert_eq!(
                tokens,
                cached(None, recipe, || Ok(Tokenized::new(&load(&source, Split::Train, &options)?, recipe.wordpiece, recipe.cut))).unwrap()
            );
            made.replace(0)
        };
        assert_eq!((run(&recipe), run(&recipe)), (1, 0));
        let (other, labels) = (wordpiece("##b"), Labels::named(&["0".to_string(), "1".into()]));
        let named = TableOptions { text_column: Some("text".into()), ..TableOptions::default() };
        for changed in [
            TokenKey { wordpiece: &other, ..recipe },
            TokenKey { cut: 8.into(), ..recipe },
            TokenKey { cut: Cut { truncate: Some(Truncate::Tail), ..recipe.cut }, ..recipe },
            TokenKey { cut: Cut { windows: 2, ..recipe.cut }, ..recipe },
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
            seconds: Vec::new(),
            labels: vec![1, 0],
            label_names: vec!["x".into(), "\u{e9}".into()],
            keys: vec![9, u64::MAX],
            oddities: Oddities { lossy: 1, empty: 2, cut: 3 },
            window: None,
            targets: None,
        };
        damage(&tokens);
        damage(&Tokenized { seconds: vec![1, 2], ..tokens.clone() });
        let wrong = Tokenized { labels: vec![2, 0], ..tokens.clone() };
        assert!(decode(&encode(&wrong, &[7; 32]), &[7; 32], 4).is_none());
        let wrong = Tokenized { seconds: vec![3, 0], ..tokens };
        assert!(decode(&encode(&wrong, &[7; 32]), &[7; 32], 4).is_none());
    }

    fn damage(tokens: &Tokenized) {
        let (key, bytes) = ([7; 32], encode(tokens, &[7; 32]));
        assert_eq!(decode(&bytes, &key, 4), Some(tokens.clone()));
        assert!(decode(&bytes, &key, 3).is_none() && decode(&bytes, &[8; 32], 4).is_none());
        for i in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[i] ^= 0x10;
            assert!(decode(&flipped, &key, 4).is_none(), "{i}");
            assert!(decode(&bytes[..i], &key, 4).is_none(), "{i}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("a.csv");
        fs::write(&source, "text,label\na,1\n").unwrap();
        let (w, options, any) = (wordpiece("b"), TableOptions::default(), Labels::default());
        let recipe =
            TokenKey { source: &source, split: Split::Train, options: &options, labels: &any, selection: "", wordpiece: &w, cut: 9.into() };
        let make = || Ok(Tokenized::new(&load(&source, Split::Train, &options)?, &w, 9));
        assert_eq!(cached(Some(&source.join("inside")), &recipe, make).unwrap().tokens(), 3);
    }
}
