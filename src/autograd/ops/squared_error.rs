//! The squared error: the loss of regression.

use super::target_loss;
use crate::Result;
use crate::autograd::{Op, Saved, Tape, Var};
use crate::tensor::Tensor;

/// `L = (1/N) Σ_b Σ_c (z − y)²[b, c]`; numbers z and targets y `[B, C]`, L one element. dz = 2 (z − y) dL / N and dy = −dz.
///
/// With N = B · C it is PyTorch's `MSELoss`, which transformers chooses for `problem_type` "regression".
#[derive(Clone, Copy, Debug)]
pub struct SquaredError {
    /// N: for a mean, B · C; for one micro-batch of several, that of the whole step.
    pub divisor: f64,
}

impl Op for SquaredError {
    fn name(&self) -> &'static str {
        "squared_error"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        target_loss::forward(self.name(), inputs, needs, saved, self.divisor, |z, y| (z - y) * (z - y))
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        target_loss::backward(saved, &dy, needs, self.divisor, |z, y| [2.0 * (z - y), 2.0 * (y - z)])
    }
}

impl Tape<'_> {
    /// The squared error of numbers z and targets, both `[B, C]`, summed and divided by `divisor`: see [`SquaredError`].
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn squared_error(&mut self, z: &Var, targets: &Tensor, divisor: f64) -> Result<Var> {
        let targets = self.constant(&targets.to_dtype(z.value().dtype())?);
        self.apply(SquaredError { divisor }, &[z, &targets])
    }
}
