//! `lowrank study`.

use super::Outcome;
use super::base::checked;
use super::common::{Checkpoint, ComputeType, Source, count, length, open_wordpiece, say};
use super::device::DeviceArgs;
use super::notes::note;
use super::output::{Input, check_apart, found};
use super::parts::{Reader, TestArgs};
use super::progress::Progress;
use super::signals::interrupt_flag;
use super::train::describe;
use crate::study::{
    self, Claim, Findings, McNemar, Provenance, Row, RowResult, Study, claim_rows, claims, figures, markdown, neighbours, p_value,
    processor, recipe_lines, report, results_json, rows,
};
use clap::Args;
use lowrank::data::{Tokenized, WordPiece, hash_file, hex};
use lowrank::lora::{About, thousands};
use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::safetensors::{recover_directory, write_file};
use lowrank::train::{Recipe, StepReport};
use lowrank::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a study writes beside the folders of its rows.
pub(super) const OUTPUTS: [&str; 3] = ["table.md", "results.json", "report.html"];

/// Arguments of `study`.
#[derive(Args)]
pub struct StudyArgs {
    /// Directory of the checkpoint, or the name of a model that was fetched
    #[arg(long, value_name = "DIR|NAME")]
    model: Checkpoint,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    tests: TestArgs,
    /// Directory for results and checkpoints; with the same arguments a study that was stopped goes on from there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Rows to run [default: all]: head, qv4, qv8, qv16, attention, all, full; with --claims the further rows too (a wrong name lists them)
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
    /// Tokens kept of a review [default: 512, or as many as the model has positions for]
    #[arg(long)]
    max_length: Option<usize>,
    /// Factor of every row's learning rate: a small encoder and few reviews need larger steps
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    lr_scale: f64,
    /// Run the further rows that the study's claims need, and judge each claim
    #[arg(long)]
    claims: bool,
    /// Train on this many reviews, drawn with equal labels
    #[arg(long, value_name = "N", value_parser = count::<{ usize::MAX }>)]
    train_limit: Option<usize>,
    /// Test on this many reviews, drawn with equal labels
    #[arg(long, value_name = "N", value_parser = count::<{ usize::MAX }>)]
    test_limit: Option<usize>,
    /// Steps from one checkpoint to the next
    #[arg(long, default_value_t = 100, value_name = "STEPS", value_parser = count::<{ usize::MAX }>)]
    checkpoint_every: usize,
    /// Type to compute in
    #[arg(long, value_enum, default_value_t = ComputeType::F32)]
    dtype: ComputeType,
    #[command(flatten)]
    device: DeviceArgs,
    /// Whether this is the demo, whose folder holds its model too.
    #[arg(skip)]
    demo: bool,
}

impl StudyArgs {
    /// The study in small: on the encoder and the reviews in these folders.
    pub(super) fn demo(encoder: &Path, reviews: PathBuf, out: PathBuf) -> Result<StudyArgs> {
        Ok(StudyArgs {
            source: Source::of(reviews),
            tests: TestArgs::default(),
            model: Checkpoint::from_str(&encoder.to_string_lossy())?,
            out,
            rows: Vec::new(),
            seeds: vec![0],
            epochs: 4,
            batch: 16,
            max_length: None,
            lr_scale: 5.0,
            claims: false,
            train_limit: None,
            test_limit: None,
            checkpoint_every: 1000,
            dtype: ComputeType::F32,
            device: DeviceArgs::default(),
            demo: true,
        })
    }

    fn folders(&self, rows: &[Row]) -> impl Iterator<Item = PathBuf> {
        rows.iter().flat_map(|row| self.seeds.iter().map(|&seed| self.out.join(row.folder(seed))))
    }

