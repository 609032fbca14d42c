//! The training loop: batch, forward, loss, backward, clip, update, report.
//!
//! An [`Observer`] receives the report of each step. `MicroBatch` has the loss and the logits of a micro-batch, for the report. `Unreported` is a step whose
//! loss and norm are not read from the device yet. [`FrozenFeatures`] is the output of the frozen lowest layers, computed once.
//!
//! [`Ranks`] are processes or threads that share the micro-batches of each step. A first reader takes the number of ranks as 1. `StepSum`
//! then adds the gradients, and `told` and `all_agree`, which talk to the other ranks, change nothing.

use super::checks::{check_losses, check_ranks, check_reached};
use super::exchange::{Step, StepSum};
use super::loss::Loss;
use super::observer::{MicroBatch, Unreported, report_steps};
use super::ranks::{all_agree, told};
use super::{AdamW, FrozenFeatures, Observer, OneRank, Ranks, Recipe};
use crate::autograd::{Grads, Tape};
use crate::data::{Tokenized, batch, order, order_by_length};
use crate::lora::dylora::first_ranks;
use crate::nn::{DistilBert, Pass};
use crate::tensor::philox::Stream;
use crate::{Error, Result};

/// Largest number of steps of a GPU whose reports wait.
const UNREPORTED: usize = 32;

/// Trains `model` on `data` to the end of the recipe. A new `optimizer` starts at step 0; one that was restored goes on where it was. Returns whether the end
/// was reached: an observer may stop a run.
///
/// # Errors
/// If a number of the recipe is out of its range, no finite gradient reaches a trained tensor in the first step, or the loss stops being finite. The model then
/// still has its last good parameters.
pub fn fit(model: &mut DistilBert, data: &Tokenized, recipe: &Recipe, optimizer: &mut AdamW, observer: &mut dyn Observer) -> Result<bool> {
    Training::new(model, data, recipe)?.run(model, optimizer, usize::MAX, observer)
}

/// A run that may be done in several pieces, for example to save its state between them.
pub struct Training<'a> {
    ranks: &'a dyn Ranks,
    data: &'a Tokenized,
    recipe: &'a Recipe,
    /// Output of the frozen layers, if the recipe asks to compute it once.
    features: Option<FrozenFeatures>,
    steps_per_epoch: usize,
    /// Steps of the run, and how many of them warm up.
    total: usize,
    warmup: usize,
    loss: Loss<'a>,
}

