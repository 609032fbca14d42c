//! A layer norm with its weights. Ba et al. 2016, <https://arxiv.org/abs/1607.06450>.

use super::{Pass, Weight};
use crate::Result;
use crate::autograd::ops::ResidualLayerNorm;
use crate::autograd::{Tape, Var};
use crate::tensor::Mask;

/// y = γ ⊙ (x − mean) / √(variance + eps) + β, mean and variance of each row; see [`crate::autograd::ops::LayerNorm`].
pub struct LayerNorm {
    /// γ `[d]`.
    pub gamma: Weight,
    /// β `[d]`.
    pub beta: Weight,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// y of x, both `[.., d]`.
    ///
    /// # Errors
    /// If the rows of x do not have d columns.
    pub fn forward<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, x: &Var) -> Result<Var> {
        let [gamma, beta] = self.on(tape, pass)?;
        tape.layer_norm(x, &gamma, &beta, self.eps)
    }

    /// y of drop(x) + residual, all `[T, d]`. [`ResidualLayerNorm`] is one op that equals dropout, sum and layer norm one after another
    /// (its test `it_equals_its_three_parts`).
    ///
    /// # Errors
    /// If the rows of x and of the residual do not have d columns.
    pub fn after_residual<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, x: &Var, residual: &Var, mask: Option<Mask>) -> Result<Var> {
        let [gamma, beta] = self.on(tape, pass)?;
        tape.apply(ResidualLayerNorm { eps: self.eps, mask, sequences: pass.sequences.clone() }, &[x, residual, &gamma, &beta])
    }

    fn on<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass) -> Result<[Var; 2]> {
        let weights = [self.gamma.var(tape, pass)?, self.beta.var(tape, pass)?];
        tape.enter(self.gamma.name().trim_end_matches(".weight"));
        Ok(weights)
    }
}
