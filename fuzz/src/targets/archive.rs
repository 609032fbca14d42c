//! Enters `data::load` with an IMDB archive `a.tar.gz`. The input is the tar file: the checksums of its headers are put right, and it is packed
//! with gzip. An input that begins as a gzip file is the whole archive.

use super::input::with_files;
use super::table::gzip;
use lowrank::data::{Split, TableOptions, load};

/// Bytes of a header of tar, and of the units of a file in it.
const BLOCK: usize = 512;
/// Place of the size in a header, and of the checksum.
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;

pub fn run(data: &[u8]) {
    let file = if data.starts_with(&[0x1f, 0x8b]) { data.to_vec() } else { gzip(&with_checksums(data)) };
    let split = if data.len().is_multiple_of(2) { Split::Train } else { Split::Test };
    with_files(&[("a.tar.gz", &file)], |folder| {
        if let Ok(data) = load(&folder.join("a.tar.gz"), split, &TableOptions::default()) {
            assert!(data.labels.len() == data.len() && data.labels.iter().all(|&label| label < 2));
        }
    });
}

/// The tar file with the checksum in each header that it should have.
fn with_checksums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    let mut at = 0_usize;
    while let Some(header) = tar.get_mut(at..at.saturating_add(BLOCK)) {
        if header.iter().any(|&byte| byte != 0) {
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let digits: String = header[SIZE].iter().map(|&byte| char::from(byte)).collect();
        let size = usize::from_str_radix(digits.trim_matches(['\0', ' ']), 8).unwrap_or(0);
        at = at.saturating_add(BLOCK).saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
    }
    tar
}
