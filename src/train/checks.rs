//! What the training loop checks before it goes on.

use super::Ranks;
use super::evaluate::cause;
use super::observer::{MicroBatch, not_finite};
use crate::autograd::Grads;
use crate::nn::DistilBert;
use crate::{Error, Result};

/// Checks that each of several ranks has a micro-batch in a step of `accumulate` of them.
pub(super) fn check_ranks(ranks: &dyn Ranks, accumulate: usize) -> Result<()> {
    if ranks.size() > accumulate {
        let (n, parts) = (ranks.size(), accumulate);
        let advice = "give a larger --accumulate, with a smaller --batch if the step should stay the same, or start fewer ranks";
        return Err(Error::invalid(format!("{n} ranks share the micro-batches of a step, and --accumulate {parts} is fewer: {advice}")));
    }
    Ok(())
}

/// Refuses a loss that is not finite, before it changes anything. On a GPU this would wait for the device: there, the loss is checked when
/// it is reported, and the update itself skips gradients whose norm is not finite.
pub(super) fn check_losses(model: &DistilBert, parts: &[MicroBatch], step: usize, lr: f64) -> Result<()> {
    for part in parts.iter().filter(|part| part.loss.on_host()) {
        let loss = part.loss.item()?;
        if !loss.is_finite() {
            return Err(not_finite(model, step, lr, &format!("the loss is {loss}")));
        }
    }
    Ok(())
}

/// Checks in the first step that every parameter has a gradient, and that it is finite.
pub(super) fn check_reached(model: &DistilBert, grads: &Grads) -> Result<()> {
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
