//! Enters `data::WordPiece::open` with the files of a tokenizer, and encodes a text. Parts: `tokenizer.json`, `tokenizer_config.json`,
//! `special_tokens_map.json`, `added_tokens.json`, `config.json`, `vocab.txt`, the text.

use super::input::{parts, with_files};
use lowrank::data::{Encoder, WordPiece};

pub fn run(data: &[u8]) {
    let [tokenizer, config, map, added, model, vocab, text] = parts::<7>(data);
    let files = [
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", map),
        ("added_tokens.json", added),
        ("config.json", model),
        ("vocab.txt", vocab),
    ];
    with_files(&files, |folder| {
        if let Ok(wordpiece) = WordPiece::open(folder) {
            encode(&wordpiece, text);
        }
    });
}

/// Encodes `text` with several lengths. Every id is one of the tokenizer's, and the encoder with a cache gives the same ids.
pub fn encode(wordpiece: &WordPiece, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    for length in [2, 5, 512] {
        let ids = wordpiece.encode(&text, length);
        assert!((2..=length).contains(&ids.len()), "{} ids of at most {length}", ids.len());
        ids.iter().for_each(|&id| assert!(wordpiece.token(id).is_some(), "id {id} has no token"));
    }
    let _ = (wordpiece.rules(), wordpiece.vocab_size(), wordpiece.check_fits(8), wordpiece.id("a"));
    // A new cache has 2 MiB: it is made for a part of the inputs.
    if text.len() % 8 == 1 {
        let mut encoder = Encoder::new(wordpiece);
        for _ in 0..2 {
            assert_eq!(encoder.encode(&text, 512), wordpiece.encode(&text, 512));
        }
    }
}
