//! `eval --out`: a table of the measured texts with their answers and probabilities.

use super::output::{Input, check_apart};
use lowrank::data::Dataset;
use lowrank::files::write_file;
use lowrank::metrics::argmax;
use lowrank::{Error, Result};
use std::path::Path;

/// Checks, before anything is computed, that a table can be written to `path`.
///
/// # Errors
/// If its name does not end with .csv or .tsv, or an input or another file would be lost.
pub fn check_table(path: &Path, overwrite: bool, inputs: &[Input]) -> Result<()> {
    separator(path)?;
    check_file(path, overwrite, inputs)
}

/// Checks that a file can be written to `path`.
///
/// # Errors
/// If an input or another file would be lost.
pub fn check_file(path: &Path, overwrite: bool, inputs: &[Input]) -> Result<()> {
    check_apart(path, inputs)?;
    if path.is_dir() {
        return Err(Error::file(path, "--out", "is a folder, and a table is to be written here: choose another name"));
    }
    match path.symlink_metadata().is_ok() && !overwrite {
        true => Err(Error::file(path, "--out", "exists already: give --overwrite to replace it, or choose another --out")),
        false => Ok(()),
    }
}

fn separator(path: &Path) -> Result<u8> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => Ok(b','),
        Some("tsv") => Ok(b'\t'),
        _ => Err(Error::file(path, "--out", "must end with .csv or .tsv")),
    }
}

/// Writes a row for each text: the text (of a pair both, in two columns), its label, the answer, the answer's probability, and the probability of each class.
///
/// # Errors
/// If the file cannot be written.
pub fn write_scored(path: &Path, names: &[String], texts: &Dataset, labels: &[u32], rows: &[Vec<f64>]) -> Result<()> {
    let problem = |e: csv::Error| Error::file(path, "--out", e);
    let mut table = csv::WriterBuilder::new().delimiter(separator(path)?).from_writer(Vec::new());
    let second = (!texts.seconds.is_empty()).then(|| "text_pair".to_string());
    let head = ["label", "answer", "probability"].map(String::from);
    table
        .write_record(["text".to_string()].into_iter().chain(second).chain(head).chain(names.iter().map(|name| format!("p({name})"))))
        .map_err(problem)?;
    for (i, (&label, row)) in labels.iter().zip(rows).enumerate() {
        let answer = argmax(row);
        let cells = [names[label as usize].clone(), names[answer].clone(), row[answer].to_string()];
        let text = [&texts.texts[i]].into_iter().chain(texts.seconds.get(i)).cloned();
        table.write_record(text.chain(cells).chain(row.iter().map(f64::to_string))).map_err(problem)?;
    }
    let bytes = table.into_inner().map_err(|e| Error::file(path, "--out", e.error()))?;
    write_file(path, &bytes)
}
