//! `lowrank fetch`: downloads models, adapters and data.

use super::base::base_name;
use super::common::say;
use super::notes::note;
use super::progress::ProgressBar;
use crate::hub::{DownloadProgress, Hub, fetch};
use clap::Args;
use lowrank::Result;

/// indicatif's template of a bar, after the file's name.
const TEMPLATE: &str = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";

/// Arguments of `fetch`.
#[derive(Args)]
pub struct Fetch {
    /// A model or adapter on the Hugging Face hub, such as distilbert-base-uncased or owner/name, perhaps with @revision (a branch, a tag or a
    /// commit); imdb for the reviews
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Fetch {
    /// Runs the command.
    pub(super) fn run(self) -> Result<()> {
        let hub = Hub::from_env()?;
        let mut next = "lowrank train --model distilbert-base-uncased --data imdb --out adapter".to_string();
        // An error of standard output is told at the end: the next names are downloaded all the same.
        let mut printed = Ok(());
        for name in &self.names {
            let mut bars = FileBars::default();
            let fetched = fetch(&hub, name, &mut bars);
            bars.finish();
            let fetched = fetched?;
            let how = if fetched.downloaded { "downloaded to" } else { "already at" };
            printed = printed.and(say(format!("{name}: {how} {}", fetched.path.display())));
            if fetched.is_adapter {
                let base = base_name(&fetched.path).unwrap_or_else(|| "BASE".to_string());
                next = format!("lowrank predict --model {base} --adapter {name} TEXT");
            } else if name != "imdb" {
                next = format!("lowrank train --model {name} --data imdb --out adapter");
            }
        }
        printed.and_then(|()| say(format!("go on with: {next}")))
    }
}

/// A bar for each file.
#[derive(Default)]
struct FileBars {
    name: String,
    bar: Option<ProgressBar>,
}

impl FileBars {
    fn finish(&self) {
        self.bar.iter().for_each(ProgressBar::finish);
    }
}

impl DownloadProgress for FileBars {
    fn bytes(&mut self, name: &str, done: u64, total: u64) {
        if self.name != name {
            self.finish();
            self.bar = Some(ProgressBar::new(&format!("{name} {TEMPLATE}"), total, done));
            self.name = name.into();
        }
        // A small file gets no line of its own.
        let shown = self.bar.as_mut().filter(|bar| bar.is_bar() || total >= 1_000_000);
        let line = || format!("{name}: {} of {} MB", done / 1_000_000, total / 1_000_000);
        shown.into_iter().for_each(|bar| bar.update(|bar| bar.set_position(done), line));
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.line(text),
            None => note!("{text}"),
        }
    }
}
