//! The safetensors format: eight bytes of header length, a JSON header, the tensors' bytes. <https://github.com/huggingface/safetensors>
//!
//! Files are mapped into memory and read without a copy where the place is aligned. A file from elsewhere is hostile until its header has
//! been checked whole: lengths, offsets, overlaps, gaps, data types, duplicate keys.

mod header;
mod other;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use header::TensorInfo;
pub(crate) use header::Unique;
pub use other::{read_bytes, read_text};
pub use read::SafeTensors;
pub use write::{check_replaceable, recover_directory, remove_flat, to_bytes, write, write_directory, write_file};

/// The `n` names nearest to `wanted` by edit distance, for messages.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, n: usize) -> Vec<&'a str> {
    let mut by_distance: Vec<(usize, &str)> = names.map(|name| (distance(wanted, name), name)).collect();
    by_distance.sort();
    by_distance.into_iter().take(n).map(|(_, name)| name).collect()
}

/// Levenshtein 1966: insertions, deletions and substitutions that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
