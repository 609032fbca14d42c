//! What `lowrank` does without a command: the study on the bundled encoder and the bundled reviews.

use super::Outcome;
use super::common::say;
use super::notes::note;
use super::study::StudyArgs;
use crate::{Error, Result};

/// Where the results go, in the current folder.
const OUT: &str = "lowrank-demo";

/// The bundled files: name and bytes.
const ENCODER: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../../assets/encoder/config.json")),
    ("model.safetensors", include_bytes!("../../assets/encoder/model.safetensors")),
    ("vocab.txt", include_bytes!("../../assets/encoder/vocab.txt")),
];
const REVIEWS: [(&str, &[u8]); 2] =
    [("train.tsv", include_bytes!("../../assets/train.tsv")), ("test.tsv", include_bytes!("../../assets/test.tsv"))];

/// Puts the bundled files where the loaders can map them, for as long as the run.
struct Unpacked(std::path::PathBuf);

impl Unpacked {
    fn new() -> Result<Unpacked> {
        let folder = std::env::temp_dir().join(format!("lowrank-demo-{}", std::process::id()));
        let unpacked = Unpacked(folder);
        let folder = &unpacked.0;
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        for (name, bytes) in ENCODER.iter().chain(&REVIEWS) {
            std::fs::write(folder.join(name), bytes).map_err(|e| Error::io(folder.join(name), e))?;
        }
        Ok(unpacked)
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // Left-overs in the temporary folder do no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The study's seven rows, in small.
pub(super) fn run() -> Result<Outcome> {
    let unpacked = Unpacked::new()?;
    let folder = &unpacked.0;
    say(
        "The study's seven configurations on an encoder of 1.8 million numbers and 1,000 short film reviews, both bundled. About two minutes.",
    )?;
    let study = StudyArgs::demo(folder.clone(), OUT.into())?;
    study.forget()?;
    let outcome = study.study()?;
    if let Outcome::Interrupted = outcome {
        note!("stopped; the next run begins anew");
        return Ok(outcome);
    }
    say("\nThe encoder is tiny and the reviews are hard (irony, negation, understatement). The real study:")?;
    say("  cargo install --path .")?;
    say("  lowrank fetch distilbert-base-uncased imdb")?;
    say("  lowrank study --model distilbert-base-uncased --data imdb --out study --claims")?;
    Ok(outcome)
}
