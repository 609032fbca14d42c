//! `lowrank predict` of pairs of texts from a table.

use super::adapted::Adapted;
use super::answer::{BATCH, line, object};
use super::common::{say, say_json};
use super::ranks::{check_inference, ranks};
use lowrank::data::{Encoded, Encoder, Sequence, TableOptions, load_text_pairs};
use lowrank::train::logits_across;
use lowrank::{Error, Result};
use serde_json::json;
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
    check_inference(&adapted.model, &ids)?;
    let rows = adapted.scores(&logits_across(&*ranks(), &adapted.model, &ids, BATCH)?);
    let name = (all.len() > 1).then_some(&adapted.name);
    for ([text, second], row) in pairs.iter().zip(rows) {
        if as_json {
            let mut object = object(adapted, text, &row);
            object["text_pair"] = json!(second);
            name.iter().for_each(|name| object["adapter"] = json!(name));
            say_json(&object)?;
        } else {
            let name = name.map_or(String::new(), |name| format!("{name}\t"));
            let [text, second] = [text, second].map(|text| text.replace(['\t', '\n', '\r'], " "));
            say(format!("{name}{}\t{text}\t{second}", line(adapted, &row)))?;
        }
    }
    Ok(())
}
