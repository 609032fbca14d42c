//! The training loop.

use super::evaluate::cause;
use super::{AdamW, FrozenFeatures, LinearSchedule, argmax};
use crate::autograd::{Grads, Tape};
use crate::data::{Tokenized, batch, order, order_by_length};
use crate::lora::dylora::first_ranks;
use crate::nn::{DistilBert, Pass};
use crate::tensor::Tensor;
use crate::tensor::philox::Stream;
use crate::tensor::safetensors::{SafeTensors, write};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Passes over the data.
    pub epochs: usize,
    /// Sequences of a micro-batch.
    pub batch: usize,
    /// Micro-batches of an optimizer step; the loss is the mean over all their sequences.
    pub accumulate: usize,
    /// Highest learning rate.
    pub lr: f64,
    /// Decoupled weight decay, on every trained tensor.
    pub weight_decay: f64,
    /// Share of the steps that warm up, in [0, 1].
    pub warmup: f64,
    /// Largest global gradient norm.
    pub clip: f64,
    /// Seed of shuffling and dropout.
    pub seed: u64,
    /// Draw batches of like length instead of plain shuffling.
    pub group_by_length: bool,
    /// Compute each layer again in backward instead of keeping what it needs: the same bytes, more time, less memory.
    pub recompute: bool,
    /// Compute the output of the frozen layers once, without dropout in them, and train what is above it.
    pub cache_trunk: bool,
    /// Draw the number of ranks of every low-rank term anew in each step, evenly from 1 to this: the first ranks then work without the others.
    /// Valipour et al. 2022 (DyLoRA), <https://arxiv.org/abs/2210.07558>, algorithm 1, which updates all drawn ranks by default.
    pub nested_rank: Option<usize>,
}

impl Default for Recipe {
    /// The study's: 3 epochs in batches of 16, lr 3e-4. Decay, warm-up and clipping are ours, because the study does not state them.
    fn default() -> Recipe {
        Recipe {
            epochs: 3,
            batch: 16,
            accumulate: 1,
            lr: 3e-4,
            weight_decay: 0.01,
            warmup: 0.1,
            clip: 1.0,
            seed: 0,
            group_by_length: false,
            recompute: false,
            cache_trunk: false,
            nested_rank: None,
        }
    }
}

/// Most sequences of a micro-batch, micro-batches of a step, and epochs of a run.
const MOST: usize = 1 << 20;

impl Recipe {
    /// Optimizer steps of an epoch over `n` sequences.
    pub fn steps_per_epoch(&self, n: usize) -> usize {
        n.div_ceil(self.batch.saturating_mul(self.accumulate).max(1))
    }

    /// Optimizer steps of a run over `n` sequences.
    ///
    /// # Errors
    /// If they are more than can be counted.
    pub fn steps(&self, n: usize) -> Result<usize> {
        // Each sequence of each epoch has an ordinal of 32 bits, and the optimizer counts its steps so.
        let seen = n.checked_mul(self.epochs).filter(|&seen| seen < i32::MAX as usize);
        let most = (i32::MAX - 1) as usize / n.max(1);
        seen.ok_or_else(|| {
            Error::invalid(format!("recipe: {} epochs of {n} sequences are more than can be counted: at most {most} epochs", self.epochs))
        })?;
        Ok(self.steps_per_epoch(n) * self.epochs)
    }

    /// # Errors
    /// If a number is out of its range; the message names it.
    pub fn check(&self) -> Result<()> {
        let count = |name: &str, n: usize| match (1..=MOST).contains(&n) {
            true => Ok(()),
            false => Err(Error::invalid(format!("recipe: {name} must be at least 1 and at most {MOST}, got {n}"))),
        };
        [
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("the nested rank", self.nested_rank.unwrap_or(1)),
        ]
        .into_iter()
        .try_for_each(|(name, n)| count(name, n))?;
        let finite = |x: f64| x >= 0.0 && x.is_finite();
        let numbers = [
            ("the learning rate", self.lr, finite(self.lr), "be a finite number of at least 0"),
            ("the weight decay", self.weight_decay, finite(self.weight_decay), "be a finite number of at least 0"),
            ("the warm-up", self.warmup, (0.0..=1.0).contains(&self.warmup), "lie in [0, 1]"),
            ("the largest gradient norm (clip)", self.clip, self.clip > 0.0, "be positive"),
        ];
        match numbers.into_iter().find(|(_, _, good, _)| !good) {
            Some((name, x, _, rule)) => Err(Error::invalid(format!("recipe: {name} must {rule}, got {x}"))),
            None => Ok(()),
        }
    }
}

