//! A training run: its steps, the measurements after each epoch, and the saved state. A run that was stopped or killed resumes from the saved
//! state and gives the same bytes.

use super::common::{Outcome, describe};
use super::notes::{note, warning};
use super::progress::StepProgress;
use super::ranks::{self, is_first, ranks};
use super::signals::asked_to_stop;
use crate::folder::write_directory;
use lowrank::data::Tokenized;
use lowrank::files::{read_text, write_file};
use lowrank::nn::DistilBert;
use lowrank::tensor::Tensor;
use lowrank::tensor::safetensors::SafeTensors;
use lowrank::train::{
    AdamW, Evaluation, Observer, Recipe, StepReport, Training, all_agree, load_checkpoint, predict_across, save_checkpoint_with,
};
use lowrank::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The tokenised texts of a run.
pub struct Texts {
    pub train: Tokenized,
    pub test: Tokenized,
    /// Held-out texts that are measured after each epoch.
    pub dev: Option<Tokenized>,
}

/// A training run.
pub struct TrainingRun<'a> {
    /// Folder in which the state is saved.
    pub out: &'a Path,
    /// Steps between two saved states.
    pub every: usize,
    /// Settings that must be the same to resume: a JSON object.
    pub settings: String,
    /// Version and machine; the bytes of the result depend on them too.
    pub machine: String,
    pub recipe: &'a Recipe,
    pub texts: &'a Texts,
    /// Measure on the test texts after each epoch too, not only at the end.
    pub test_each_epoch: bool,
    /// Keep the epoch that is best on the held-out texts.
    pub keep_best: bool,
    pub progress: StepProgress,
    /// Results of the run so far, without the parameters.
    pub state: RunState,
}

/// The part of a run's state that is neither in the model nor in the optimizer.
#[derive(Default)]
pub struct RunState {
    /// Lines of `metrics.jsonl`.
    pub metrics: String,
    /// Seconds of training so far.
    pub seconds: f64,
    /// Most bytes that a micro-batch saved for backward.
    pub kept: usize,
    /// Accuracy and parameters of the best epoch.
    best: Option<(f64, Vec<Tensor>)>,
    /// Number of measured epochs.
    measured: usize,
}