    /// Refuses a folder in which something is read, or files would be replaced that no study wrote.
    fn check_out(&self, rows: &[Row]) -> Result<()> {
        let inputs = Input::of(&self.source)
            .into_iter()
            .chain(self.tests.test.as_deref().map(Input::test))
            .chain([Input::Model("the model", &self.model)]);
        let inputs: Vec<Input> = inputs.collect();
        // The demo's model and reviews lie in its own folder, beside what is written.
        match self.demo {
            true => {
                OUTPUTS.iter().map(|name| self.out.join(name)).chain(self.folders(rows)).try_for_each(|path| check_apart(&path, &inputs))?
            }
            false => check_apart(&self.out, &inputs)?,
        }
        self.folders(rows).try_for_each(|folder| found(&folder).map(|_| ()))?;
        let Ok(entries) = std::fs::read_dir(&self.out) else { return Ok(()) };
        let is_row = |folder: PathBuf| ["result.json", "checkpoint.safetensors"].iter().any(|name| folder.join(name).exists());
        let is_study = entries.flatten().any(|entry| is_row(entry.path()));
        match OUTPUTS.iter().find(|name| self.out.join(name).symlink_metadata().is_ok_and(|found| !is_study || !found.is_file())) {
            Some(name) => {
                let problem =
                    "was not written by a study: there are no rows of a study beside it. Choose another --out; nothing was changed";
                Err(Error::file(&self.out, name, problem))
            }
            None => Ok(()),
        }
    }

