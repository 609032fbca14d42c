//! A packed batch: texts of different lengths one after another, without padding.
//!
//! ```text
//! three texts      [CLS] a b [SEP]      [CLS] c [SEP]      [CLS] d e f [SEP]
//! packed rows        0   1 2   3          4   5   6          7   8 9 10  11       T = 12 rows, one for each token
//! offsets          [ 0,                   4,                 7,             12 ]  B + 1 = 4 numbers
//! ```
//!
//! `[CLS]` and `[SEP]` are special tokens that the tokenizer puts first and last; the model's answer is computed from the row of `[CLS]`. What the model
//! computes for the batch is one matrix `[T, D]`, a row for each token. Most of it works on each row alone. What mixes the rows of a text, or needs a row's
//! place in its text, reads the offsets: attention, the classifier, dropout, and the embeddings of positions.

use crate::{Error, Result};
use std::ops::Range;

/// The sequence boundaries of a packed batch of B sequences and T tokens: sequence b has the rows `offsets[b]..offsets[b + 1]`.
#[derive(Debug)]
pub struct Sequences {
    offsets: Vec<usize>,
    examples: Vec<u32>,
    /// Rows of the second text at the end of each sequence: `[B]`, or empty if no sequence is a pair.
    second_lengths: Vec<usize>,
    /// A copy on a GPU, made when it is first needed.
    #[cfg(feature = "cuda")]
    pub(super) device_copy: std::sync::OnceLock<super::device_sequences::DeviceSequences>,
}

impl PartialEq for Sequences {
    fn eq(&self, other: &Sequences) -> bool {
        (&self.offsets, &self.examples, &self.second_lengths) == (&other.offsets, &other.examples, &other.second_lengths)
    }
}

impl Sequences {
    /// Sequences of `lengths` tokens. `examples[b]` is the example number of sequence b. Training uses epoch · (size of the data set) + index, so that it is
    /// unique in the run. Dropout draws its random numbers from it.
    ///
    /// # Errors
    /// If the two lists differ in length, or a sequence is empty.
    pub fn new(lengths: &[usize], examples: Vec<u32>) -> Result<Sequences> {
        if lengths.len() != examples.len() || lengths.contains(&0) {
            return Err(Error::shape("sequences", "one example per sequence, none empty", &[&lengths.to_vec(), &vec![examples.len()]]));
        }
        let mut offsets = vec![0_usize];
        for (b, &length) in lengths.iter().enumerate() {
            let end = offsets[b].checked_add(length);
            offsets.push(end.ok_or_else(|| Error::shape("sequences", "a number of tokens that fits", &[&lengths.to_vec()]))?);
        }
        Ok(Sequences::of(offsets, examples))
    }

    fn of(offsets: Vec<usize>, examples: Vec<u32>) -> Sequences {
        Sequences {
            offsets,
            examples,
            second_lengths: Vec::new(),
            #[cfg(feature = "cuda")]
            device_copy: std::sync::OnceLock::new(),
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

    /// The first row of each sequence, and T: `[B + 1]`.
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

    /// The example number of each sequence: `[B]`.
    pub fn example_ids(&self) -> &[u32] {
        &self.examples
    }

    /// The same sequences, as pairs of texts: the last `lengths[b]` rows of sequence b are its second text, with the `[SEP]` at its end. 0: a single text.
    ///
    /// # Errors
    /// If there is not one number for each sequence, or one is larger than the sequence.
    pub fn with_second_lengths(mut self, lengths: Vec<usize>) -> Result<Sequences> {
        if lengths.len() != self.count() || lengths.iter().enumerate().any(|(b, &second)| second > self.length(b)) {
            return Err(Error::shape("sequences", "the rows of the second text of each sequence", &[&lengths]));
        }
        self.second_lengths = if lengths.iter().all(|&second| second == 0) { Vec::new() } else { lengths };
        Ok(self)
    }

    /// Number of rows of the second text at the end of each sequence; `None` if no sequence is a pair.
    pub fn second_lengths(&self) -> Option<&[usize]> {
        (!self.second_lengths.is_empty()).then_some(&self.second_lengths)
    }

    /// The same sequences, each with `extra` more rows at its front: those of a prompt.
    ///
    /// # Panics
    /// If the number of rows is too large to be counted.
    pub fn lengthened(&self, extra: usize) -> Sequences {
        let longer = |(b, &o): (usize, &usize)| b.checked_mul(extra).and_then(|more| more.checked_add(o));
        let offsets: Option<Vec<usize>> = self.offsets.iter().enumerate().map(longer).collect();
        let offsets = offsets.unwrap_or_else(|| panic!("sequences: {extra} more rows for each of {} are too many", self.count()));
        Sequences { second_lengths: self.second_lengths.clone(), ..Sequences::of(offsets, self.examples.clone()) }
    }

    /// The same sequences, each cut to its first row.
    pub fn first_rows(&self) -> Sequences {
        Sequences::of((0..self.offsets.len()).collect(), self.examples.clone())
    }

    /// The sequence of `row`, and the index of the row in this sequence.
    pub fn locate(&self, row: usize) -> (usize, usize) {
        let b = self.offsets.partition_point(|&o| o <= row) - 1;
        (b, row - self.offsets[b])
    }
}