impl<'a> Training<'a> {
    /// Checks the recipe and prepares the run.
    ///
    /// # Errors
    /// If a number of the recipe is out of its range, there is no data, or the recipe asks for [`FrozenFeatures`] and they cannot be computed.
    pub fn new(model: &DistilBert, data: &'a Tokenized, recipe: &'a Recipe) -> Result<Training<'a>> {
        Training::across(&OneRank, model, data, recipe)
    }

    /// [`Training::new`] for a run of several ranks, which share the micro-batches of each step. Every rank has the same model, data and
    /// recipe, and gets the same parameters and reports, bit for bit, as one rank alone.
    ///
    /// # Errors
    /// Those of [`Training::new`]; if there are more ranks than micro-batches in a step; and if another rank failed.
    pub fn across(ranks: &'a dyn Ranks, model: &DistilBert, data: &'a Tokenized, recipe: &'a Recipe) -> Result<Training<'a>> {
        recipe.check()?;
        check_ranks(ranks, recipe.accumulate)?;
        if data.is_empty() {
            return Err(Error::invalid("training data: there is no example to train on"));
        }
        let (total, loss) = (recipe.steps(data.len())?, Loss::new(recipe, data, model.classifier.dims().0)?);
        let features = recipe.cache_trunk.then(|| FrozenFeatures::across(ranks, model, data, recipe.batch)).transpose()?;
        let (steps_per_epoch, warmup) = (recipe.steps_per_epoch(data.len()), (recipe.warmup * total as f64) as usize);
        Ok(Training { ranks, data, recipe, features, steps_per_epoch, total, warmup, loss })
    }

    /// Trains from the step that the optimizer has reached until it has taken `until` steps, the recipe ends, or the observer stops it. Returns whether the end
    /// of the recipe was reached. All steps are reported when this returns.
    ///
    /// # Errors
    /// Those of [`fit`]. Of several ranks, all then get an error.
    pub fn run(&self, model: &mut DistilBert, optimizer: &mut AdamW, until: usize, observer: &mut dyn Observer) -> Result<bool> {
        told(self.ranks, self.run_steps(model, optimizer, until, observer))
    }

    fn run_steps(&self, model: &mut DistilBert, optimizer: &mut AdamW, until: usize, observer: &mut dyn Observer) -> Result<bool> {
        let (recipe, until) = (self.recipe, until.min(self.total));
        let step_size = recipe.batch * recipe.accumulate;
        let (mut epoch_order, mut unreported) = (Vec::new(), Vec::new());
        while optimizer.steps() < until {
            let (epoch, place) = (optimizer.steps() / self.steps_per_epoch, optimizer.steps() % self.steps_per_epoch);
            if place == 0 || epoch_order.is_empty() {
                epoch_order = self.order(epoch);
            }
            let indices = &epoch_order[place * step_size..self.data.len().min((place + 1) * step_size)];
            let step = self.step(model, optimizer, indices, epoch)?;
            // On a GPU reports wait, so that it goes on computing, but not beyond the end of an epoch or of this call.
            let report_now = step.norm.on_host() || place + 1 == self.steps_per_epoch || optimizer.steps() == until;
            unreported.push(step);
            if report_now || unreported.len() == UNREPORTED {
                let go_on = report_steps(&mut unreported, recipe.lr, model, optimizer, observer)?;
                if !all_agree(self.ranks, go_on)? {
                    break;
                }
            }
        }
        Ok(optimizer.steps() >= self.total)
    }

    /// The order of the sequences in an epoch, from 0.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let recipe = self.recipe;
        match recipe.group_by_length {
            true => order_by_length(&self.data.lengths(), recipe.batch * recipe.accumulate, epoch, recipe.seed),
            false => order(self.data.len(), epoch, recipe.seed),
        }
    }

    /// The next optimizer step, over the sequences `indices`: the gradients of its micro-batches, added, and the update.
    fn step(&self, model: &mut DistilBert, optimizer: &mut AdamW, indices: &[usize], epoch: usize) -> Result<Unreported> {
        let (recipe, t) = (self.recipe, optimizer.steps()); // t from 0
        let micro: Vec<&[usize]> = indices.chunks(recipe.batch).collect();
        let divisor = self.loss.divisor(indices.iter().map(|&i| self.data.labels[i]));
        let mut all = StepSum::new(self.ranks);
        for round in micro.chunks(self.ranks.size()) {
            let own = round.get(self.ranks.rank());
            let own = own.map(|micro| self.micro_batch(model, micro, divisor, epoch, t)).transpose()?;
            all.add(model, own)?;
        }
        let Step { parts, grads, ranks } = all.finish(model)?;
        // The base is mapped from a file, which another program could have changed meanwhile.
        model.check_unchanged()?;
        check_losses(model, &parts, t + 1, recipe.lr)?;
        if t == 0 {
            check_reached(model, &grads)?;
        }
        let lr = recipe.lr * recipe.schedule.factor(t, self.warmup, self.total);
        // Clips the gradients, too. If their norm is not finite, it changes nothing, and `report_steps` returns the error.
        let norm = optimizer.update(&mut model.parameters_mut(), grads, lr, recipe.clip)?;
        Ok(Unreported { step: t + 1, steps: self.total, epoch: epoch + 1, lr, parts, ranks, norm })
    }

    /// Forward, loss and backward of a micro-batch: the sequences `micro` of step `t`, from 0. The sum of their losses is divided by `divisor`.
    fn micro_batch(&self, model: &DistilBert, micro: &[usize], divisor: f64, epoch: usize, t: usize) -> Result<(MicroBatch, Grads)> {
        let recipe = self.recipe;
        let rank = recipe.nested_rank.map(|most| 1 + Stream::new(recipe.seed, &format!("rank of step {t}")).below(most));
        let packed = batch(self.data, micro, epoch)?;
        let pass = Pass { recompute: recipe.recompute, part: first_ranks(rank), ..Pass::training(packed.sequences.clone(), recipe.seed) };
        let features = self.features.as_ref().map(|features| features.rows(micro)).transpose()?;
        let mut tape = Tape::new();
        let logits = match &features {
            Some(features) => model.forward_on_features(&mut tape, features, &pass)?,
            None => model.forward(&mut tape, &packed.ids, &pass)?,
        };
        // The sum over the micro-batch, divided by what `Loss::divisor` gives for the whole step.
        let loss = self.loss.apply(&mut tape, &logits, &packed.labels, divisor)?;
        Ok((MicroBatch::new(model, &tape, &loss, &logits, self.loss.reported(packed)), tape.backward(&loss)?))
    }
}
