//! `study --shard`: a part of the rows and seeds of a study, for a batch scheduler that starts many processes on one folder.

use super::notes::note;
use super::signals::{asked_to_stop, catch_signals};
use crate::folder::try_lock;
use crate::study::{Row, Study, StudyProgress};
use lowrank::Result;

/// Part `part` of `of` parts, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    part: usize,
    of: usize,
}

/// The value of `--shard` without a value.
pub const FROM_ARRAY: &str = "array";

/// Parses `I/N`, or takes both from the variables of a Slurm array.
pub fn shard(text: &str) -> std::result::Result<Shard, String> {
    let variable = |name: &str| std::env::var(name).ok();
    if text == FROM_ARRAY {
        return from_array(&variable);
    }
    let numbers = text.split_once('/').and_then(|(part, of)| Some(Shard { part: part.parse().ok()?, of: of.parse().ok()? }));
    numbers.filter(|shard| shard.part < shard.of).ok_or("expected I/N with I from 0 to N - 1".to_string())
}

fn from_array(variable: &dyn Fn(&str) -> Option<String>) -> std::result::Result<Shard, String> {
    let number = |name: &str| variable(name)?.parse::<usize>().ok();
    let [id, of, least] = ["ID", "COUNT", "MIN"].map(|end| number(&format!("SLURM_ARRAY_TASK_{end}")));
    match (id, of, number("JOB_COMPLETION_INDEX")) {
        (Some(id), Some(of), _) => {
            let part = id.checked_sub(least.unwrap_or(0)).filter(|&part| part < of);
            part.map(|part| Shard { part, of }).ok_or("the tasks of the Slurm array must have numbers that follow each other".to_string())
        }
        (_, _, Some(index)) => Err(format!("Kubernetes does not tell the number of completions: give --shard {index}/N")),
        _ => Err("this is no task of a Slurm array: give --shard I/N".to_string()),
    }
}

impl Shard {
    /// Runs its part of `runs`. Returns false if it was stopped. A run that another process has locked is left to that process.
    ///
    /// # Errors
    /// Those of [`Study::run`].
    pub fn run<'a>(self, study: &Study, runs: impl Iterator<Item = (&'a Row, u64)>, progress: &mut dyn StudyProgress) -> Result<bool> {
        catch_signals()?;
        for (row, seed) in runs.skip(self.part).step_by(self.of) {
            let Some(_lock) = try_lock(&study.folder(row, seed))? else {
                note!("{}, seed {seed}: another process runs it", row.name);
                continue;
            };
            if study.run(row, seed, progress)?.is_none() || asked_to_stop() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_read() {
        assert_eq!(shard("2/4"), Ok(Shard { part: 2, of: 4 }));
        for wrong in ["4/4", "1", "-1/4", "1/0", "a/b"] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
        let array = |variables: &[(&str, &str)]| {
            let all: Vec<(String, String)> = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            from_array(&move |name: &str| all.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
        };
        let slurm = [("SLURM_ARRAY_TASK_ID", "7"), ("SLURM_ARRAY_TASK_COUNT", "4"), ("SLURM_ARRAY_TASK_MIN", "5")];
        assert_eq!(array(&slurm), Ok(Shard { part: 2, of: 4 }));
        assert!(array(&slurm[..2]).is_err() && array(&[]).is_err());
        assert!(array(&[("JOB_COMPLETION_INDEX", "3")]).is_err_and(|e| e.contains("--shard 3/N")));
    }
}