impl TrainingRun<'_> {
    /// Trains to the end and measures on the test texts; `None` if the run was stopped.
    ///
    /// # Errors
    /// The errors of training and of the model, and of saving the state.
    pub fn train_and_test(&mut self, model: &mut DistilBert, optimizer: &mut AdamW) -> Result<Option<Evaluation>> {
        let finished = self.train(model, optimizer);
        self.progress.bar.finish();
        if finished? { self.evaluate_best(model) } else { Ok(None) }
    }

    /// Trains to the end of the recipe. Returns false if it was stopped.
    fn train(&mut self, model: &mut DistilBert, optimizer: &mut AdamW) -> Result<bool> {
        let (recipe, data) = (self.recipe, &self.texts.train);
        let started = Instant::now();
        let before = self.state.seconds;
        let (per_epoch, steps) = (recipe.steps_per_epoch(data.len()), recipe.steps(data.len())?);
        let ranks = ranks();
        let training = Training::across(&*ranks, model, data, recipe)?;
        loop {
            let (done, epoch) = (optimizer.steps(), optimizer.steps() / per_epoch);
            if done.is_multiple_of(per_epoch) && self.state.measured < epoch && !self.measure(epoch, model)? {
                return Ok(false);
            }
            if done == steps || !all_agree(&*ranks, !asked_to_stop())? {
                return Ok(done == steps);
            }
            let until = done + (self.every - done % self.every).min(per_epoch - done % per_epoch);
            training.run(model, optimizer, until, self)?;
            self.state.seconds = before + started.elapsed().as_secs_f64();
            if optimizer.steps().is_multiple_of(self.every) && !asked_to_stop() {
                self.save(model, optimizer)?;
            }
        }
    }

    /// Measures an epoch, counted from 1. Returns false if it was stopped; then nothing is recorded.
    fn measure(&mut self, epoch: usize, model: &DistilBert) -> Result<bool> {
        let mut found = Vec::new();
        let test = self.test_each_epoch.then_some(&self.texts.test);
        for (name, data) in [("held-out", self.texts.dev.as_ref()), ("test", test)] {
            let Some(data) = data else { continue };
            let Some(result) = self.evaluate(model, data)? else { return Ok(false) };
            found.push((name, result));
        }
        for (name, result) in found {
            self.progress.bar.line(&format!("epoch {epoch}, {name}: {}", describe(&result)));
            self.state.metrics += &format!("{}\n", json!({ "epoch": epoch, name: result }));
            let better = self.state.best.as_ref().is_none_or(|(best, _)| result.accuracy > *best);
            if name == "held-out" && self.keep_best && better {
                self.state.best = Some((result.accuracy, values(model)));
            }
        }
        self.state.measured = epoch;
        Ok(true)
    }

    /// Evaluates on tokenised texts; `None` if it was stopped.
    fn evaluate(&self, model: &DistilBert, data: &Tokenized) -> Result<Option<Evaluation>> {
        let predicted = predict_across(&*ranks(), model, &data.sequences(), self.recipe.batch, &mut |_| !asked_to_stop())?;
        predicted.map(|predicted| Ok(lowrank::train::measure(&predicted, &data.labels)?.0)).transpose()
    }

    /// Evaluates the best epoch if one is kept, else the last, and leaves its parameters in the model. `None` if it was stopped; the model then
    /// has the parameters of the last epoch, as it has after an error.
    fn evaluate_best(&self, model: &mut DistilBert) -> Result<Option<Evaluation>> {
        let last = values(model);
        let set = |model: &mut DistilBert, values: &[Tensor]| {
            model.parameters_mut().into_iter().zip(values).for_each(|(p, value)| p.set(value.clone()));
        };
        if let Some((_, best)) = &self.state.best {
            set(model, best);
        }
        // The frozen weights were checked before training, so only parameters can be wrong.
        let finite = model.parameters().iter().try_for_each(|p| {
            let error = |what| {
                Error::invalid(format!("training went wrong: tensor {:?} {what}; begin anew with --restart and a lower --lr", p.name()))
            };
            p.value().check_finite(error)
        });
        let result = finite.and_then(|()| self.evaluate(model, &self.texts.test));
        if !matches!(result, Ok(Some(_))) {
            set(model, &last);
        }
        result
    }

    /// The file of the saved state.
    fn file(&self) -> PathBuf {
        self.out.join("checkpoint.safetensors")
    }

    /// Saves the state of a run that a signal stopped or that failed, and says how to resume.
    ///
    /// # Errors
    /// The failure of the run; if there is none, why the state cannot be written.
    pub fn ended_early(&self, model: &DistilBert, optimizer: &AdamW, failure: Option<Error>) -> Result<Outcome> {
        let (step, file) = (optimizer.steps(), self.file());
        let saved = if step > 0 { self.save(model, optimizer) } else { Ok(()) };
        let Some(failure) = failure else {
            saved?;
            match step {
                0 => note!("stopped before the first step: there is nothing to save"),
                _ => note!("stopped after step {step}; saved to {}: run again with --resume to go on", file.display()),
            }
            return Ok(Outcome::Interrupted);
        };
        match saved {
            Err(problem) => warning!("the state after step {step} could not be saved: {problem}"),
            Ok(()) if step > 0 => warning!(
                "the state after step {step} is saved to {}: run again with --resume to go on with the same arguments, or with --restart to begin anew with others",
                file.display()
            ),
            Ok(()) => {}
        }
        Err(failure)
    }

    /// Saves the state, completely or not at all. Of several ranks, the first saves it for all.
    fn save(&self, model: &DistilBert, optimizer: &AdamW) -> Result<()> {
        if !is_first() {
            return Ok(());
        }
        let RunState { metrics, seconds, measured, best, .. } = &self.state;
        let texts = [("machine", self.machine.clone()), ("measured", measured.to_string()), ("seconds", seconds.to_string())];
        let mut texts: BTreeMap<String, String> = texts.map(|(key, text)| (key.to_string(), text)).into();
        let mut tensors = Vec::new();
        if let Some((accuracy, values)) = best {
            texts.insert("best".to_string(), accuracy.to_string());
            tensors.extend(model.parameters().iter().zip(values).map(|(p, value)| (format!("best.{}", p.name()), value.clone())));
        }
        write_directory(self.out, |directory| {
            write_file(&directory.join("metrics.jsonl"), metrics.as_bytes())?;
            let path = directory.join("checkpoint.safetensors");
            save_checkpoint_with(&path, model, optimizer, &self.settings, tensors, texts)
        })
    }

    /// Checks that all ranks have the same settings and the same kind of machine.
    ///
    /// # Errors
    /// If something differs; the message names it with both values.
    pub fn check_ranks(&self) -> Result<()> {
        let settings: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&self.settings).map_err(|e| Error::invalid(format!("settings: {e}")))?;
        let facts = settings.iter().map(|(name, value)| (name.as_str(), value.to_string()));
        ranks::check(&facts.chain([("machine", self.machine.clone())]).collect::<Vec<_>>())
    }

    /// Restores the saved state. Every rank reads it.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the saved run had other settings.
    pub fn resume(&mut self, model: &mut DistilBert, optimizer: &mut AdamW) -> Result<()> {
        let metrics = read_text(&self.out.join("metrics.jsonl"))?;
        let file = load_checkpoint(&self.file(), model, optimizer, &self.settings)?;
        let machine = file.metadata().get("machine").map_or("", String::as_str);
        if machine != self.machine {
            warning!(
                "the run was begun by {machine} and goes on with {}: its numbers may differ from those of a run in one piece",
                self.machine
            );
        }
        let best = match file.metadata().contains_key("best") {
            true => Some((number(&file, "best")?, best_values(&file, model)?)),
            false => None,
        };
        self.state =
            RunState { metrics, seconds: number(&file, "seconds")?, measured: number(&file, "measured")?, best, ..RunState::default() };
        Ok(())
    }
}

fn values(model: &DistilBert) -> Vec<Tensor> {
    model.parameters().iter().map(|p| p.value().clone()).collect()
}

/// A number that was saved as text.
fn number<T: std::str::FromStr>(file: &SafeTensors, key: &str) -> Result<T> {
    let number = file.metadata().get(key).and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::file(file.path(), key, "is missing, or no number: the saved state is damaged"))
}

/// The parameters of the best epoch.
fn best_values(file: &SafeTensors, model: &DistilBert) -> Result<Vec<Tensor>> {
    let value = |p: &&lowrank::autograd::Parameter| {
        let name = format!("best.{}", p.name());
        let value = file.tensor(&name)?;
        match value.shape() == p.value().shape() && value.dtype() == p.value().dtype() {
            true => value.to_device_of(p.value()),
            false => Err(Error::file(file.path(), format!("tensor {name:?}"), "has another shape or type than the model's")),
        }
    };
    model.parameters().iter().map(value).collect()
}

impl Observer for TrainingRun<'_> {
    fn step(&mut self, report: &StepReport) -> bool {
        self.progress.step(report);
        self.state.kept = self.state.kept.max(report.kept_bytes);
        self.state.metrics += &format!("{}\n", json!(report));
        // A signal stops the run after this step.
        !asked_to_stop()
    }
}
