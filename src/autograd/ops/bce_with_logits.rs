//! Binary cross-entropy of logits and targets: the loss for texts that can have several labels, or none.

use crate::autograd::{Op, Saved, Tape, Var};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// `L = −(1/N) Σ_b Σ_c (y ln σ(z) + (1 − y) ln(1 − σ(z)))[b, c]` with σ(z) = 1 / (1 + e⁻ᶻ); logits z and targets y `[B, C]`, L one element.
/// dz = (σ(z) − y) dL / N and dy = −z dL / N.
///
/// A term is max(z, 0) − z y + ln(1 + e^−|z|), which does not overflow. With N = B · C it is PyTorch's `BCEWithLogitsLoss`, which transformers chooses
/// for `problem_type` "multi_label_classification".
///
/// Computed in f64 on the host: a GPU sends its B·C logits there, and waits.
#[derive(Clone, Copy, Debug)]
pub struct BceWithLogits {
    /// N: for a mean, B · C; for one micro-batch of several, that of the whole batch.
    pub divisor: f64,
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// `(z > 0) z`, and a NaN stays one.
fn positive(z: f64) -> f64 {
    if z < 0.0 { 0.0 } else { z }
}

impl Op for BceWithLogits {
    fn name(&self) -> &'static str {
        "bce_with_logits"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let &[logits, targets] = inputs else { return Err(Error::invalid("bce_with_logits: takes logits and targets")) };
        if logits.shape() != targets.shape() || logits.dtype() == DType::U32 {
            return Err(Error::shape("bce_with_logits", "logits and targets [B, C]", &[logits.shape(), targets.shape()]));
        }
        saved.keep_if(needs[0] || needs[1], "logits", logits);
        saved.keep_if(needs[0], "targets", targets);
        let terms = logits.to_f64()?.into_iter().zip(targets.to_f64()?);
        let sum: f64 = terms.map(|(z, y)| positive(z) - z * y + (-z.abs()).exp().ln_1p()).sum();
        Tensor::from_f64(vec![sum / self.divisor], logits.dtype(), [1])?.to_device_of(logits)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let logits = saved.take("logits")?;
        let (z, scale) = (logits.to_f64()?, dy.to_f64()?[0] / self.divisor);
        let as_logits = |values: Vec<f64>| Tensor::from_f64(values, logits.dtype(), logits.shape())?.to_device_of(&logits);
        let targets = saved.take_if(needs[0], "targets")?;
        let dz = targets.map(|targets| as_logits(z.iter().zip(targets.to_f64()?).map(|(z, y)| (sigmoid(*z) - y) * scale).collect()));
        let dtargets = needs[1].then(|| as_logits(z.iter().map(|z| -z * scale).collect()));
        Ok(vec![dz.transpose()?, dtargets.transpose()?])
    }
}

impl Tape<'_> {
    /// Binary cross-entropy of logits and targets, both `[B, C]`, summed and divided by `divisor`: see [`BceWithLogits`].
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn bce_with_logits(&mut self, logits: &Var, targets: &Tensor, divisor: f64) -> Result<Var> {
        let targets = self.constant(&targets.to_dtype(logits.value().dtype())?);
        self.apply(BceWithLogits { divisor }, &[logits, &targets])
    }
}
