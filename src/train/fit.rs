//! The training loop: batch, forward, loss, backward, clip, update, report.
//!
//! An [`Observer`] receives the report of each step. `Unreported` is a step whose loss and norm are not read from the device yet. [`FrozenFeatures`] is
//! the output of the frozen lowest layers, computed once.

use super::evaluate::cause;
use super::observer::{MicroBatch, Unreported, not_finite, report_steps};
use super::{AdamW, FrozenFeatures, LinearSchedule, Observer, Recipe, StepReport};
use crate::autograd::{Grads, Tape};
use crate::data::{Tokenized, batch, order, order_by_length};
use crate::lora::dylora::first_ranks;
use crate::nn::{DistilBert, Pass};
use crate::tensor::philox::Stream;
use crate::{Error, Result};

/// Largest number of steps between their computation on a GPU and their reports.
const UNREPORTED: usize = 32;

/// Trains `model` on `data` to the end of the recipe. A new `optimizer` starts at step 0; one that was restored goes on where it was.
/// Returns whether the end was reached: an observer may stop a run.
///
/// # Errors
/// If a number of the recipe is out of its range, no finite gradient reaches a trained tensor in the first step, or the loss stops being
/// finite. The model then still has its last good parameters.
pub fn fit(model: &mut DistilBert, data: &Tokenized, recipe: &Recipe, optimizer: &mut AdamW, observer: &mut dyn Observer) -> Result<bool> {
    Training::new(model, data, recipe)?.run(model, optimizer, usize::MAX, observer)
}

/// A run that may be done in several pieces, for example to save its state between them.
pub struct Training<'a> {
    data: &'a Tokenized,
    recipe: &'a Recipe,
    /// Output of the frozen layers, if the recipe asks to compute it once.
    features: Option<FrozenFeatures>,
    steps_per_epoch: usize,
    schedule: LinearSchedule,
}

