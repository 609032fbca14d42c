//! How the sequences of a batch lie one after another, without padding.

use crate::{Error, Result};
use std::ops::Range;

/// A packed batch of B sequences and T tokens: sequence b owns the rows `offsets[b]..offsets[b + 1]`.
#[derive(Debug)]
pub struct Sequences {
    offsets: Vec<usize>,
    examples: Vec<u32>,
    #[cfg(feature = "cuda")]
    pub(super) on_device: std::sync::OnceLock<super::cuda::DeviceSequences>,
}

impl PartialEq for Sequences {
    fn eq(&self, other: &Sequences) -> bool {
        (&self.offsets, &self.examples) == (&other.offsets, &other.examples)
    }
}

impl Sequences {
    /// Sequences of `lengths` tokens. `examples[b]` is the ordinal of sequence b in the run (epoch · N + index): dropout masks depend on it.
    ///
    /// # Errors
    /// If the two differ in length, or a sequence is empty.
    pub fn new(lengths: &[usize], examples: Vec<u32>) -> Result<Sequences> {
        if lengths.len() != examples.len() || lengths.contains(&0) {
            return Err(Error::shape("sequences", "one example per sequence, none empty", &[&lengths.to_vec(), &vec![examples.len()]]));
        }
        let mut offsets = vec![0];
        offsets.extend(lengths.iter().scan(0, |end, n| {
            *end += n;
            Some(*end)
        }));
        Ok(Sequences::of(offsets, examples))
    }

    fn of(offsets: Vec<usize>, examples: Vec<u32>) -> Sequences {
        Sequences {
            offsets,
            examples,
            #[cfg(feature = "cuda")]
            on_device: std::sync::OnceLock::new(),
        }
    }

    /// Number of sequences, B.
    pub fn count(&self) -> usize {
        self.examples.len()
    }

    /// Number of tokens, T.
    pub fn tokens(&self) -> usize {
        self.offsets[self.count()]
    }

    /// First row of each sequence, and T: `[B + 1]`.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The rows of sequence `b`.
    pub fn range(&self, b: usize) -> Range<usize> {
        self.offsets[b]..self.offsets[b + 1]
    }

    /// Number of rows of sequence `b`.
    pub fn length(&self, b: usize) -> usize {
        self.range(b).len()
    }

    /// The ordinal of each sequence in the run: `[B]`.
    pub fn example_ids(&self) -> &[u32] {
        &self.examples
    }

    /// The same sequences with `extra` more rows at the front of each.
    pub fn lengthened(&self, extra: usize) -> Sequences {
        let offsets = self.offsets.iter().enumerate().map(|(b, o)| o + b * extra).collect();
        Sequences::of(offsets, self.examples.clone())
    }

    /// The same sequences cut to their first row.
    pub fn first_rows(&self) -> Sequences {
        Sequences::of((0..self.offsets.len()).collect(), self.examples.clone())
    }

    /// The sequence that owns `row`, and the row within it.
    pub fn locate(&self, row: usize) -> (usize, usize) {
        let b = self.offsets.partition_point(|&o| o <= row) - 1;
        (b, row - self.offsets[b])
    }
}
