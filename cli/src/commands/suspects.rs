//! `train --suspects`: the training rows whose labels the model doubts, found by models that were not trained on them.

use super::best::{set_values, values};
use super::notes::{note, warning};
use super::parts::Reader;
use super::progress::StepProgress;
use super::ranks::ranks;
use super::run::TrainingRun;
use super::signals::asked_to_stop;
use super::tested::{Tested, all_scores};
use clap::Args;
use lowrank::data::{Dataset, Tokenized};
use lowrank::metrics::{Suspect, argmax, suspects};
use lowrank::nn::DistilBert;
use lowrank::tensor::Tensor;
use lowrank::text::thousands;
use lowrank::train::{AdamW, Observer, Recipe, StepReport, Training, logits_while};
use lowrank::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

/// Name of the table in the folder of the result.
pub const FILE: &str = "suspects.csv";

/// Arguments for doubtful labels.
#[derive(Args)]
pub struct SuspectArgs {
    /// After training, write suspects.csv: the N training rows whose labels are the most doubtful [default of N: all that are]. Each row is judged by
    /// a model that was trained on the other folds in the same way. If the run is stopped meanwhile, the training itself is kept, and --resume begins
    /// the folds anew
    #[arg(long, value_name = "N")]
    suspects: Option<Option<usize>>,
    /// Folds of the training texts for --suspects: so many further trainings [default: 5]
    #[arg(long, value_name = "K", requires = "suspects")]
    folds: Option<usize>,
}

impl SuspectArgs {
    /// Whether suspects are asked for.
    pub fn is_given(&self) -> bool {
        self.suspects.is_some()
    }
}

/// Folds of the training texts, and the parameters from which each fold's training starts.
pub struct Folds {
    most: Option<usize>,
    count: usize,
    fold_of: Vec<usize>,
    start: Vec<Tensor>,
}

/// What the folds gave.
pub struct Doubts {
    folds: usize,
    /// Share of the training texts whose label is the answer of the model that was not trained on them.
    accuracy: f64,
    all: Vec<Suspect>,
    most: usize,
}

impl SuspectArgs {
    /// Deals out the folds before the training of `model` on `train`. `None` if nobody asked.
    ///
    /// # Errors
    /// If so many folds are not possible.
    pub fn folds(&self, model: &DistilBert, train: &Tokenized, seed: u64) -> Result<Option<Folds>> {
        let Some(most) = self.suspects else { return Ok(None) };
        let count = self.folds.unwrap_or(5);
        let fold_of = train.folds(count, seed).map_err(|e| Error::invalid(format!("--{e}")))?;
        for (name, n) in train.label_names.iter().zip(train.class_counts()).filter(|(_, n)| *n < count) {
            warning!("{name} has {n} training texts, fewer than the {count} folds: --suspects says little about it");
        }
        Ok(Some(Folds { most, count, fold_of, start: values(model) }))
    }
}

/// After the training of `run`, which gave `tested`: what its folds gave, if there are some. `None` if a signal stopped the training or a fold.
///
/// # Errors
/// The error of the training, and those of the folds.
pub fn doubts(
    folds: Option<Folds>,
    tested: Result<Option<Tested>>,
    run: &TrainingRun,
    (model, optimizer): (&mut DistilBert, &AdamW),
    new_optimizer: &dyn Fn(&DistilBert) -> Result<AdamW>,
) -> Result<Option<(Tested, Option<Doubts>)>> {
    let Some(tested) = tested? else { return Ok(None) };
    let Some(folds) = folds else { return Ok(Some((tested, None))) };
    // A signal or an error in a fold, and even `kill -9`, keeps the training.
    run.save(model, optimizer)?;
    let doubts = folds.judge(model, run, new_optimizer)?;
    Ok(doubts.map(|doubts| (tested, Some(doubts))))
}

impl Folds {
    /// Trains a model on the other folds for each fold, up to the epoch that `run` kept, and lets it judge the fold. `model` has its own parameters
    /// again at the end, whatever happens. `None` if a signal stopped it.
    fn judge(&self, model: &mut DistilBert, run: &TrainingRun, optimizer: &dyn Fn(&DistilBert) -> Result<AdamW>) -> Result<Option<Doubts>> {
        let (data, trained) = (&run.texts.train, values(model));
        let judged = self.rows(model, data, (run.recipe, run.state.kept_epochs()), optimizer);
        set_values(model, &trained);
        let Some(rows) = judged? else { return Ok(None) };
        let right = rows.iter().zip(&data.labels).filter(|(row, label)| argmax(row) == **label as usize).count();
        let all = suspects(&rows, &data.labels)?;
        let most = self.most.unwrap_or(all.len()).min(all.len());
        Ok(Some(Doubts { folds: self.count, accuracy: right as f64 / data.len() as f64, all, most }))
    }