/// What a step did.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Counted from 1 over the run.
    pub step: usize,
    /// Steps of the run.
    pub steps: usize,
    /// Counted from 1.
    pub epoch: usize,
    /// Mean cross-entropy of the step's sequences, in nats.
    pub loss: f64,
    /// Share of the step's sequences that were answered rightly, before the step and with dropout.
    pub accuracy: f64,
    /// Global norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Tokens of the step.
    pub tokens: usize,
    /// Most bytes of activations that a micro-batch of the step kept for backward.
    pub kept_bytes: usize,
}

/// Most steps that a GPU is ahead of their reports.
const UNREPORTED: usize = 32;

/// Who watches a run. The library prints nothing itself.
pub trait Observer {
    /// After every optimizer step, in order. `false` asks to stop here: no step is taken any more, but what was taken before is still reported.
    fn step(&mut self, report: &StepReport) -> bool;

    /// Most steps that may be taken before they are reported, at least 1; `fit` has a bound of its own. A GPU is waited for at every report; on a CPU
    /// each step is reported at once.
    fn patience(&self) -> usize {
        usize::MAX
    }

    /// After every epoch, counted from 1.
    ///
    /// # Errors
    /// Ends the run with that error.
    fn epoch(&mut self, epoch: usize, model: &DistilBert) -> Result<()>;
}

/// Trains `model` on `data` from where `optimizer` stands to the end of the recipe; returns whether it came to the end.
///
/// # Errors
/// If the recipe is out of range, a trained tensor is not reached by a finite gradient on the first step, or the loss stops being finite: the
/// model then still holds the last good state.
pub fn fit(model: &mut DistilBert, data: &Tokenized, recipe: &Recipe, optimizer: &mut AdamW, observer: &mut dyn Observer) -> Result<bool> {
    recipe.check()?;
    let trunk = if recipe.cache_trunk { Some(FrozenFeatures::new(model, data, recipe.batch)?) } else { None };
    fit_on_features(trunk.as_ref(), model, data, recipe, optimizer, observer)
}

/// [`fit`] with the trunk that the recipe asks for computed before: a run in several pieces needs it once.
///
/// # Errors
/// If there is a trunk and the recipe asks for none, or the other way round, and those of [`fit`].
pub fn fit_on_features(
    trunk: Option<&FrozenFeatures>,
    model: &mut DistilBert,
    data: &Tokenized,
    recipe: &Recipe,
    optimizer: &mut AdamW,
    observer: &mut dyn Observer,
) -> Result<bool> {
    recipe.check()?;
    if trunk.is_some() != recipe.cache_trunk {
        return Err(Error::invalid("recipe: a trunk is given if and only if the recipe asks for a cached one"));
    }
    if data.is_empty() {
        return Err(Error::invalid("training data: there is no example to train on"));
    }
    let per_epoch = recipe.steps_per_epoch(data.len());
    let steps = recipe.steps(data.len())?;
    let schedule = LinearSchedule { warmup: (recipe.warmup * steps as f64) as usize, total: steps };
    let mut pending = Vec::new();
    while optimizer.steps() < steps {
        let epoch = optimizer.steps() / per_epoch;
        let order = match recipe.group_by_length {
            true => order_by_length(&data.lengths(), recipe.batch * recipe.accumulate, epoch, recipe.seed),
            false => order(data.len(), epoch, recipe.seed),
        };
        for indices in order.chunks(recipe.batch * recipe.accumulate).skip(optimizer.steps() % per_epoch) {
            let t = optimizer.steps();
            let rank = recipe.nested_rank.map(|most| 1 + Stream::new(recipe.seed, &format!("rank of step {t}")).below(most));
            let Gradients { parts, grads, tokens, kept_bytes } = gradients(model, data, trunk, indices, epoch, rank, recipe)?;
            // A GPU's loss is seen with the report; what is not finite there shows in the norm.
            for part in parts.iter().filter(|part| part.loss.on_host()) {
                let loss = part.loss.item()?;
                if !loss.is_finite() {
                    return Err(not_finite(model, t + 1, recipe.lr, &format!("the loss is {loss}")));
                }
            }
            if t == 0 {
                check_reached(model, &grads)?;
            }
            let lr = recipe.lr * schedule.factor(t);
            let norm = optimizer.update(&mut model.parameters_mut(), grads, lr, recipe.clip)?;
            let at_once = norm.on_host();
            pending.push(Taken { step: t + 1, epoch: epoch + 1, lr, tokens, kept_bytes, parts, norm });
            let last = (t + 1).is_multiple_of(per_epoch);
            if at_once || last || pending.len() >= observer.patience().min(UNREPORTED) {
                let go_on = report(&mut pending, steps, recipe.lr, model, optimizer, observer)?;
                if !go_on && t + 1 < steps {
                    return Ok(false);
                }
            }
        }
        observer.epoch(epoch + 1, model)?;
    }
    Ok(true)
}

