//! Binary cross-entropy of logits and targets: the loss for texts that can have several labels, or none.

use super::target_loss;
use crate::Result;
use crate::autograd::{Op, Saved, Tape, Var};
use crate::tensor::Tensor;

/// `L = −(1/N) Σ_b Σ_c (y ln σ(z) + (1 − y) ln(1 − σ(z)))[b, c]` with σ(z) = 1 / (1 + e⁻ᶻ); logits z and targets y `[B, C]`, L one element.
/// dz = (σ(z) − y) dL / N and dy = −z dL / N.
///
/// A term is max(z, 0) − z y + ln(1 + e^−|z|), which does not overflow. With N = B · C it is PyTorch's `BCEWithLogitsLoss`, which transformers chooses
/// for `problem_type` "multi_label_classification".
#[derive(Clone, Copy, Debug)]
pub struct BceWithLogits {
    /// N: for a mean, B · C; for one micro-batch of several, that of the whole step.
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
        let term = |z: f64, y: f64| positive(z) - z * y + (-z.abs()).exp().ln_1p();
        target_loss::forward(self.name(), inputs, needs, saved, self.divisor, term)
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        target_loss::backward(saved, &dy, needs, self.divisor, |z, y| [sigmoid(z) - y, -z])
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
