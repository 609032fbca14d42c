//! `lowrank fetch`.

use super::Outcome;
use super::common::say;
use super::notes::{is_quiet, note};
use crate::hub::{DownloadProgress, Hub, fetch};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lowrank::Result;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Arguments of `fetch`.
#[derive(Args)]
pub struct Fetch {
    /// A model on the Hugging Face hub, such as distilbert-base-uncased or owner/name; imdb for the reviews
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Fetch {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let hub = Hub::from_env()?;
        for name in &self.names {
            let mut shown = Shown::default();
            let fetched = fetch(&hub, name, &mut shown);
            shown.finish();
            let fetched = fetched?;
            let how = if fetched.downloaded { "downloaded to" } else { "already at" };
            say(format!("{name}: {how} {}", fetched.path.display()))?;
        }
        let model = self.names.iter().find(|name| *name != "imdb").map_or("distilbert-base-uncased", String::as_str);
        say(format!("go on with: lowrank train --model {model} --data imdb --out adapter"))?;
        Ok(Outcome::Done)
    }
}

/// A bar for each file on a terminal, plain lines elsewhere; always on standard error.
#[derive(Default)]
struct Shown {
    name: String,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Shown {
    fn next(&mut self, name: &str, done: u64, total: u64) {
        self.finish();
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}")
            .unwrap_or(ProgressStyle::default_bar());
        // What an earlier run left says nothing of the speed.
        let bar = || ProgressBar::new(total).with_style(style).with_message(name.to_string()).with_position(done);
        self.bar = (std::io::stderr().is_terminal() && !is_quiet()).then(bar);
        self.bar.iter().for_each(ProgressBar::reset_eta);
        self.name = name.into();
    }

    fn finish(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

impl DownloadProgress for Shown {
    fn bytes(&mut self, name: &str, done: u64, total: u64) {
        if self.name != name {
            self.next(name, done, total);
        }
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if total >= 1_000_000 && self.last_line.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) => {
                self.last_line = Some(Instant::now());
                note!("{name}: {} of {} MB", done / 1_000_000, total / 1_000_000);
            }
            None => {}
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note!("{text}")),
            None => note!("{text}"),
        }
    }
}
