//! The pieces that words are cut into.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Prefix of every piece of a word but the first.
pub(super) const CONTINUED: &str = "##";

/// The pieces and their ids.
#[derive(Clone, Default, Debug)]
pub(super) struct Pieces {
    /// The pieces that start a word.
    starts: Table,
    /// Those that continue one, without [`CONTINUED`].
    continued: Table,
}

impl Pieces {
    /// Adds a piece, or gives it another id.
    pub fn insert(&mut self, piece: &str, id: u32) {
        match piece.strip_prefix(CONTINUED) {
            Some(rest) => self.continued.insert(rest, id),
            None => self.starts.insert(piece, id),
        }
    }

    pub fn get(&self, piece: &str) -> Option<u32> {
        piece.strip_prefix(CONTINUED).map_or_else(|| self.starts.get(piece), |rest| self.continued.get(rest))
    }

    pub fn len(&self) -> usize {
        self.starts.ids.len() + self.continued.ids.len()
    }

    /// All pieces, sorted by id.
    pub fn all(&self) -> Vec<(String, u32)> {
        let continued = self.continued.ids.iter().map(|(rest, &id)| (format!("{CONTINUED}{rest}"), id));
        let mut all: Vec<_> = self.starts.ids.iter().map(|(piece, &id)| (piece.to_string(), id)).chain(continued).collect();
        all.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        all
    }

    /// Cuts a word greedily into the longest pieces, and appends their ids. Returns false if no piece fits somewhere.
    #[inline]
    pub fn cut(&self, word: &str, ids: &mut Vec<u32>) -> bool {
        let (mut rest, mut table) = (word, &self.starts);
        while !rest.is_empty() {
            let Some((length, id)) = table.longest(rest) else { return false };
            ids.push(id);
            (rest, table) = (&rest[length..], &self.continued);
        }
        true
    }
}

#[derive(Clone, Default, Debug)]
struct Table {
    ids: HashMap<Box<str>, u32, BuildHasherDefault<Fnv>>,
    /// Length of the longest piece, in bytes.
    longest: usize,
}

impl Table {
    fn insert(&mut self, piece: &str, id: u32) {
        self.longest = self.longest.max(piece.len());
        self.ids.insert(piece.into(), id);
    }

    fn get(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// The longest piece that `text` starts with: its length in bytes and its id.
    #[inline]
    fn longest(&self, text: &str) -> Option<(usize, u32)> {
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
