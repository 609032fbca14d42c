//! The saved state of a row that trains: model and optimizer, and the numbers of its steps.

use crate::folder::write_directory;
use lowrank::files::{read_text, write_file};
use lowrank::nn::DistilBert;
use lowrank::train::{AdamW, load_checkpoint, save_checkpoint};
use lowrank::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Names of the files of a state.
const STATE: &str = "checkpoint.safetensors";
const METRICS: &str = "metrics.jsonl";

/// The numbers of a run that the saved state of model and optimizer does not have. They are saved in a file next to it.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct TrainingRecord {
    pub losses: Vec<f64>,
    pub accuracies: Vec<f64>,
    pub seconds: f64,
}

impl TrainingRecord {
    /// Restores model and optimizer from the state in `folder`; without one, the record is empty.
    ///
    /// # Errors
    /// If a file is damaged or was written under other settings.
    pub fn load(folder: &Path, settings: &str, model: &mut DistilBert, optimizer: &mut AdamW) -> Result<TrainingRecord> {
        let checkpoint = folder.join(STATE);
        if !checkpoint.exists() {
            return Ok(TrainingRecord::default());
        }
        load_checkpoint(&checkpoint, model, optimizer, settings)?;
        read(&folder.join(METRICS))
    }

    /// Saves the state, completely or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, folder: &Path, settings: &str, model: &DistilBert, optimizer: &AdamW) -> Result<()> {
        write_directory(folder, |directory| {
            save_checkpoint(&directory.join(STATE), model, optimizer, settings)?;
            write(&directory.join(METRICS), self)
        })
    }

    /// Saves the state after the last good step of a training that failed, and says what became of it; `None` if there is nothing to save.
    pub fn save_after_failure(&self, folder: &Path, settings: &str, model: &DistilBert, optimizer: &AdamW) -> Option<String> {
        let steps = optimizer.steps();
        // Steps on a GPU that are not in the record yet cannot be saved without their numbers: the state before them stays.
        if steps == 0 || self.losses.len() != steps {
            return None;
        }
        Some(match self.save(folder, settings, model, optimizer) {
            Ok(()) => format!("the state after step {steps} is saved to {}: the same command goes on from there", folder.display()),
            Err(problem) => format!("the state after step {steps} could not be saved: {problem}"),
        })
    }
}

/// Reads a value from a JSON file.
///
/// # Errors
/// If the file cannot be read, or is not such a value.
pub(super) fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, "json", e))
}

/// Writes a value as a JSON file, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::file(path, "json", e))?;
    write_file(path, text.as_bytes())
}
