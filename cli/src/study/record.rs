//! The saved state of a row that trains: model and optimizer, and the numbers of its steps.

use super::machine::{COMMIT, VERSION};
use super::used::UNKNOWN;
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
    /// Who took the steps. Old states lack it.
    #[serde(default)]
    parts: Vec<Part>,
}

/// Steps that one machine took with one program. Another instruction set or program may round otherwise.
#[derive(Serialize, Deserialize)]
struct Part {
    /// Its first step, counted from 0.
    from: usize,
    machine: String,
    /// Version and commit.
    program: String,
}

impl TrainingRecord {
    /// Records that `machine` takes the steps from `step` on. Returns what to tell if another machine or program took those before.
    pub fn go_on(&mut self, step: usize, machine: &str) -> Option<String> {
        let program = format!("lowrank {VERSION}, commit {COMMIT}");
        let before = self.parts.last();
        if before.is_some_and(|before| before.machine == machine && before.program == program) {
            return None;
        }
        let told = before.map(|before| {
            let (then, old) = (&before.machine, &before.program);
            format!(
                "{step} steps were taken on {then} by {old}, and the rest are on {machine} by {program}: the numbers may differ from those of a run in one piece"
            )
        });
        self.parts.push(Part { from: step, machine: machine.to_string(), program });
        told
    }

    /// The machine of all steps. If there were several, or several programs, each with its first step.
    pub fn machines(&self) -> String {
        match &self.parts[..] {
            [] => UNKNOWN.to_string(),
            [one] => one.machine.clone(),
            all => all.iter().map(|p| format!("from step {}: {} ({})", p.from + 1, p.machine, p.program)).collect::<Vec<_>>().join("; "),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_goes_on_elsewhere_says_so() {
        let mut record = TrainingRecord::default();
        assert_eq!(record.machines(), UNKNOWN);
        assert_eq!((record.go_on(0, "one"), record.go_on(7, "one")), (None, None));
        assert_eq!(record.machines(), "one");
        let told = record.go_on(9, "two").unwrap();
        assert!(told.contains("9 steps were taken on one") && told.contains("on two"), "{told}");
        let text = serde_json::to_string(&record).unwrap();
        let again: TrainingRecord = serde_json::from_str(&text).unwrap();
        assert!(again.machines().starts_with("from step 1: one (lowrank ") && again.machines().contains("; from step 10: two ("));
        // An old state.
        let mut old: TrainingRecord = serde_json::from_str(r#"{"losses": [], "accuracies": [], "seconds": 1}"#).unwrap();
        assert_eq!(old.go_on(5, "one"), None);
    }
}
