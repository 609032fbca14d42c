//! Runs the rows: trains each, measures it on the test set, and saves it. A study that was killed at any moment resumes from its last checkpoint
//! and ends with the same numbers.

use super::record::{TrainingRecord, read, write};
use super::used::UNKNOWN;
use super::{Row, Used, machine};
use crate::folder::{recover, write_directory};
use lowrank::cut::Cut;
use lowrank::data::Tokenized;
use lowrank::lora::{Counts, adapter};
use lowrank::nn::{Config, DistilBert, Head, LoadOptions, Outputs};
use lowrank::tensor::DType;
use lowrank::train::{AdamW, Evaluation, Observer, OneRank, Recipe, StepReport, Training, mean_logits, measure, peak_memory, scores};
use lowrank::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The result of one row with one seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowResult {
    /// [`Row::key`].
    pub row: String,
    /// Seed of the run.
    pub seed: u64,
    /// Number of trainable parameters.
    pub trainable: usize,
    /// Number of parameters of the checkpoint and its head.
    pub base: usize,
    /// Measured on the test set.
    pub test: Evaluation,
    /// The predicted class of each test review.
    pub answers: Vec<u32>,
    /// Mean loss of each step.
    pub losses: Vec<f64>,
    /// Accuracy on the batch of each step, before the step and with dropout.
    pub accuracies: Vec<f64>,
    /// Seconds of training. Steps that were lost when the run was killed are not counted.
    pub seconds: f64,
    /// The machine that trained it.
    pub machine: String,
    /// The settings it used; [`Study::run`] always sets them.
    pub used: Option<Used>,
    /// Peak memory of the process so far, in bytes. Rows run one after another, so a small row after a large one shows the peak of the large one.
    pub peak_memory: Option<usize>,
}

/// Receives the progress of a study, and may stop it.
pub trait StudyProgress {
    /// Something that a person should know.
    fn note(&mut self, text: &str);
    /// A row begins; `done` of its steps were taken before an interruption.
    fn begin(&mut self, row: &Row, seed: u64, done: usize, steps: usize);
    /// A step was taken. `false` stops the run after it; the state is saved.
    fn step(&mut self, report: &StepReport) -> bool;
    /// `done` of the test reviews are classified. `false` stops; the trained state is saved already.
    fn test(&mut self, done: usize, of: usize) -> bool;
    /// A row is finished; `resumed`: an earlier run finished it.
    fn end(&mut self, row: &Row, result: &RowResult, resumed: bool);
}

/// The inputs that all rows share.
pub struct Study<'a> {
    /// Folder of the base checkpoint.
    pub model: &'a Path,
    /// Configuration of the base checkpoint.
    pub config: &'a Config,
    /// Hashes of the weights, the training data and the test data. A run resumes only if all three are the same.
    pub hashes: &'a [String; 3],
    /// Name of the base that adapters store.
    pub base: &'a str,
    /// Data type of the computation.
    pub dtype: DType,
    /// How texts are cut.
    pub cut: Cut,
    /// How to train; the row replaces learning rate and seed.
    pub recipe: Recipe,
    /// Training reviews.
    pub train: &'a Tokenized,
    /// Test reviews.
    pub test: &'a Tokenized,
    /// Folder for results and checkpoints.
    pub out: &'a Path,
    /// Steps between two checkpoints.
    pub checkpoint_every: usize,
    /// Moves a model to its device, and returns the name of the machine.
    pub place: &'a dyn Fn(&mut DistilBert) -> Result<String>,
    /// Writes `lowrank.json` of a trained model into a folder. The number is the seed.
    pub describe: &'a dyn Fn(&DistilBert, &Path, u64) -> Result<()>,
}

/// Records the steps until the next checkpoint.
struct UntilCheckpoint<'a> {
    record: &'a mut TrainingRecord,
    progress: &'a mut dyn StudyProgress,
    stopped: bool,
}

impl Observer for UntilCheckpoint<'_> {
    fn step(&mut self, report: &StepReport) -> bool {
        self.record.losses.push(report.loss);
        self.record.accuracies.push(report.accuracy);
        self.stopped |= !self.progress.step(report);
        !self.stopped
    }
}

