//! Reads a table. The first byte of an input chooses the options; the rest is the file.

use super::input::{Bytes, with_files};
use flate2::Compression;
use flate2::write::GzEncoder;
use lowrank::data::{Labels, Split, TableOptions, load_texts, load_with_labels};
use std::io::Write;

const ENCODINGS: [Option<&str>; 4] = [None, Some("windows-1252"), Some("utf-16le"), Some("shift_jis")];

pub fn run(name: &str, data: &[u8]) {
    let mut bytes = Bytes(data);
    let options = usize::from(bytes.byte());
    let encoding = ENCODINGS[options & 3].map(String::from);
    let (columns, packed, named) = (options & 4 != 0, options & 8 != 0, options & 16 != 0);
    let column = |name: &str| columns.then(|| name.to_string());
    let table = TableOptions { text_column: column("a"), label_column: column("b"), encoding, ..TableOptions::default() };
    let labels = if named { Labels::named(&["no".to_string(), "yes".to_string()]) } else { Labels::default() };
    let file = if packed { gzip(bytes.0) } else { bytes.0.to_vec() };
    with_files(&[(name, &file)], |folder| {
        let path = folder.join(name);
        if let Ok(data) = load_with_labels(&path, Split::Train, &table, &labels) {
            assert!(data.labels.len() == data.len() && data.names.len() == data.len());
            assert!(data.labels.iter().all(|&label| (label as usize) < data.label_names.len()));
        }
        let _ = load_texts(&path, &table);
    });
}

/// `bytes` as a gzip file with the right checksum. They are not compressed, which is fast.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::none());
    packed.write_all(bytes).expect("a vector takes all bytes");
    packed.finish().expect("a vector takes all bytes")
}