    /// The rows of the table, and without `--rows` those that the claims need beside it.
    fn rows(&self, config: &Config) -> Result<[Vec<Row>; 2]> {
        if !(self.lr_scale > 0.0 && self.lr_scale.is_finite()) {
            return Err(Error::invalid(format!("--lr-scale {} must be positive", self.lr_scale)));
        }
        let all = [rows(self.lr_scale), if self.claims { claim_rows(config, self.lr_scale) } else { Vec::new() }];
        let keys: Vec<&str> = all.iter().flatten().map(|row| row.key.as_str()).collect();
        if let Some(unknown) = self.rows.iter().find(|key| !keys.contains(&key.as_str())) {
            let more = if self.claims { "" } else { "; with --claims there are more" };
            return Err(Error::invalid(format!("--rows {unknown}: there are {}{more}", keys.join(", "))));
        }
        match self.rows.is_empty() {
            true => Ok(all),
            false => Ok([all.into_iter().flatten().filter(|row| self.rows.contains(&row.key)).collect(), Vec::new()]),
        }
    }

    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let outcome = self.study()?;
        if let Outcome::Interrupted = outcome {
            note!("stopped; the same command goes on from there");
        }
        Ok(outcome)
    }

    /// How the reviews are read.
    fn reader<'a>(&'a self, wordpiece: &'a WordPiece, max_length: usize) -> Result<Reader<'a>> {
        let (train_limit, test_limit) = (self.train_limit, self.test_limit);
        let labels = self.source.labels(None)?;
        Ok(Reader { source: &self.source, test: &self.tests, labels, wordpiece, max_length, train_limit, test_limit, seed: 0 })
    }

    /// Runs the rows, and writes what they gave.
    pub(super) fn study(self) -> Result<Outcome> {
        let config = Config::open(&self.model)?;
        let [table, more] = self.rows(&config)?;
        self.check_out(&[&table[..], &more[..]].concat())?;
        let recipe = Recipe { epochs: self.epochs, batch: self.batch, ..Recipe::default() };
        recipe.check()?;
        let base_hash = checked(&self.model, self.source.cache_folder().as_deref())?;
        std::fs::create_dir_all(&self.out).map_err(|e| Error::io(&self.out, e))?;
        // What a kill left of files that were being written.
        OUTPUTS.iter().try_for_each(|name| recover_directory(&self.out.join(name)))?;
        let max_length = length(self.max_length, config.max_position_embeddings)?;
        let wordpiece = open_wordpiece(&self.model, &config)?;
        // Once for all rows and seeds; the reviews are the same for all.
        let reader = self.reader(&wordpiece, max_length)?;
        let (train, test) = reader.train_and_test(0.0)?;
        note!("{} reviews to train on ({} tokens), {} to test", train.len(), thousands(train.tokens()), test.len());
        let cpu = processor();
        let place = |model: &mut DistilBert| Ok(self.device.place(model)?.map_or(cpu.clone(), |gpu| format!("{gpu}; {cpu}")));
        let trained_on = reader.trained_on()?;
        let describe = |model: &DistilBert, folder: &Path, seed| {
            let about = About::new(model, &train.label_names, max_length, seed);
            About { trained_on: Some(trained_on.clone()), base_hash: Some(base_hash.clone()), ..about }.write(folder)
        };
        let hashes = [checkpoint_hash(&self.model)?, digest(&train), digest(&test)];
        let study = Study {
            model: &self.model,
            config: &config,
            hashes: &hashes,
            base: &self.model.name,
            dtype: self.dtype.into(),
            max_length,
            recipe,
            train: &train,
            test: &test,
            out: &self.out,
            checkpoint_every: self.checkpoint_every,
            place: &place,
            describe: &describe,
        };
        let mut watch = Watch { bar: None, stop: interrupt_flag()?, begun: false };
        let mut results = Vec::new();
        for (row, seed) in self.runs(&table, &more) {
            match study.run(row, seed, &mut watch)? {
                Some(result) => results.push(result),
                None => return Ok(Outcome::Interrupted),
            }
            // As the table fills, so does the file.
            self.write("table.md", &format!("{}\n{}", markdown(&table, &results), recipe_lines(&table, &results)?))?;
        }
        say(format!("\n{}", markdown(&table, &results)))?;
        for McNemar { a, b, seed, only_a, only_b, p } in neighbours(&table, &results, &test.labels) {
            let p = p_value(p);
            say(format!("{a} against {b}, seed {seed}: {only_a} and {only_b} reviews that one alone has right, {p} (McNemar)"))?;
        }
        if watch.stop.load(Ordering::Relaxed) {
            return Ok(Outcome::Interrupted);
        }
        note!("measuring what changed in the weights, and times of inference");
        let all: Vec<Row> = table.iter().chain(&more).cloned().collect();
        let command = std::env::args().map(|word| quoted(&word)).collect::<Vec<_>>().join(" ");
        let provenance = Provenance::new(command, self.given(&hashes), &all, &results)?;
        self.report(&study, &reader, &table, &all, &results, &provenance)?;
        Ok(Outcome::Done)
    }

    /// Rows and seeds, in the order in which they run. Of the rows for claims, one seed: there are many.
    fn runs<'a>(&'a self, table: &'a [Row], more: &'a [Row]) -> impl Iterator<Item = (&'a Row, u64)> {
        let table = table.iter().flat_map(|row| self.seeds.iter().map(move |&seed| (row, seed)));
        table.chain(more.iter().flat_map(|row| self.seeds.first().map(|&seed| (row, seed))))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        write_file(&self.out.join(name), text.as_bytes())
    }

    /// Judges the claims if that was asked for, and writes `results.json` and `report.html`.
    fn report(
        &self,
        study: &Study,
        reader: &Reader,
        table: &[Row],
        all: &[Row],
        results: &[RowResult],
        provenance: &Provenance,
    ) -> Result<()> {
        let (evidence, changes) = study.evidence(all, results, self.claims)?;
        let (judged, figures) = match self.claims {
            true => (claims(&evidence), Vec::new()),
            false => (Vec::new(), figures(&evidence)),
        };
        for Claim { claim, verdict, measured, .. } in &judged {
            say(format!("{verdict}: {claim}\n    {measured}"))?;
        }
        let texts = reader.texts(study.train)?;
        let labels = (&study.test.labels[..], &study.train.label_names[..]);
        let findings = Findings {
            rows: table,
            results,
            labels: labels.0,
            label_names: labels.1,
            texts: &texts,
            claims: judged,
            changes,
            neighbours: neighbours(table, results, labels.0),
            figures,
        };
        let json = results_json(&findings, provenance, study.config);
        let text = serde_json::to_string_pretty(&json).map_err(|e| Error::file(self.out.join("results.json"), "json", e))?;
        self.write("results.json", &text)?;
        self.write("report.html", &report(findings, provenance))?;
        say(format!("report.html, results.json and table.md are in {}", self.out.display()))
    }

    /// Names and values of what was given; the rest comes from the results.
    fn given(&self, [checkpoint, train, test]: &[String; 3]) -> Vec<(String, String)> {
        let facts = [
            ("checkpoint", self.model.name.clone()),
            ("SHA-256 of its weights", checkpoint.clone()),
            ("data", self.source.data.display().to_string()),
            ("SHA-256 of the training tokens", train.clone()),
            ("SHA-256 of the test tokens", test.clone()),
            ("factor of the study's learning rates", self.lr_scale.to_string()),
        ];
        facts.map(|(name, value)| (name.to_string(), value)).to_vec()
    }
}