/// One row with one seed.
#[derive(Clone, Copy)]
struct RowRun<'a> {
    row: &'a Row,
    folder: &'a Path,
    recipe: &'a Recipe,
    settings: &'a str,
    train: &'a Tokenized,
}

impl Study<'_> {
    /// Runs a row with a seed, or reads its saved result. `None` if interrupted; the next call resumes.
    ///
    /// # Errors
    /// If a file is damaged or was written under other settings, and the errors of training.
    pub fn run(&self, row: &Row, seed: u64, progress: &mut dyn StudyProgress) -> Result<Option<RowResult>> {
        let folder = self.folder(row, seed);
        recover(&folder, &mut |text| progress.note(text))?;
        let recipe = self.recipe_of(row, seed);
        recipe.check()?;
        let part = (row.subsample > 1).then(|| self.train.every(row.subsample));
        let train = part.as_ref().unwrap_or(self.train);
        let settings = self.settings(row, &recipe);
        if let Some(result) = self.result(row, seed)? {
            progress.end(row, &result, true);
            return Ok(Some(result));
        }
        let classes = train.label_names.len();
        let exact = |name: &str| row.method.trains(name);
        let options = LoadOptions { classes: Some(classes), dtype: self.dtype, seed, head: Head::Fitting, exact: &exact };
        let mut model = DistilBert::open_with(self.model, &options)?.0;
        model.config.set_outputs(Outputs::Classes);
        row.method.apply(&mut model, seed)?;
        let counts = Counts::of(&model);
        let this = RowRun { row, folder: &folder, recipe: &recipe, settings: &settings, train };
        let Some(record) = self.train(&this, &mut model, progress)? else { return Ok(None) };
        let mut go_on = |done| progress.test(done, self.test.len());
        let Some(logits) = mean_logits(&OneRank, &model, &self.test.windows(), recipe.batch, &mut go_on)? else { return Ok(None) };
        let predicted: Vec<Vec<f64>> = logits.iter().map(|row| scores(Outputs::Classes, row, 1.0)).collect();
        let (test, answers) = measure(&predicted, &self.test.labels)?;
        let machine = record.machines();
        let TrainingRecord { losses, accuracies, seconds, .. } = record;
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
        self.save(&this, &model, &result)?;
        progress.end(row, &result, false);
        Ok(Some(result))
    }

    /// The saved result of a row with a seed, if that run is finished.
    ///
    /// # Errors
    /// If a file is damaged or was written under other settings.
    pub fn result(&self, row: &Row, seed: u64) -> Result<Option<RowResult>> {
        let recipe = self.recipe_of(row, seed);
        let found = self.finished(&self.folder(row, seed), &self.settings(row, &recipe))?;
        Ok(found.map(|mut result| {
            // Older versions saved the settings as a text only. The texts are equal, so that run used what this one would use.
            let unknown = || UNKNOWN.to_string();
            let used = self.used(row, &recipe, self.train.len().div_ceil(row.subsample.max(1)));
            result.used.get_or_insert(Used { finished: unknown(), version: unknown(), commit: unknown(), ..used });
            result
        }))
    }

    fn recipe_of(&self, row: &Row, seed: u64) -> Recipe {
        let epochs = self.recipe.epochs * row.epoch_factor;
        Recipe { lr: row.lr, seed, epochs, cache_trunk: row.cache_trunk, ..self.recipe.clone() }
    }

    /// Trains to the end, from a checkpoint if there is one. Returns the record of training; `None` if interrupted.
    fn train(&self, run: &RowRun, model: &mut DistilBert, progress: &mut dyn StudyProgress) -> Result<Option<TrainingRecord>> {
        let RowRun { row, folder, recipe, settings, train } = *run;
        let mut optimizer = AdamW::of(recipe);
        let mut record = TrainingRecord::load(folder, settings, model, &mut optimizer)?;
        let machine = (self.place)(model)?;
        record.go_on(optimizer.steps(), &machine).iter().for_each(|text| progress.note(text));
        let steps = recipe.steps_per_epoch(train.len()) * recipe.epochs;
        progress.begin(row, recipe.seed, optimizer.steps(), steps);
        let mut started = Instant::now();
        let training = (optimizer.steps() < steps).then(|| Training::new(model, train, recipe)).transpose()?;
        while let Some(training) = training.as_ref().filter(|_| optimizer.steps() < steps) {
            let mut observer = UntilCheckpoint { record: &mut record, progress, stopped: false };
            let until = optimizer.steps().saturating_add(self.checkpoint_every.max(1));
            let trained = training.run(model, &mut optimizer, until, &mut observer);
            let stopped = observer.stopped;
            record.seconds += started.elapsed().as_secs_f64();
            started = Instant::now();
            if let Err(e) = trained {
                record.save_after_failure(folder, settings, model, &optimizer).iter().for_each(|text| progress.note(text));
                return Err(e);
            }
            record.save(folder, settings, model, &optimizer)?;
            if stopped {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    /// Writes the adapter or checkpoint, and `result.json`.
    fn save(&self, run: &RowRun, model: &DistilBert, result: &RowResult) -> Result<()> {
        write_directory(run.folder, |directory| {
            adapter::save_trained(model, &run.row.method, self.model, self.base, &self.train.label_names, directory)?;
            (self.describe)(model, directory, result.seed)?;
            write(&directory.join("result.json"), &Finished { settings: run.settings.to_string(), result: result.clone() })
        })
    }

    /// The settings of a run that ends now.
    fn used(&self, row: &Row, recipe: &Recipe, training_texts: usize) -> Used {
        Used {
            recipe: recipe.clone(),
            method: row.method.clone(),
            dtype: self.dtype.to_string(),
            cut: self.cut,
            training_texts,
            share: 1.0 / row.subsample.max(1) as f64,
            test_texts: self.test.len(),
            finished: machine::now(),
            version: machine::VERSION.to_string(),
            commit: machine::COMMIT.to_string(),
        }
    }

    /// The folder of a run: while it trains, its state; when it is finished, its adapter or checkpoint.
    pub fn folder(&self, row: &Row, seed: u64) -> PathBuf {
        self.out.join(row.folder(seed))
    }

    /// The settings that must be the same for a run to resume.
    fn settings(&self, row: &Row, recipe: &Recipe) -> String {
        let (hashes, labels, cut) = (self.hashes.join(" "), &self.train.label_names, self.cut);
        format!(
            "{:?} {recipe:?} 1/{} of the reviews, {} {:?} {hashes} {labels:?} {cut:?}",
            row.method, row.subsample, self.dtype, self.config
        )
    }

    /// The result in `folder`, if that run is finished.
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
        let result: RowResult = serde_json::from_value(found.result).map_err(other)?;
        if result.answers.len() != self.test.len() || result.accuracies.len() != result.losses.len() {
            let problem = format!(
                "has {} answers for {} test reviews: it is damaged; remove the row's folder",
                result.answers.len(),
                self.test.len()
            );
            return Err(Error::file(&path, "answers", problem));
        }
        if !self.fits(&result) {
            return Err(Error::file(&path, "test", "does not fit its answers: it is damaged; remove the row's folder"));
        }
        Ok(Some(result))
    }

    /// Whether the figures of a saved result are those of its answers.
    fn fits(&self, RowResult { answers, test, .. }: &RowResult) -> bool {
        let classes = self.train.label_names.len();
        let mut confusion = vec![vec![0; classes]; classes];
        for (&label, &answer) in self.test.labels.iter().zip(answers) {
            let Some(cell) = confusion[label as usize].get_mut(answer as usize) else { return false };
            *cell += 1;
        }
        let right: usize = (0..classes).map(|class| confusion[class][class]).sum();
        test.confusion == confusion && test.accuracy == right as f64 / answers.len().max(1) as f64
    }
}

/// The content of `result.json`.
#[derive(Serialize, Deserialize)]
struct Finished<R> {
    settings: String,
    result: R,
}
