//! `lowrank study`.

use super::Outcome;
use super::common::{ComputeType, Source, check_length, open_wordpiece, say};
use super::device::DeviceArgs;
use super::progress::Progress;
use super::train::{describe, interrupt_flag};
use crate::data::Split;
use crate::lora::thousands;
use crate::nn::{Config, DistilBert};
use crate::study::{self, Row, RowResult, Study, markdown, mcnemar, rows};
use crate::tensor::safetensors::write_file;
use crate::train::{Recipe, StepReport};
use crate::{Error, Result};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arguments of `study`.
#[derive(Args)]
pub struct StudyArgs {
    /// Directory of the checkpoint
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    source: Source,
    /// Directory for results and checkpoints; with the same arguments a study that was stopped goes on from there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Rows to run [default: all]: head, qv4, qv8, qv16, attention, all, full
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    rows: Vec<String>,
    /// Seeds; each row runs once with each
    #[arg(long, value_delimiter = ',', default_value = "0")]
    seeds: Vec<u64>,
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Reviews of a step
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens kept of a review
    #[arg(long, default_value_t = 512)]
    max_length: usize,
    /// Learning rate of every row, in place of its own
    #[arg(long)]
    lr: Option<f64>,
    /// Train on this many reviews, drawn with equal labels
    #[arg(long, value_name = "N")]
    train_limit: Option<usize>,
    /// Test on this many reviews, drawn with equal labels
    #[arg(long, value_name = "N")]
    test_limit: Option<usize>,
    /// Steps from one checkpoint to the next
    #[arg(long, default_value_t = 100, value_name = "STEPS")]
    checkpoint_every: usize,
    /// Type to compute in
    #[arg(long, value_enum, default_value_t = ComputeType::F32)]
    dtype: ComputeType,
    #[command(flatten)]
    device: DeviceArgs,
}

impl StudyArgs {
    /// The rows asked for, in the order of the table.
    fn rows(&self) -> Result<Vec<Row>> {
        let all = rows();
        if let Some(unknown) = self.rows.iter().find(|key| !all.iter().any(|row| row.key == **key)) {
            let keys: Vec<&str> = all.iter().map(|row| row.key).collect();
            return Err(Error::invalid(format!("--rows {unknown}: there are {}", keys.join(", "))));
        }
        let wanted = |row: &Row| self.rows.is_empty() || self.rows.iter().any(|key| key == row.key);
        Ok(all.into_iter().filter(wanted).map(|row| Row { lr: self.lr.unwrap_or(row.lr), ..row }).collect())
    }

    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let rows = self.rows()?;
        std::fs::create_dir_all(&self.out).map_err(|e| Error::io(&self.out, e))?;
        let config = Config::open(&self.model)?;
        check_length(self.max_length, config.max_position_embeddings)?;
        let wordpiece = open_wordpiece(&self.model, &config)?;
        // Once for all rows and seeds; the reviews are the same for all.
        let tokens = |split, labels, limit| self.source.sample(split, labels, &wordpiece, self.max_length, limit);
        let train = tokens(Split::Train, None, self.train_limit)?;
        let test = tokens(Split::Test, Some(&train.label_names[..]), self.test_limit)?;
        say(format!("{} reviews to train on ({} tokens), {} to test", train.len(), thousands(train.tokens()), test.len()))?;
        let recipe = Recipe { epochs: self.epochs, batch: self.batch, ..Recipe::default() };
        let place = |model: &mut DistilBert| self.device.place(model).map(|_| ());
        let study = Study {
            model: &self.model,
            dtype: self.dtype.into(),
            recipe,
            train: &train,
            test: &test,
            out: &self.out,
            checkpoint_every: self.checkpoint_every,
            place: &place,
        };
        let mut watch = Watch { bar: None, stop: interrupt_flag()? };
        let mut results = Vec::new();
        for row in &rows {
            for &seed in &self.seeds {
                match study.run(row, seed, &mut watch)? {
                    Some(result) => results.push(result),
                    None => {
                        eprintln!("stopped; the same command goes on from there");
                        return Ok(Outcome::Interrupted);
                    }
                }
            }
        }
        let table = markdown(&rows, &results);
        say(format!("\n{table}"))?;
        compared(&results, &test.labels)?;
        self.save(&results, &table)?;
        Ok(Outcome::Done)
    }

    fn save(&self, results: &[RowResult], table: &str) -> Result<()> {
        let command: Vec<String> = std::env::args().collect();
        let all = json!({ "lowrank": env!("CARGO_PKG_VERSION"), "command": command, "model": Config::open(&self.model)?, "rows": results });
        let path = self.out.join("results.json");
        let text = serde_json::to_string_pretty(&all).map_err(|e| Error::file(&path, "json", e))?;
        write_file(&path, text.as_bytes())?;
        write_file(&self.out.join("table.md"), table.as_bytes())?;
        say(format!("results.json and table.md written to {}", self.out.display()))
    }
}

/// Whether neighbours in the table differ on the same test reviews.
fn compared(results: &[RowResult], labels: &[u32]) -> Result<()> {
    let next = |i: usize| results[i + 1..].iter().find(|r| r.seed == results[i].seed && r.row != results[i].row);
    for (a, b) in (0..results.len()).filter_map(|i| Some((&results[i], next(i)?))) {
        let (only_a, only_b, p) = mcnemar(&a.answers, &b.answers, labels);
        let seed = a.seed;
        say(format!(
            "{} against {}, seed {seed}: {only_a} and {only_b} reviews that one alone has right, p = {p:.3} (McNemar)",
            a.row, b.row
        ))?;
    }
    Ok(())
}

/// Shows how far a row is, and listens for Ctrl-C.
struct Watch {
    bar: Option<Progress>,
    stop: Arc<AtomicBool>,
}

impl study::Progress for Watch {
    fn begin(&mut self, row: &Row, seed: u64, done: usize, steps: usize) {
        let from = if done > 0 { format!(", going on after step {done}") } else { String::new() };
        eprintln!("{}, seed {seed}: {steps} steps{from}", row.name);
        self.bar = Some(Progress::new(steps));
    }

    fn step(&mut self, report: &StepReport) -> bool {
        self.bar.iter_mut().for_each(|bar| bar.step(report));
        !self.stop.load(Ordering::Relaxed)
    }

    fn end(&mut self, row: &Row, result: &RowResult, resumed: bool) {
        self.bar.iter().for_each(Progress::finish);
        let known = if resumed { " (done before)" } else { "" };
        eprintln!("{}, seed {}: {}{known}", row.name, result.seed, describe(&result.test));
    }
}
