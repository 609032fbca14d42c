//! `eval --out`: a table of the measured texts with their answers and probabilities.

use super::adapted::Adapted;
use super::answer::{answers, columns};
use super::output::Input;
use super::output_file::OutputFile;
use crate::table::Answer;
use lowrank::data::{Dataset, Tokenized};
use lowrank::nn::Outputs;
use lowrank::{Error, Result};
use std::path::Path;

/// Checks, before anything is computed, that a table can be written to `path`.
///
/// # Errors
/// If its name does not end with .csv or .tsv, and those of [`OutputFile::check`].
pub fn check_table(path: &Path, overwrite: bool, inputs: &[Input]) -> Result<OutputFile> {
    separator(path)?;
    OutputFile::check("--out", path, overwrite, inputs)
}

fn separator(path: &Path) -> Result<u8> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => Ok(b','),
        Some("tsv") => Ok(b'\t'),
        _ => Err(Error::file(path, "--out", "must end with .csv or .tsv")),
    }
}

/// Writes a row for each text: the text (of a pair both, in two columns), its label, the answer, and the scores of the answer, as `predict --data` writes them.
/// Of several labels, a last column for each says with 1 or 0 whether it is answered.
///
/// # Errors
/// If the file cannot be written.
pub fn write_scored(out: &OutputFile, adapted: &Adapted, (texts, data): (&Dataset, &Tokenized), rows: &[Vec<f64>]) -> Result<()> {
    let path = &out.given;
    let problem = |e: csv::Error| Error::file(path, "--out", e);
    let mut table = csv::WriterBuilder::new().delimiter(separator(path)?).from_writer(Vec::new());
    let (labels, is_labels) = (&adapted.labels, adapted.outputs == Outputs::Labels);
    let mut names: Vec<String> = columns(adapted).into_iter().map(|column| column.name).collect();
    if adapted.outputs != Outputs::Numbers || labels.len() == 1 {
        names[0] = "answer".to_string();
    }
    let head = ["text"].into_iter().chain((!texts.seconds.is_empty()).then_some("text_pair")).chain(["label"]).map(String::from);
    let decisions = labels.iter().filter(|_| is_labels).map(|label| format!("answer({label})"));
    table.write_record(head.chain(names).chain(decisions)).map_err(problem)?;
    let wanted = data.wanted();
    for (i, row) in rows.iter().enumerate() {
        let label = match adapted.outputs {
            Outputs::Classes => labels[data.labels[i] as usize].clone(),
            Outputs::Labels => {
                Answer::Texts(labels.iter().zip(&wanted[i]).filter(|(_, y)| **y >= 0.5).map(|(label, _)| label.clone()).collect()).text()
            }
            Outputs::Numbers => match &wanted[i][..] {
                [number] => number.to_string(),
                numbers => format!("{numbers:?}"),
            },
        };
        let text = [&texts.texts[i]].into_iter().chain(texts.seconds.get(i)).cloned();
        let decisions = row.iter().zip(&adapted.thresholds).filter(|_| is_labels).map(|(p, t)| u8::from(p >= t).to_string());
        table.write_record(text.chain([label]).chain(answers(adapted, row).iter().map(Answer::text)).chain(decisions)).map_err(problem)?;
    }
    let bytes = table.into_inner().map_err(|e| Error::file(path, "--out", e.error()))?;
    out.write(&bytes)
}
