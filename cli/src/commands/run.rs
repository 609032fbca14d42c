//! A training run: its steps, the measurements after each epoch, and the saved state. A run that was stopped or killed resumes from the saved
//! state and gives the same bytes.

use super::best::{Best, number, set_values, values};
use super::common::Outcome;
use super::figures::Figures;
use super::held_out::Selection;
use super::notes::{note, warning};
use super::progress::StepProgress;
use super::ranks::{self, is_first, ranks};
use super::signals::asked_to_stop;
use super::tested::{Tested, all_scores};
use crate::folder::write_directory;
use lowrank::data::Tokenized;
use lowrank::files::{read_text, write_file};
use lowrank::nn::DistilBert;
use lowrank::train::{AdamW, Observer, Recipe, StepReport, Training, all_agree, load_checkpoint, mean_logits, save_checkpoint_with};
use lowrank::{Error, Result};
use serde_json::json;
use std::borrow::Cow;
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
    /// Hash of the files beside the base's weights when the run began: see [`side_files`](super::base::side_files).
    pub side_files: String,
    /// Version and machine; the bytes of the result depend on them too.
    pub machine: String,
    pub recipe: &'a Recipe,
    pub texts: &'a Texts,
    /// Measure on the test texts after each epoch too, not only at the end.
    pub test_each_epoch: bool,
    /// What is chosen by the held-out texts.
    pub selection: Selection,
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
    /// The best epoch.
    pub best: Option<Best>,
    /// Number of measured epochs. At the end of a run it is the number of trained epochs.
    pub measured: usize,
    /// Logits of the epoch that is kept, by the name of the texts. Only what this process measured is here.
    logits: BTreeMap<&'static str, Vec<Vec<f64>>>,
}

impl RunState {
    /// Number of epochs after which training had the parameters that are kept.
    pub fn kept_epochs(&self) -> usize {
        self.best.as_ref().map_or(self.measured, |best| best.epoch)
    }
}

/// Names of the texts that are measured.
const HELD_OUT: &str = "held-out";
const TEST: &str = "test";

