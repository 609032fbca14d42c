//! What a run tells its observer after each step.

use super::{AdamW, evaluate};
use crate::autograd::{Tape, Var};
use crate::data::Batch;
use crate::metrics::argmax;
use crate::nn::DistilBert;
use crate::tensor::Tensor;
use crate::{Error, Result};
use serde::Serialize;

fn is_nan(number: &f64) -> bool {
    number.is_nan()
}

/// What an optimizer step did.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Number of the step in the run, from 1.
    pub step: usize,
    /// Steps of the run.
    pub steps: usize,
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Loss of the step's sequences. For classes it is in nats: their mean cross-entropy, unless the recipe has class weights or label smoothing.
    pub loss: f64,
    /// Share of the step's sequences whose label has the largest logit, in [0, 1], before the update and with dropout. NaN, and not in JSON, if the
    /// labels are no classes.
    #[serde(skip_serializing_if = "is_nan")]
    pub accuracy: f64,
    /// Global norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Tokens of the step.
    pub tokens: usize,
    /// Largest number of bytes of activations that a micro-batch of the step kept for backward.
    pub kept_bytes: usize,
    /// `None` with one rank. In JSON, its fields stand among those of the step.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RankReport>,
}

/// How several ranks shared a step. These are the only fields of a report that depend on the number of ranks.
#[derive(Clone, Debug, Serialize)]
pub struct RankReport {
    /// Number of ranks.
    #[serde(rename = "ranks")]
    pub size: usize,
    /// The rank that computed each micro-batch.
    pub computed_by: Vec<usize>,
    /// Seconds that this rank spent in the exchange of gradients: on their way, and waiting for other ranks.
    pub seconds_waiting: f64,
}

/// Watches a run. The library prints nothing itself. `()` ignores everything.
pub trait Observer {
    /// Called once for every optimizer step, in order. `false` asks the run to stop.
    ///
    /// On a CPU the report follows its step at once. On a GPU reports come late, up to 32 steps at a time, because reading a loss makes the
    /// host wait for the device. So a run on a GPU may take some more steps after a `false`; all steps are reported. To stop after a certain
    /// step, use [`Training::run`](super::Training::run).
    fn step(&mut self, report: &StepReport) -> bool;
}

impl Observer for () {
    fn step(&mut self, _: &StepReport) -> bool {
        true
    }
}

/// What is reported of a micro-batch. Loss and logits are still on their device.
pub(super) struct MicroBatch {
    pub loss: Tensor,
    logits: Tensor,
    labels: Vec<u32>,
    tokens: usize,
    kept_bytes: usize,
}

impl MicroBatch {
    /// Of the batch `packed`, after the forward pass of `model` on `tape`.
    pub fn new(model: &DistilBert, tape: &Tape, loss: &Var, logits: &Var, packed: Batch) -> MicroBatch {
        let (tokens, kept_bytes) = (packed.ids.len(), tape.kept_bytes(&model.storages()));
        MicroBatch { loss: loss.value().clone(), logits: logits.value().clone(), labels: packed.labels, tokens, kept_bytes }
    }

    /// All of it as numbers, for other ranks: loss, tokens, bytes, N, labels `[N]`, logits `[N][C]` after their number.
    pub fn numbers(&self) -> Result<Vec<f64>> {
        let mut numbers = vec![self.loss.item()?, self.tokens as f64, self.kept_bytes as f64, self.labels.len() as f64];
        numbers.extend(self.labels.iter().map(|&label| f64::from(label)));
        let logits = self.logits.to_f64()?;
        numbers.push(logits.len() as f64);
        numbers.extend(logits);
        Ok(numbers)
    }

    /// The next micro-batch of `numbers`; `None` at their end.
    pub fn from_numbers(numbers: &mut dyn Iterator<Item = f64>) -> Option<MicroBatch> {
        let [loss, tokens, kept_bytes, n] = [numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?];
        let labels: Vec<u32> = numbers.take(n as usize).map(|label| label as u32).collect();
        let count = numbers.next()? as usize;
        let logits: Vec<f64> = numbers.take(count).collect();
        let batch = labels.len().max(1);
        let shape = [batch, count / batch];
        let (loss, logits) = (Tensor::new(vec![loss], [1]).ok()?, Tensor::new(logits, shape).ok()?);
        Some(MicroBatch { loss, logits, labels, tokens: tokens as usize, kept_bytes: kept_bytes as usize })
    }
}

/// An optimizer step that is not reported yet. The norm of its gradients is still on its device. The numbers are those of [`StepReport`].
pub(super) struct Unreported {
    pub step: usize,
    pub steps: usize,
    pub epoch: usize,
    pub lr: f64,
    pub parts: Vec<MicroBatch>,
    pub ranks: Option<RankReport>,
    pub norm: Tensor,
}

/// Reports the steps, which waits for the device. Returns whether the run should go on. `lr` is the highest learning rate of the run.
pub(super) fn report_steps(
    steps: &mut Vec<Unreported>,
    lr: f64,
    model: &DistilBert,
    optimizer: &mut AdamW,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let mut go_on = true;
    for Unreported { step, steps, epoch, lr: step_lr, parts, ranks, norm } in steps.drain(..) {
        let loss = parts.iter().map(|part| part.loss.item()).sum::<Result<f64>>()?;
        let grad_norm = norm.item()?;
        if !loss.is_finite() || !grad_norm.is_finite() {
            optimizer.reset_steps(step - 1);
            return Err(not_finite(model, step, lr, &format!("the loss is {loss} and the gradient norm {grad_norm}")));
        }
        let (mut right, mut count) = (0, 0);
        for part in &parts {
            let rows = part.logits.to_f64()?;
            let answers = rows.chunks_exact(part.logits.shape().cols()).map(argmax);
            right += answers.zip(&part.labels).filter(|(answer, label)| *answer == **label as usize).count();
            count += part.labels.len();
        }
        let accuracy = right as f64 / count as f64;
        let tokens = parts.iter().map(|part| part.tokens).sum();
        let kept_bytes = parts.iter().map(|part| part.kept_bytes).max().unwrap_or(0);
        go_on &= observer.step(&StepReport { step, steps, epoch, loss, accuracy, grad_norm, lr: step_lr, tokens, kept_bytes, ranks });
    }
    Ok(go_on)
}

/// The error of a step whose loss or gradient is not finite, with the likely cause. `lr` is the highest learning rate of the run.
pub(super) fn not_finite(model: &DistilBert, step: usize, lr: f64, found: &str) -> Error {
    let bad = match model.not_finite() {
        Ok(bad) => bad,
        Err(e) => return e,
    };
    let advice = match step {
        // No update has happened yet, so the learning rate is not the cause.
        1 => "take another checkpoint".to_string(),
        _ => format!("begin anew with a learning rate lower than {lr:e}"),
    };
    Error::Training { step, problem: format!("{found}: {}; {advice}", evaluate::cause(bad)) }
}
