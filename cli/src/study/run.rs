//! Running the rows: each trains, is measured on the test set, and is kept. A study that was killed at any moment goes on from its last
//! checkpoint and ends with the same numbers.

use super::used::UNKNOWN;
use super::{Row, Used, machine};
use lowrank::data::Tokenized;
use lowrank::lora::{Counts, adapter};
use lowrank::nn::{Config, DistilBert, Head, LoadOptions};
use lowrank::tensor::DType;
use lowrank::tensor::safetensors::{recover_directory, write_directory, write_file};
use lowrank::train::{
    AdamW, Evaluation, Observer, Recipe, StepReport, Training, load_checkpoint, measure, peak_memory, predict_while, save_checkpoint,
};
use lowrank::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What one row gave with one seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowResult {
    /// [`Row::key`].
    pub row: String,
    /// Seed of the run.
    pub seed: u64,
    /// Numbers that trained.
    pub trainable: usize,
    /// Numbers of the checkpoint with its head.
    pub base: usize,
    /// On the test set.
    pub test: Evaluation,
    /// The class answered for each test review.
    pub answers: Vec<u32>,
    /// Mean loss of every step.
    pub losses: Vec<f64>,
    /// Share of the right answers in every step, before it and with dropout.
    pub accuracies: Vec<f64>,
    /// Seconds of training, without what a stop threw away.
    pub seconds: f64,
    /// What it was trained on.
    pub machine: String,
    /// What it used; [`Study::run`] always says it.
    pub used: Option<Used>,
    /// The most memory of the process until then, in bytes: rows run one after another, so that a small row after a large one shows the large one's.
    pub peak_memory: Option<usize>,
}

/// Who watches.
pub trait Progress {
    /// A row begins; `done` of its steps were taken before a stop.
    fn begin(&mut self, row: &Row, seed: u64, done: usize, steps: usize);
    /// A step was taken. `false` asks to stop after it; what was done is kept.
    fn step(&mut self, report: &StepReport) -> bool;
    /// So many of the test reviews are answered. `false` asks to stop; training is kept.
    fn test(&mut self, done: usize, of: usize) -> bool;
    /// A row is done; `resumed` if it had been done before.
    fn end(&mut self, row: &Row, result: &RowResult, resumed: bool);
}

/// What all rows share.
pub struct Study<'a> {
    /// Directory of the base checkpoint.
    pub model: &'a Path,
    /// Of the base checkpoint.
    pub config: &'a Config,
    /// Hashes of the weights, of the training data and of the test data: a run goes on with the same ones alone.
    pub hashes: &'a [String; 3],
    /// What adapters name as their base.
    pub base: &'a str,
    /// Type to compute in.
    pub dtype: DType,
    /// Tokens kept of a text.
    pub max_length: usize,
    /// How to train; learning rate and seed are the row's.
    pub recipe: Recipe,
    /// Training reviews.
    pub train: &'a Tokenized,
    /// Test reviews.
    pub test: &'a Tokenized,
    /// Where results and checkpoints are kept.
    pub out: &'a Path,
    /// Steps from one checkpoint to the next.
    pub checkpoint_every: usize,
    /// Moves a model to where it is to be computed with, and says what machine that is.
    pub place: &'a dyn Fn(&mut DistilBert) -> Result<String>,
    /// Writes what the program must know of a trained model, and its own files do not say, into a directory. The number is the seed.
    pub describe: &'a dyn Fn(&DistilBert, &Path, u64) -> Result<()>,
}

/// What lies beside a checkpoint: what the optimizer does not know.
#[derive(Default, Serialize, Deserialize)]
struct Taken {
    losses: Vec<f64>,
    accuracies: Vec<f64>,
    seconds: f64,
}

/// The steps until the next checkpoint.
struct Segment<'a> {
    taken: &'a mut Taken,
    progress: &'a mut dyn Progress,
    stopped: bool,
}

impl Observer for Segment<'_> {
    fn step(&mut self, report: &StepReport) -> bool {
        self.taken.losses.push(report.loss);
        self.taken.accuracies.push(report.accuracy);
        self.stopped |= !self.progress.step(report);
        !self.stopped
    }
}

