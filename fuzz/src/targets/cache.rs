//! Enters `data::cached` with a file of the token cache. The input is what stands between the key and the hash: both are put around it.

use lowrank::Error;
use lowrank::data::{Labels, Split, TableOptions, TokenKey, Tokenized, WordPiece, cached, load};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use tempfile::TempDir;

/// Bytes before the input: magic, version, key.
const HEAD: usize = 8 + 4 + 32;

/// A data set, and the file of its tokens.
struct Cache {
    folder: TempDir,
    wordpiece: WordPiece,
    file: PathBuf,
    head: Vec<u8>,
}

impl Cache {
    fn new() -> Cache {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("a.csv"), "text,label\na b,1\nb,0\n").expect("a file can be written");
        let wordpiece = WordPiece::from_vocab("[UNK] [CLS] [SEP] a b".split(' ').map(String::from)).expect("a vocabulary");
        let mut cache = Cache { folder, wordpiece, file: PathBuf::new(), head: Vec::new() };
        cache.read(true).expect("the tokens can be made");
        let mut files = cache.folder.path().join("cache").read_dir().expect("the cache is a folder");
        cache.file = files.next().expect("the cache holds a file").expect("an entry").path();
        cache.head = std::fs::read(&cache.file).expect("the file can be read")[..HEAD].to_vec();
        cache
    }

    /// The tokens in the cache; else, if they `may` be made, new ones.
    fn read(&self, may: bool) -> lowrank::Result<Tokenized> {
        let (source, options, labels) = (self.folder.path().join("a.csv"), TableOptions::default(), Labels::default());
        let wordpiece = &self.wordpiece;
        let key =
            TokenKey { source: &source, split: Split::Train, options: &options, labels: &labels, selection: "", wordpiece, cut: 9.into() };
        cached(Some(&self.folder.path().join("cache")), &key, || match may {
            true => Ok(Tokenized::new(&load(&source, Split::Train, &options)?, wordpiece, 9)),
            false => Err(Error::invalid("the file in the cache is not used")),
        })
    }
}

thread_local! {
    static CACHE: Cache = Cache::new();
}

pub fn run(data: &[u8]) {
    CACHE.with(|cache| {
        let mut file = [&cache.head, data].concat();
        let hash = Sha256::digest(&file);
        file.extend_from_slice(&hash);
        std::fs::write(&cache.file, file).expect("a file can be written");
        let Ok(tokens) = cache.read(false) else { return };
        let (n, ids) = (tokens.len(), tokens.tokens());
        assert!(tokens.offsets.len() == n + 1 && tokens.keys.len() == n && tokens.offsets[0] == 0 && tokens.offsets[n] == ids);
        assert!(tokens.offsets.is_sorted() && tokens.class_counts().iter().sum::<usize>() == n);
        assert!(tokens.ids.iter().all(|&id| (id as usize) < cache.wordpiece.vocab_size()));
        assert_eq!(tokens.sequences().len(), n);
    });
}
