//! A table of the pieces that words are cut into.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Pieces and their ids.
#[derive(Clone, Default, Debug)]
pub(super) struct Pieces {
    pub ids: HashMap<Box<str>, u32, BuildHasherDefault<Fnv>>,
    /// Length of the longest piece, in bytes.
    longest: usize,
}

impl Pieces {
    /// Adds a piece, or gives it another id.
    pub fn insert(&mut self, piece: &str, id: u32) {
        self.longest = self.longest.max(piece.len());
        self.ids.insert(piece.into(), id);
    }

    pub fn get(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// The longest piece that `text` starts with: its length in bytes and its id.
    pub fn longest(&self, text: &str) -> Option<(usize, u32)> {
        let ends = (1..=text.len().min(self.longest)).rev().filter(|&end| text.is_char_boundary(end));
        ends.into_iter().find_map(|end| Some((end, self.get(&text[..end])?)))
    }
}

/// FNV-1a, <https://www.rfc-editor.org/rfc/rfc9923>. It is fast for keys of a few bytes, and the vocabulary is trusted.
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xCBF2_9CE4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
