//! Equal rows of numbers, found by their bits.

use std::collections::HashMap;

/// A number for each row that there is, the same for equal rows, and the row of each number.
pub(super) fn numbered(rows: impl Iterator<Item = Option<Vec<f64>>>) -> (Vec<Option<usize>>, Vec<Vec<f64>>) {
    let (mut index, mut all): (HashMap<Vec<u64>, usize>, Vec<Vec<f64>>) = Default::default();
    let number = |row: Option<Vec<f64>>| {
        let row = row?;
        // The sum makes one zero of both.
        let number = *index.entry(row.iter().map(|y| (y + 0.0).to_bits()).collect()).or_insert(all.len());
        if number == all.len() {
            all.push(row);
        }
        Some(number)
    };
    (rows.map(number).collect(), all)
}