/// Loss and logits of a micro-batch, where they were computed, and its labels.
struct MicroBatch {
    loss: Tensor,
    logits: Tensor,
    labels: Vec<u32>,
}

/// A step that is still to be reported.
struct Taken {
    step: usize,
    epoch: usize,
    lr: f64,
    tokens: usize,
    kept_bytes: usize,
    parts: Vec<MicroBatch>,
    norm: Tensor,
}

/// Reports the steps, which waits for the device. Returns whether all of them asked to go on.
fn report(
    pending: &mut Vec<Taken>,
    steps: usize,
    highest: f64,
    model: &DistilBert,
    optimizer: &mut AdamW,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let mut go_on = true;
    for Taken { step, epoch, lr, tokens, kept_bytes, parts, norm } in pending.drain(..) {
        let loss = parts.iter().map(|part| part.loss.item()).sum::<Result<f64>>()?;
        let grad_norm = norm.item()?;
        if !loss.is_finite() || !grad_norm.is_finite() {
            optimizer.rewind(step - 1);
            return Err(not_finite(model, step, highest, &format!("the loss is {loss} and the gradient norm {grad_norm}")));
        }
        let (mut right, mut count) = (0, 0);
        for part in &parts {
            let rows = part.logits.to_f64()?;
            let answers = rows.chunks_exact(part.logits.shape().cols()).map(argmax);
            right += answers.zip(&part.labels).filter(|(answer, label)| *answer == **label as usize).count();
            count += part.labels.len();
        }
        let accuracy = right as f64 / count as f64;
        go_on &= observer.step(&StepReport { step, steps, epoch, loss, accuracy, grad_norm, lr, tokens, kept_bytes });
    }
    Ok(go_on)
}

/// `lr` is the highest learning rate of the run.
fn not_finite(model: &DistilBert, step: usize, lr: f64, found: &str) -> Error {
    let bad = match model.not_finite() {
        Ok(bad) => bad,
        Err(e) => return e,
    };
    let advice = match step {
        // Before the first step, the learning rate had no part in it.
        1 => "take another checkpoint".to_string(),
        _ => format!("begin anew with a learning rate lower than {lr:e}"),
    };
    Error::Training { step, problem: format!("{found}: {}; {advice}", cause(bad)) }
}

/// Of one optimizer step.
#[derive(Default)]
struct Gradients {
    parts: Vec<MicroBatch>,
    grads: Grads,
    tokens: usize,
    kept_bytes: usize,
}

fn gradients(
    model: &DistilBert,
    data: &Tokenized,
    trunk: Option<&FrozenFeatures>,
    indices: &[usize],
    epoch: usize,
    rank: Option<usize>,
    recipe: &Recipe,
) -> Result<Gradients> {
    let mut sum = Gradients::default();
    let own = model.storages();
    for micro in indices.chunks(recipe.batch) {
        let batch = batch(data, micro, epoch)?;
        let pass = Pass { recompute: recipe.recompute, part: first_ranks(rank), ..Pass::training(batch.sequences.clone(), recipe.seed) };
        let mut tape = Tape::new();
        let below = trunk.map(|t| t.rows(micro)).transpose()?;
        let logits = match &below {
            Some(below) => model.forward_on_features(&mut tape, below, &pass)?,
            None => model.forward(&mut tape, &batch.ids, &pass)?,
        };
        let loss = tape.cross_entropy(&logits, &batch.labels, indices.len())?;
        sum.parts.push(MicroBatch { loss: loss.value().clone(), logits: logits.value().clone(), labels: batch.labels });
        sum.tokens += batch.ids.len();
        sum.kept_bytes = sum.kept_bytes.max(tape.kept_bytes(&own));
        sum.grads.add(tape.backward(&loss)?)?;
    }
    Ok(sum)
}

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

/// Writes parameters, moments and the step, to go on from later. `settings` says what must be the same then: best as a JSON object, of which
/// [`load_checkpoint`] can tell what differs.
///
/// # Errors
/// If the file cannot be written, or a number is not finite; the file is then not touched.
pub fn save_checkpoint(path: &Path, model: &DistilBert, optimizer: &AdamW, settings: &str) -> Result<()> {
    save_checkpoint_with(path, model, optimizer, settings, Vec::new(), BTreeMap::new())
}

/// [`save_checkpoint`] with more tensors and texts, under names of their own.
///
/// # Errors
/// As there.
pub fn save_checkpoint_with(
    path: &Path,
    model: &DistilBert,
    optimizer: &AdamW,
    settings: &str,
    mut tensors: Vec<(String, Tensor)>,
    mut metadata: BTreeMap<String, String>,
) -> Result<()> {
    for p in model.parameters() {
        tensors.push((p.name().to_string(), p.value().clone()));
        if let Some((m, v)) = optimizer.moments(p) {
            tensors.extend([(format!("m.{}", p.name()), m.clone()), (format!("v.{}", p.name()), v.clone())]);
        }
    }
    metadata.extend([("settings".to_string(), settings.to_string()), ("step".to_string(), optimizer.steps().to_string())]);
    write(path, &tensors, &metadata)
}

