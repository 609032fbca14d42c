//! `lowrank predict` of pairs of texts from a table.

use super::adapted::Adapted;
use super::answer::{BATCH, say_answer};
use super::eval::logits;
use lowrank::cut::Windows;
use lowrank::data::{Encoded, Encoder, Sequence, TableOptions, load_text_pairs};
use lowrank::{Error, Result};
use std::path::Path;

/// Prints one line for each pair and model: as text, or as a JSON object.
///
/// # Errors
/// If the file is no table or lacks a column, and those of the model.
pub fn answer_pairs(all: &[Adapted], path: &Path, options: &TableOptions, as_json: bool) -> Result<()> {
    let problem = "names a column, and this file is no table: expected .csv, .tsv, .json or .jsonl";
    let pairs = load_text_pairs(path, options)?.ok_or_else(|| Error::file(path, "--text-pair-column", problem))?;
    pairs.chunks(4 * BATCH).try_for_each(|pairs| all.iter().try_for_each(|adapted| answer(all, adapted, pairs, as_json)))
}

fn answer(all: &[Adapted], adapted: &Adapted, pairs: &[[String; 2]], as_json: bool) -> Result<()> {
    let mut encoder = Encoder::new(&adapted.wordpiece);
    let encoded: Vec<Encoded> =
        pairs.iter().map(|pair| Encoded::pair(&mut encoder, [&pair[0], &pair[1]], adapted.cut.max_length)).collect();
    let ids: Vec<Sequence> = encoded.iter().map(Sequence::from).collect();
    let rows = adapted.scores(&logits(adapted, &Windows::of(&ids, None), BATCH)?);
    let say = |([text, second], row): (&[String; 2], &Vec<f64>)| say_answer(adapted, all.len() > 1, (text, Some(second)), row, as_json);
    pairs.iter().zip(&rows).try_for_each(say)
}
