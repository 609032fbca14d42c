//! Equal rows of numbers, found by their bits.

use std::collections::HashMap;

/// Numbers the different rows from 0. Returns the number of each row (`None` where there is no row), and the different rows in the order of their numbers.
pub(super) fn numbered(rows: impl Iterator<Item = Option<Vec<f64>>>) -> (Vec<Option<usize>>, Vec<Vec<f64>>) {
    let (mut index, mut all): (HashMap<Vec<u64>, usize>, Vec<Vec<f64>>) = Default::default();
    let number = |row: Option<Vec<f64>>| {
        let row = row?;
        // −0 and 0 are equal: adding 0 makes both 0.
        let number = *index.entry(row.iter().map(|y| (y + 0.0).to_bits()).collect()).or_insert(all.len());
        if number == all.len() {
            all.push(row);
        }
        Some(number)
    };
    (rows.map(number).collect(), all)
}