impl Study<'_> {
    /// Runs a row with a seed, or reads what it gave. `None` if it was asked to stop: it then goes on from there.
    ///
    /// # Errors
    /// If a file is wrong or was written under other settings, and those of training.
    pub fn run(&self, row: &Row, seed: u64, progress: &mut dyn Progress) -> Result<Option<RowResult>> {
        let folder = self.folder(row, seed);
        recover_directory(&folder)?;
        let epochs = self.recipe.epochs * row.epoch_factor;
        let recipe = Recipe { lr: row.lr, seed, epochs, cache_trunk: row.cache_trunk, ..self.recipe.clone() };
        recipe.check()?;
        let part = (row.subsample > 1).then(|| self.train.every(row.subsample));
        let train = part.as_ref().unwrap_or(self.train);
        let settings = self.settings(row, &recipe);
        if let Some(mut result) = self.finished(&folder, &settings)? {
            // Older versions kept the settings as a text alone. It is the same as that of this run, so that run used what this one would.
            let unknown = || UNKNOWN.to_string();
            let used = self.used(row, &recipe, train.len());
            result.used.get_or_insert(Used { finished: unknown(), version: unknown(), commit: unknown(), ..used });
            progress.end(row, &result, true);
            return Ok(Some(result));
        }
        let classes = train.label_names.len();
        let exact = |name: &str| row.method.trains(name);
        let options = LoadOptions { classes: Some(classes), dtype: self.dtype, seed, head: Head::Fitting, exact: &exact };
        let mut model = DistilBert::open_with(self.model, &options)?.0;
        row.method.apply(&mut model, seed)?;
        let counts = Counts::of(&model);
        let mut optimizer = AdamW::new(recipe.weight_decay);
        let (checkpoint, record) = (folder.join("checkpoint.safetensors"), folder.join("metrics.jsonl"));
        let mut taken = Taken::default();
        if checkpoint.exists() {
            load_checkpoint(&checkpoint, &mut model, &mut optimizer, &settings)?;
            taken = read(&record)?;
        }
        let machine = (self.place)(&mut model)?;
        let steps = recipe.steps_per_epoch(train.len()) * recipe.epochs;
        progress.begin(row, seed, optimizer.steps(), steps);
        let mut started = Instant::now();
        let training = (optimizer.steps() < steps).then(|| Training::new(&model, train, &recipe)).transpose()?;
        while let Some(training) = training.as_ref().filter(|_| optimizer.steps() < steps) {
            let mut segment = Segment { taken: &mut taken, progress, stopped: false };
            let until = optimizer.steps() + self.checkpoint_every.max(1);
            training.run(&mut model, &mut optimizer, until, &mut segment)?;
            let stopped = segment.stopped;
            taken.seconds += started.elapsed().as_secs_f64();
            started = Instant::now();
            write_directory(&folder, |directory| {
                save_checkpoint(&directory.join("checkpoint.safetensors"), &model, &optimizer, &settings)?;
                write(&directory.join("metrics.jsonl"), &taken)
            })?;
            if stopped {
                return Ok(None);
            }
        }
        let sequences = self.test.sequences();
        let mut go_on = |done| progress.test(done, sequences.len());
        let Some(predicted) = predict_while(&model, &sequences, recipe.batch, &mut go_on)? else { return Ok(None) };
        let (test, answers) = measure(&predicted, &self.test.labels)?;
        let Taken { losses, accuracies, seconds } = taken;
        let result = RowResult {
            row: row.key.clone(),
            seed,
            trainable: counts.trainable,
            base: counts.base,
            test,
            answers,
            losses,
            accuracies,
            seconds,
            machine,
            used: Some(self.used(row, &recipe, train.len())),
            peak_memory: peak_memory(),
        };
        write_directory(&folder, |directory| {
            match row.method.makes_checkpoint() {
                true => model.save(self.model, &self.train.label_names, directory)?,
                false => adapter::save(&model, &row.method, self.base, directory)?,
            }
            (self.describe)(&model, directory, seed)?;
            write(&directory.join("result.json"), &Finished { settings: settings.clone(), result: result.clone() })
        })?;
        progress.end(row, &result, false);
        Ok(Some(result))
    }

    /// What a run that ends now has used.
    fn used(&self, row: &Row, recipe: &Recipe, training_texts: usize) -> Used {
        Used {
            recipe: recipe.clone(),
            method: row.method.clone(),
            dtype: self.dtype.to_string(),
            max_length: self.max_length,
            training_texts,
            share: 1.0 / row.subsample.max(1) as f64,
            test_texts: self.test.len(),
            finished: machine::now(),
            version: machine::VERSION.to_string(),
            commit: machine::COMMIT.to_string(),
        }
    }

    /// Where the run keeps what it has made: an adapter or a checkpoint, when it is done.
    pub fn folder(&self, row: &Row, seed: u64) -> PathBuf {
        self.out.join(row.folder(seed))
    }

    /// What must be the same for a run to go on.
    fn settings(&self, row: &Row, recipe: &Recipe) -> String {
        let hashes = self.hashes.join(" ");
        format!("{:?} {recipe:?} 1/{} of the reviews, {} {:?} {hashes}", row.method, row.subsample, self.dtype, self.config)
    }

    /// The result in `folder`, if the run was finished.
    fn finished(&self, folder: &Path, settings: &str) -> Result<Option<RowResult>> {
        let path = folder.join("result.json");
        if !path.exists() {
            return Ok(None);
        }
        let found: Finished<Value> = read(&path)?;
        if found.settings != settings {
            let problem = "the study was begun with other settings: give the same arguments, or another --out";
            return Err(Error::file(&path, "settings", problem));
        }
        let other = |e| Error::file(&path, "result", format!("{e}: another version of lowrank wrote it; give another --out"));
        serde_json::from_value(found.result).map(Some).map_err(other)
    }
}

/// `result.json`.
#[derive(Serialize, Deserialize)]
struct Finished<R> {
    settings: String,
    result: R,
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, "json", e))
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::file(path, "json", e))?;
    write_file(path, text.as_bytes())
}
