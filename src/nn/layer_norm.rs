//! Layer normalisation with its weights.

use super::{Pass, Weight, WeightMut, WeightRef};
use crate::Result;
use crate::autograd::ops::ResidualLayerNorm;
use crate::autograd::{Tape, Var};
use crate::tensor::Mask;

/// See [`crate::autograd::ops::LayerNorm`].
pub struct LayerNorm {
    /// γ `[d]`.
    pub gamma: Weight,
    /// β `[d]`.
    pub beta: Weight,
}

/// Added to the variance, as in the reference implementation.
pub const EPS: f64 = 1e-12;

impl LayerNorm {
    /// y of x `[.., d]`.
    ///
    /// # Errors
    /// If x is not d wide.
    pub fn forward<'m>(&'m self, tape: &mut Tape<'m>, x: &Var) -> Result<Var> {
        let (gamma, beta) = (self.gamma.var(tape)?, self.beta.var(tape)?);
        tape.enter(self.gamma.name().trim_end_matches(".weight"));
        tape.layer_norm(x, &gamma, &beta, EPS)
    }

    /// LN(drop(x) + residual), all `[T, d]`, as one op.
    ///
    /// # Errors
    /// If x and the residual are not d wide.
    pub fn after_residual<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, x: &Var, residual: &Var, mask: Option<Mask>) -> Result<Var> {
        let (gamma, beta) = (self.gamma.var(tape)?, self.beta.var(tape)?);
        tape.enter(self.gamma.name().trim_end_matches(".weight"));
        tape.apply(ResidualLayerNorm { eps: EPS, mask, sequences: pass.sequences.clone() }, &[x, residual, &gamma, &beta])
    }

    pub(super) fn visit<'a>(&'a self, f: &mut dyn FnMut(WeightRef<'a>)) {
        [&self.gamma, &self.beta].into_iter().for_each(|w| f(WeightRef::Base(w)));
    }

    pub(super) fn visit_mut<'a>(&'a mut self, f: &mut dyn FnMut(WeightMut<'a>)) {
        [&mut self.gamma, &mut self.beta].into_iter().for_each(|w| f(WeightMut::Base(w)));
    }
}
