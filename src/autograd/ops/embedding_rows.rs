//! Which rows of tables the fused embedding op adds.

use crate::tensor::Sequences;

/// The two rows whose sum is the embedding of row `row` of a packed batch. Each is a table's
/// number and a row of it: table 0 has the words, table 1 the positions, and table 2 the prompt of `prompt` rows, which come before the
/// words of each sequence.
pub(super) fn picked(sequences: &Sequences, prompt: usize, ids: &[u32], row: usize) -> [(usize, u32); 2] {
    let (b, place) = sequences.locate(row);
    let own = if place < prompt { (2, place as u32) } else { (0, ids[row - (b + 1) * prompt]) };
    [own, (1, place as u32)]
}
