//! Enters `data::WordPiece::open` with a `vocab.txt`, and encodes a text. Parts: the vocabulary, the text.

use super::input::{parts, with_files};
use super::tokenizer::encode;
use lowrank::data::WordPiece;

pub fn run(data: &[u8]) {
    let [vocab, text] = parts::<2>(data);
    with_files(&[("vocab.txt", vocab)], |folder| {
        if let Ok(wordpiece) = WordPiece::open(folder) {
            encode(&wordpiece, text);
        }
    });
}
