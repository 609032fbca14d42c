//! Progress on standard error: a bar on a terminal, a line now and then elsewhere.

use super::notes::{is_quiet, note};
use indicatif::{HumanDuration, ProgressBar as Bar, ProgressStyle};
use lowrank::text::thousands;
use lowrank::train::StepReport;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two lines where there is no bar.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// A bar on a terminal, lines elsewhere.
pub struct ProgressBar {
    bar: Option<Bar>,
    last_line: Option<Instant>,
}

impl ProgressBar {
    /// A bar of `length` units. `done` of them are finished at the start. `template` is a template string of the crate indicatif.
    pub fn new(template: &str, length: u64, done: u64) -> ProgressBar {
        let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
        let bar = || Bar::new(length).with_style(style).with_position(done);
        let bar = (std::io::stderr().is_terminal() && !is_quiet()).then(bar);
        // Units that were done before this run say nothing about the speed.
        bar.iter().for_each(Bar::reset_eta);
        ProgressBar { bar, last_line: None }
    }

    /// Changes the bar, or prints the line if the last one was long ago.
    pub fn update(&mut self, change: impl FnOnce(&Bar), line: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => change(bar),
            None if self.last_line.is_none_or(|at| at.elapsed() > BETWEEN_LINES) => {
                self.last_line = Some(Instant::now());
                note!("{}", line());
            }
            None => {}
        }
    }

    /// Prints a line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note!("{text}")),
            None => note!("{text}"),
        }
    }

    /// Whether there is a bar, and not lines.
    pub fn is_bar(&self) -> bool {
        self.bar.is_some()
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.iter().for_each(Bar::finish_and_clear);
    }
}

/// Progress of a training run.
pub struct StepProgress {
    pub bar: ProgressBar,
    started: Instant,
    tokens: usize,
    smooth_loss: Option<f64>,
}

impl StepProgress {
    /// For a run of `steps` steps.
    pub fn new(steps: usize) -> StepProgress {
        let mut bar = ProgressBar::new("{elapsed_precise} {wide_bar} {pos}/{len} {msg} eta {eta}", steps as u64, 0);
        bar.last_line = Some(Instant::now());
        StepProgress { bar, started: Instant::now(), tokens: 0, smooth_loss: None }
    }

    /// After a step.
    pub fn step(&mut self, report: &StepReport) {
        self.tokens += report.tokens;
        let smooth = self.smooth_loss.map_or(report.loss, |s| 0.95 * s + 0.05 * report.loss);
        self.smooth_loss = Some(smooth);
        let rate = self.tokens as f64 / self.started.elapsed().as_secs_f64();
        let ranks = report.ranks.as_ref().map_or(String::new(), |shared| format!(", {} ranks", shared.size));
        let message = format!("epoch {} loss {smooth:.4} {rate:.0} tokens/s{ranks}", report.epoch);
        let line = || format!("step {}/{} {message}", report.step, report.steps);
        let change = |bar: &Bar| {
            bar.set_position(report.step as u64);
            bar.set_message(message.clone());
        };
        self.bar.update(change, line);
    }

    /// `done` of the test texts are classified.
    pub fn test(&mut self, done: usize, of: usize) {
        let message = || format!("testing {done}/{of}");
        self.bar.update(|bar| bar.set_message(message()), message);
    }
}

/// Progress over the rows of a table.
pub struct RowProgress {
    pub bar: ProgressBar,
    started: Instant,
    done: usize,
    rows: usize,
}

impl RowProgress {
    /// Before the number of rows is known.
    pub fn new() -> RowProgress {
        let mut bar = ProgressBar::new("{elapsed_precise} {wide_bar} {pos}/{len} {msg}", 0, 0);
        bar.last_line = Some(Instant::now());
        RowProgress { bar, started: Instant::now(), done: 0, rows: 0 }
    }

    /// The first `rows` rows of the table are checked.
    pub fn checked(&mut self, rows: usize) {
        if rows.is_multiple_of(4096) {
            let message = || format!("checking the table: {} rows", thousands(rows));
            self.bar.update(|bar| bar.set_message(message()), message);
        }
    }

    /// The table has `rows` rows. The time starts now.
    pub fn start(&mut self, rows: usize) {
        (self.rows, self.started) = (rows, Instant::now());
        self.bar.bar.iter().for_each(|bar| bar.set_length(rows as u64));
    }

    /// `more` rows are done.
    pub fn done(&mut self, more: usize) {
        self.done += more;
    }

    /// `more` rows of those that are computed now are done.
    pub fn update(&mut self, more: usize) {
        let (done, seconds) = (self.done + more, self.started.elapsed().as_secs_f64());
        let rate = done as f64 / seconds.max(1e-9);
        if done == 0 {
            return;
        }
        let left = Duration::from_secs((self.rows.saturating_sub(done) as f64 / rate) as u64);
        let message = format!("{rate:.0} rows/s, {} left", HumanDuration(left));
        let line = || format!("{} of {} rows, {message}", thousands(done), thousands(self.rows));
        let change = |bar: &Bar| {
            bar.set_position(done as u64);
            bar.set_message(message.clone());
        };
        self.bar.update(change, line);
    }
}