/// Goes back to what [`save_checkpoint`] wrote. Returns the file, for what was written with it.
///
/// # Errors
/// If the file is missing or wrong, or was written under other settings.
pub fn load_checkpoint(path: &Path, model: &mut DistilBert, optimizer: &mut AdamW, settings: &str) -> Result<SafeTensors> {
    let file = SafeTensors::open(path)?;
    let saved = file.metadata().get("settings").map_or("", String::as_str);
    if saved != settings {
        let problem = format!(
            "the run that was saved had other settings{}: give the same arguments, or begin anew (train: --restart; study: another --out)",
            differences(saved, settings)
        );
        return Err(Error::file(path, "settings", problem));
    }
    let step = file.metadata().get("step").and_then(|s| s.parse().ok()).ok_or_else(|| Error::file(path, "step", "is missing"))?;
    let mut moments = Vec::new();
    for p in model.parameters_mut() {
        let fitting = |name: String| -> Result<Tensor> {
            let t = file.tensor(&name)?;
            t.check_finite(|what| Error::file(path, format!("tensor {name:?}"), format!("{what}: the file is damaged; start anew")))?;
            match t.shape() == p.value().shape() && t.dtype() == p.value().dtype() {
                true => Ok(t),
                false => Err(Error::file(path, format!("tensor {name:?}"), "has another shape or type than the model's")),
            }
        };
        let value = fitting(p.name().to_string())?;
        moments.push((p.id(), (fitting(format!("m.{}", p.name()))?, fitting(format!("v.{}", p.name()))?)));
        p.set(value.to_device_of(p.value())?);
    }
    optimizer.restore(step, moments);
    Ok(file)
}

/// What differs between two JSON objects, for a message; nothing if they are no objects.
fn differences(saved: &str, now: &str) -> String {
    let parsed = |text: &str| serde_json::from_str::<serde_json::Map<String, Value>>(text);
    let (Ok(saved), Ok(now)) = (parsed(saved), parsed(now)) else { return String::new() };
    let keys: BTreeSet<&String> = saved.keys().chain(now.keys()).collect();
    let value = |of: &serde_json::Map<String, Value>, key: &str| of.get(key).map_or("not known".to_string(), Value::to_string);
    let differing = keys.into_iter().filter(|key| saved.get(*key) != now.get(*key));
    let said: Vec<String> = differing.map(|key| format!("{key} was {}, and is {}", value(&saved, key), value(&now, key))).collect();
    format!(" ({})", said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_out_of_its_range_is_named() {
        let changed = |change: fn(&mut Recipe)| {
            let mut recipe = Recipe::default();
            change(&mut recipe);
            recipe.check().map_err(|e| e.to_string())
        };
        for (change, says) in [
            ((|r| r.epochs = 0) as fn(&mut Recipe), "epochs must be at least 1 and at most 1048576, got 0"),
            (|r| r.batch = usize::MAX, "batch must be"),
            (|r| r.accumulate = (1 << 20) + 1, "accumulate must be"),
            (|r| r.nested_rank = Some(0), "nested rank must be"),
            (|r| r.lr = f64::NAN, "learning rate must be a finite number of at least 0, got NaN"),
            (|r| r.weight_decay = f64::INFINITY, "weight decay must be"),
            (|r| r.warmup = -0.1, "warm-up must lie in [0, 1], got -0.1"),
            (|r| r.clip = 0.0, "clip) must be positive, got 0"),
        ] {
            let said = changed(change).unwrap_err();
            assert!(said.contains(says), "{said} should say {says}");
        }
        changed(|r| (r.batch, r.accumulate, r.epochs, r.clip) = (1 << 20, 1 << 20, 1 << 20, f64::INFINITY)).unwrap();
        let recipe = Recipe { epochs: 1 << 20, ..Recipe::default() };
        assert_eq!(recipe.steps(33).unwrap(), 3 << 20);
        assert!(recipe.steps(4096).is_err_and(|e| e.to_string().contains("at most 524287 epochs")));
        assert!(recipe.steps(usize::MAX).is_err());
    }

    #[test]
    fn settings_that_differ_are_named() {
        assert_eq!(
            differences(r#"{"a":1,"b":"x","c":[2]}"#, r#"{"a":1,"b":"y","d":null}"#),
            r#" (b was "x", and is "y"; c was [2], and is not known; d was not known, and is null)"#
        );
        assert_eq!(differences("Recipe", "{}"), "");
    }
}