    /// Class probabilities of each training text by the model that was not trained on it: `[N][C]`.
    fn rows(
        &self,
        model: &mut DistilBert,
        data: &Tokenized,
        (recipe, epochs): (&Recipe, usize),
        optimizer: &dyn Fn(&DistilBert) -> Result<AdamW>,
    ) -> Result<Option<Vec<Vec<f64>>>> {
        let (ranks, mut rows) = (ranks(), vec![Vec::new(); data.len()]);
        for fold in 0..self.count {
            let (left, rest): (Vec<usize>, Vec<usize>) = (0..data.len()).partition(|&i| self.fold_of[i] == fold);
            let (others, own) = (data.select(&rest), data.select(&left));
            note!("fold {} of {}: training on {} texts, to judge {}", fold + 1, self.count, thousands(rest.len()), thousands(left.len()));
            set_values(model, &self.start);
            let mut optimizer = optimizer(model)?;
            let steps = epochs * recipe.steps_per_epoch(others.len());
            let mut progress = Progress(StepProgress::new(steps));
            Training::across(&*ranks, model, &others, recipe)?.run(model, &mut optimizer, steps, &mut progress)?;
            progress.0.bar.finish();
            if optimizer.steps() < steps {
                return Ok(None);
            }
            let Some(logits) = logits_while(&*ranks, model, &own.sequences(), recipe.batch, &mut |_| !asked_to_stop())? else {
                return Ok(None);
            };
            left.iter().zip(all_scores(&own, &logits, 1.0)).for_each(|(&i, row)| rows[i] = row);
        }
        Ok(Some(rows))
    }
}

/// Progress of the training of a fold. A signal stops it.
struct Progress(StepProgress);

impl Observer for Progress {
    fn step(&mut self, report: &StepReport) -> bool {
        self.0.step(report);
        !asked_to_stop()
    }
}

impl Doubts {
    /// For `summary.json`.
    pub fn summary(&self) -> Value {
        json!({ "file": FILE, "folds": self.folds, "accuracy": self.accuracy, "found": self.all.len(), "listed": self.most })
    }

    /// The table, after a line about it. The run is over, so training texts that cannot be read any more are no error: `None` after a warning.
    pub fn table_or_warning(&self, reader: &Reader, run: &TrainingRun, dev_fraction: f64) -> Option<Vec<u8>> {
        let table = self.table(reader, &run.texts.train, dev_fraction).map_err(|e| warning!("{FILE} is not written: {e}")).ok()?;
        note!("{}", self.line());
        Some(table)
    }

    fn line(&self) -> String {
        let (found, accuracy) = (thousands(self.all.len()), 100.0 * self.accuracy);
        format!("{found} labels are doubtful, {} of them in {FILE}; out of fold, accuracy is {accuracy:.2} %", thousands(self.most))
    }

    /// The table: file and line of each row, its label, the suggested one, the probabilities of both, and the text.
    fn table(&self, reader: &Reader, train: &Tokenized, dev_fraction: f64) -> Result<Vec<u8>> {
        let (file, rows) = reader.training_texts(dev_fraction)?;
        if rows.keys() != train.keys {
            return Err(Error::file(&file, "data set", "was changed while the model was trained on it"));
        }
        let problem = |e: csv::Error| Error::file(FILE, "table", e);
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(["file", "line", "label", "suggested", "label_probability", "probability", "text"]).map_err(problem)?;
        for suspect in &self.all[..self.most] {
            table.write_record(cells(suspect, &file, &rows)).map_err(problem)?;
        }
        table.into_inner().map_err(|e| Error::file(FILE, "table", e.error()))
    }
}

fn cells(suspect: &Suspect, file: &Path, rows: &Dataset) -> [String; 7] {
    let (place, name) = (&rows.names[suspect.index], |class: u32| rows.label_names[class as usize].clone());
    // A row of a table, or of a list; or else a text that is a file of its own.
    let (file, line) = match (place.strip_prefix("line "), place.strip_prefix("object ")) {
        (Some(line), _) | (None, Some(line)) => (file.display().to_string(), line.to_string()),
        (None, None) => (place.clone(), String::new()),
    };
    let [own, other] = [suspect.label_probability, suspect.probability].map(|p| format!("{p:.4}"));
    [file, line, name(suspect.label), name(suspect.suggested), own, other, rows.whole_text(suspect.index).into_owned()]
}