impl TrainingRun<'_> {
    /// Trains to the end and measures on the test texts; `None` if the run was stopped.
    ///
    /// # Errors
    /// The errors of training and of the model, and of saving the state.
    pub fn train_and_test(&mut self, model: &mut DistilBert, optimizer: &mut AdamW) -> Result<Option<Tested>> {
        let finished = self.train(model, optimizer);
        self.progress.bar.finish();
        if finished? { self.evaluate_best(model) } else { Ok(None) }
    }

    /// Trains to the end of the recipe, or until patience ends. Returns false if it was stopped.
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
            if done < steps && self.patience_ended() {
                self.progress.bar.line(&format!(
                    "no better {} for {} epochs: training ends",
                    self.selection.metric.name(),
                    self.since_best()
                ));
                return Ok(true);
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
        for (name, data) in [(HELD_OUT, self.texts.dev.as_ref()), (TEST, test)] {
            let Some(data) = data else { continue };
            let Some(logits) = self.logits(model, data)? else { return Ok(false) };
            found.push((name, self.evaluate(&logits, data)?, logits));
        }
        // The held-out texts come first, and decide.
        let mut is_kept = !self.selection.keep_best;
        for (name, (result, value), logits) in found {
            let (selection, metric) = (self.selection, self.selection.metric.name());
            let chosen = name == HELD_OUT && selection.keep_best;
            // The line of an evaluation has accuracy and loss already.
            let other = (chosen && !["accuracy", "loss"].contains(&metric)).then_some(value);
            let more = other.map_or(String::new(), |value| format!(", {metric} {value:.4}"));
            self.progress.bar.line(&format!("epoch {epoch}, {name}: {}{more}", result.describe()));
            let mut line = json!({ "epoch": epoch, name: result });
            other.iter().for_each(|value| line[metric] = json!(value));
            self.state.metrics += &format!("{line}\n");
            if chosen {
                is_kept = Best::update(&mut self.state.best, &selection, value, epoch, model);
            }
            if is_kept {
                self.state.logits.insert(name, logits);
            }
        }
        self.state.measured = epoch;
        Ok(true)
    }

    /// Measured epochs after the best one.
    fn since_best(&self) -> usize {
        self.state.best.as_ref().map_or(0, |best| self.state.measured.saturating_sub(best.epoch))
    }

    fn patience_ended(&self) -> bool {
        self.selection.patience.is_some_and(|patience| self.since_best() >= patience)
    }

    /// The logits of tokenised texts; `None` if it was stopped.
    fn logits(&self, model: &DistilBert, data: &Tokenized) -> Result<Option<Vec<Vec<f64>>>> {
        mean_logits(&*ranks(), model, &data.windows(), self.recipe.batch, &mut |_| !asked_to_stop())
    }

    /// The logits of the model that is kept; `None` if it was stopped. They are computed unless this process measured the epoch with these texts.
    fn kept_logits(&self, model: &DistilBert, name: &str, data: &Tokenized) -> Result<Option<Cow<'_, [Vec<f64>]>>> {
        match self.state.logits.get(name) {
            Some(logits) => Ok(Some(logits.into())),
            None => Ok(self.logits(model, data)?.map(Cow::from)),
        }
    }

    /// The figures of logits of tokenised texts, and the figure by which epochs are chosen.
    fn evaluate(&self, logits: &[Vec<f64>], data: &Tokenized) -> Result<(Figures, f64)> {
        let rows = all_scores(data, logits, 1.0);
        let result = Figures::of(data, &rows, None)?;
        // It may be undefined for test texts. They choose nothing.
        let value = if self.selection.keep_best { result.value(self.selection.metric, data, &rows) } else { f64::NAN };
        Ok((result, value))
    }

    /// Measures the best epoch if one is kept, else the last, and leaves its parameters in the model. `None` if it was stopped; the model then
    /// has the parameters of the last epoch, as it has after an error.
    fn evaluate_best(&self, model: &mut DistilBert) -> Result<Option<Tested>> {
        let last = values(model);
        self.state.best.iter().for_each(|best| best.restore(model));
        // The frozen weights were checked before training, so only parameters can be wrong.
        let finite = model.parameters().iter().try_for_each(|p| {
            let error = |what| {
                Error::invalid(format!("training went wrong: tensor {:?} {what}; begin anew with --restart and a lower --lr", p.name()))
            };
            p.value().check_finite(error)
        });
        let result = finite.and_then(|()| self.test(model));
        if !matches!(result, Ok(Some(_))) {
            set_values(model, &last);
        }
        result
    }

    /// Measures the model that is kept on the held-out and the test texts; `None` if it was stopped.
    fn test(&self, model: &DistilBert) -> Result<Option<Tested>> {
        let (texts, mut held_out) = (self.texts, None);
        if let Some(dev) = &texts.dev {
            let Some(logits) = self.kept_logits(model, HELD_OUT, dev)? else { return Ok(None) };
            held_out = Some((logits, dev));
        }
        let Some(logits) = self.kept_logits(model, TEST, &texts.test)? else { return Ok(None) };
        Tested::new(held_out.as_ref().map(|(logits, dev)| (&logits[..], *dev)), (&logits, &texts.test)).map(Some)
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
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, model: &DistilBert, optimizer: &AdamW) -> Result<()> {
        if !is_first() {
            return Ok(());
        }
        let RunState { metrics, seconds, measured, best, .. } = &self.state;
        let texts = [("machine", self.machine.clone()), ("measured", measured.to_string()), ("seconds", seconds.to_string())];
        let mut texts: BTreeMap<String, String> = texts.map(|(key, text)| (key.to_string(), text)).into();
        let mut tensors = Vec::new();
        if let Some(best) = best {
            texts.extend(best.saved_texts());
            tensors = best.saved_tensors(model);
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

    /// Restores the saved state, and says after which step it goes on. Every rank reads it.
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
        let measured = number(&file, "measured")?;
        let best = Best::read(&file, model, measured)?;
        self.state = RunState { metrics, seconds: number(&file, "seconds")?, measured, best, ..RunState::default() };
        note!("going on after step {}", optimizer.steps());
        Ok(())
    }
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
