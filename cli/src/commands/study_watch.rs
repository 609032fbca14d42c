//! The progress of a study on standard error.

use super::common::describe;
use super::notes::{note, warning};
use super::progress::StepProgress;
use super::signals::asked_to_stop;
use crate::study::{Row, RowResult, StudyProgress, markdown};
use lowrank::train::StepReport;

/// Shows the progress of a row, and stops it on Ctrl-C.
#[derive(Default)]
pub struct Watch {
    bar: Option<StepProgress>,
    /// Whether the header of the table was printed.
    begun: bool,
}

impl StudyProgress for Watch {
    fn note(&mut self, text: &str) {
        warning!("{text}");
    }

    fn begin(&mut self, row: &Row, seed: u64, done: usize, steps: usize) {
        let from = if done > 0 { format!(", going on after step {done}") } else { String::new() };
        note!("{}, seed {seed}: {steps} steps{from}", row.name);
        self.bar = Some(StepProgress::new(steps));
    }

    fn step(&mut self, report: &StepReport) -> bool {
        self.bar.iter_mut().for_each(|bar| bar.step(report));
        !asked_to_stop()
    }

    fn test(&mut self, done: usize, of: usize) -> bool {
        self.bar.iter_mut().for_each(|bar| bar.test(done, of));
        !asked_to_stop()
    }

    fn end(&mut self, row: &Row, result: &RowResult, resumed: bool) {
        self.bar.iter().for_each(|progress| progress.bar.finish());
        self.bar = None;
        let table = markdown(std::slice::from_ref(row), std::slice::from_ref(result));
        // The header is printed once.
        table.lines().skip(if self.begun { 2 } else { 0 }).for_each(|line| note!("{line}"));
        self.begun = true;
        let known = if resumed { " (done before)" } else { "" };
        note!("{}, seed {}: {}{known}", row.name, result.seed, describe(&result.test));
    }
}
