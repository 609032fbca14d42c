//! Progress: a bar on a terminal, plain lines elsewhere; always on standard error.

use super::notes::{is_quiet, note};
use indicatif::{ProgressBar, ProgressStyle};
use lowrank::train::StepReport;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Shows how far a run is.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
    tokens: usize,
    smooth_loss: Option<f64>,
}

impl Progress {
    /// For a run of `steps` steps.
    pub fn new(steps: usize) -> Progress {
        let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg} eta {eta}")
            .unwrap_or(ProgressStyle::default_bar());
        let bar = (std::io::stderr().is_terminal() && !is_quiet()).then(|| ProgressBar::new(steps as u64).with_style(style));
        Progress { bar, started: Instant::now(), last_line: Instant::now(), tokens: 0, smooth_loss: None }
    }

    /// After a step.
    pub fn step(&mut self, report: &StepReport) {
        self.tokens += report.tokens;
        let smooth = self.smooth_loss.map_or(report.loss, |s| 0.95 * s + 0.05 * report.loss);
        self.smooth_loss = Some(smooth);
        let rate = self.tokens as f64 / self.started.elapsed().as_secs_f64();
        let message = format!("epoch {} loss {smooth:.4} {rate:.0} tokens/s", report.epoch);
        match &self.bar {
            Some(bar) => {
                bar.set_position(report.step as u64);
                bar.set_message(message);
            }
            None => self.line_at_times(&format!("step {}/{} {message}", report.step, report.steps)),
        }
    }

    /// So many of the test reviews are answered.
    pub fn test(&mut self, done: usize, of: usize) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("testing {done}/{of}")),
            None => self.line_at_times(&format!("testing {done}/{of}")),
        }
    }

    /// A line, if the last one was ten seconds ago.
    fn line_at_times(&mut self, text: &str) {
        if self.last_line.elapsed() > Duration::from_secs(10) {
            self.last_line = Instant::now();
            note!("{text}");
        }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note!("{text}")),
            None => note!("{text}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}