/// A word of a command as a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_string() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Hash of the weights in `folder`, which may lie in several files.
fn checkpoint_hash(folder: &Path) -> Result<String> {
    let files = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let files: Vec<PathBuf> = files.map(|f| Ok(f.map_err(|e| Error::io(folder, e))?.path())).collect::<Result<_>>()?;
    let mut weights: Vec<&PathBuf> = files.iter().filter(|f| f.extension().is_some_and(|e| e == "safetensors")).collect();
    weights.sort();
    Ok(weights.into_iter().map(|file| Ok(hex(&hash_file(file)?))).collect::<Result<Vec<_>>>()?.join(" "))
}

/// Hash of ids and labels.
pub(super) fn digest(data: &Tokenized) -> String {
    let mut hash = Sha256::new();
    data.ids.iter().chain(&data.labels).for_each(|id| hash.update(id.to_le_bytes()));
    data.offsets.iter().for_each(|offset| hash.update((*offset as u64).to_le_bytes()));
    hex(&hash.finalize())
}

/// Shows how far a row is, and listens for Ctrl-C.
struct Watch {
    bar: Option<Progress>,
    stop: Arc<AtomicBool>,
    /// Whether the head of the table was printed.
    begun: bool,
}

impl study::Progress for Watch {
    fn begin(&mut self, row: &Row, seed: u64, done: usize, steps: usize) {
        let from = if done > 0 { format!(", going on after step {done}") } else { String::new() };
        note!("{}, seed {seed}: {steps} steps{from}", row.name);
        self.bar = Some(Progress::new(steps));
    }

    fn step(&mut self, report: &StepReport) -> bool {
        self.bar.iter_mut().for_each(|bar| bar.step(report));
        !self.stop.load(Ordering::Relaxed)
    }

    fn test(&mut self, done: usize, of: usize) -> bool {
        self.bar.iter_mut().for_each(|bar| bar.test(done, of));
        !self.stop.load(Ordering::Relaxed)
    }

    fn end(&mut self, row: &Row, result: &RowResult, resumed: bool) {
        self.bar.iter().for_each(Progress::finish);
        self.bar = None;
        let table = markdown(std::slice::from_ref(row), std::slice::from_ref(result));
        // Its head but once.
        table.lines().skip(if self.begun { 2 } else { 0 }).for_each(|line| note!("{line}"));
        self.begun = true;
        let known = if resumed { " (done before)" } else { "" };
        note!("{}, seed {}: {}{known}", row.name, result.seed, describe(&result.test));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_command_can_be_given_again() {
        assert_eq!(super::quoted("--data=a/b-c.csv"), "--data=a/b-c.csv");
        assert_eq!(super::quoted("it's here"), r"'it'\''s here'");
        assert_eq!(super::quoted(""), "''");
    }
}