impl<'a> Training<'a> {
    /// Checks the recipe and prepares the run.
    ///
    /// # Errors
    /// If a number of the recipe is out of its range, there is no data, or the recipe asks for [`FrozenFeatures`] and they cannot be computed.
    pub fn new(model: &DistilBert, data: &'a Tokenized, recipe: &'a Recipe) -> Result<Training<'a>> {
        recipe.check()?;
        if data.is_empty() {
            return Err(Error::invalid("training data: there is no example to train on"));
        }
        let total = recipe.steps(data.len())?;
        let features = recipe.cache_trunk.then(|| FrozenFeatures::new(model, data, recipe.batch)).transpose()?;
        let schedule = LinearSchedule { warmup: (recipe.warmup * total as f64) as usize, total };
        Ok(Training { data, recipe, features, steps_per_epoch: recipe.steps_per_epoch(data.len()), schedule })
    }

    /// Trains from the step that the optimizer has reached until it has taken `until` steps, the recipe ends, or the observer stops it.
    /// Returns whether the end of the recipe was reached. All steps are reported when this returns.
    ///
    /// # Errors
    /// Those of [`fit`].
    pub fn run(&self, model: &mut DistilBert, optimizer: &mut AdamW, until: usize, observer: &mut dyn Observer) -> Result<bool> {
        let (recipe, total) = (self.recipe, self.schedule.total);
        let step_size = recipe.batch * recipe.accumulate;
        let mut unreported = Vec::new();
        while optimizer.steps() < total.min(until) {
            let epoch = optimizer.steps() / self.steps_per_epoch;
            let epoch_order = match recipe.group_by_length {
                true => order_by_length(&self.data.lengths(), step_size, epoch, recipe.seed),
                false => order(self.data.len(), epoch, recipe.seed),
            };
            for indices in epoch_order.chunks(step_size).skip(optimizer.steps() % self.steps_per_epoch) {
                let t = optimizer.steps(); // from 0
                let Step { parts, grads, tokens, kept_bytes } = self.step(model, indices, epoch, t)?;
                check_losses(model, &parts, t + 1, recipe.lr)?;
                if t == 0 {
                    check_reached(model, &grads)?;
                }
                let lr = recipe.lr * self.schedule.factor(t);
                // Clips the gradients, too. If their norm is not finite, it changes nothing, and `report_steps` below returns the error.
                let norm = optimizer.update(&mut model.parameters_mut(), grads, lr, recipe.clip)?;
                let at_once = norm.on_host();
                // Placeholders: `report_steps` reads the numbers from the device.
                let (loss, accuracy, grad_norm) = (0.0, 0.0, 0.0);
                let (step, epoch) = (t + 1, epoch + 1);
                let report = StepReport { step, steps: total, epoch, loss, accuracy, grad_norm, lr, tokens, kept_bytes };
                unreported.push(Unreported { report, parts, norm });
                let pause = step.is_multiple_of(self.steps_per_epoch) || step == until;
                if at_once || pause || unreported.len() == UNREPORTED {
                    let go_on = report_steps(&mut unreported, recipe.lr, model, optimizer, observer)?;
                    if !go_on || step == until {
                        return Ok(step == total);
                    }
                }
            }
        }
        Ok(optimizer.steps() >= total)
    }

    /// Forward, loss and backward of optimizer step `t`, from 0, over the sequences `indices`. Gradients of micro-batches are added.
    fn step(&self, model: &DistilBert, indices: &[usize], epoch: usize, t: usize) -> Result<Step> {
        let recipe = self.recipe;
        let rank = recipe.nested_rank.map(|most| 1 + Stream::new(recipe.seed, &format!("rank of step {t}")).below(most));
        let mut sum = Step::default();
        let weights = model.storages();
        for micro in indices.chunks(recipe.batch) {
            let packed = batch(self.data, micro, epoch)?;
            let pass =
                Pass { recompute: recipe.recompute, part: first_ranks(rank), ..Pass::training(packed.sequences.clone(), recipe.seed) };
            let features = self.features.as_ref().map(|features| features.rows(micro)).transpose()?;
            let mut tape = Tape::new();
            let logits = match &features {
                Some(features) => model.forward_on_features(&mut tape, features, &pass)?,
                None => model.forward(&mut tape, &packed.ids, &pass)?,
            };
            // The sum over the micro-batch, divided by the number of sequences of the whole step.
            let loss = tape.cross_entropy(&logits, &packed.labels, indices.len())?;
            sum.parts.push(MicroBatch { loss: loss.value().clone(), logits: logits.value().clone(), labels: packed.labels });
            sum.tokens += packed.ids.len();
            sum.kept_bytes = sum.kept_bytes.max(tape.kept_bytes(&weights));
            sum.grads.add(tape.backward(&loss)?)?;
        }
        Ok(sum)
    }
}

/// Results of one optimizer step, before the update.
#[derive(Default)]
struct Step {
    parts: Vec<MicroBatch>,
    grads: Grads,
    tokens: usize,
    kept_bytes: usize,
}

/// Refuses a loss that is not finite, before it changes anything. On a GPU this would wait for the device: there, the loss is checked when
/// it is reported, and the update itself skips gradients whose norm is not finite.
fn check_losses(model: &DistilBert, parts: &[MicroBatch], step: usize, lr: f64) -> Result<()> {
    for part in parts.iter().filter(|part| part.loss.on_host()) {
        let loss = part.loss.item()?;
        if !loss.is_finite() {
            return Err(not_finite(model, step, lr, &format!("the loss is {loss}")));
        }
    }
    Ok(())
}

/// Checks in the first step that every parameter has a gradient, and that it is finite.
fn check_reached(model: &DistilBert, grads: &Grads) -> Result<()> {
    for p in model.parameters() {
        let finite = grads.get(p).map(|g| g.to_f64()).transpose()?.map(|g| g.iter().all(|x| x.is_finite()));
        let problem = match finite {
            Some(true) => continue,
            Some(false) => format!("its gradient is not finite: {}", cause(model.not_finite()?)),
            None => "no gradient reached it".to_string(),
        };
        return Err(Error::Training { step: 1, problem: format!("{} is to be trained, but {problem}", p.name()) });
    }
    Ok(())
}
