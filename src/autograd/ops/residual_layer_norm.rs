//! The end of a sublayer in one pass: dropout, residual connection, layer normalisation.

use super::layer_norm_shared;
use crate::autograd::{Op, Saved};
#[cfg(test)]
use crate::autograd::{Tape, Var};
use crate::tensor::{Mask, NormRows, Sequences, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// y = LN(f ⊙ x + r) γ + β; x and the residual r `[T, d]`, γ and β `[d]`, f the factors of dropout. Inputs, in order: x, r, γ, β.
///
/// With g the gradient of LN's input: dr = g and dx = f ⊙ g. The op equals [`super::Dropout`], [`super::Add`] and [`super::LayerNorm`] one after
/// another; one pass over memory replaces three.
pub struct ResidualLayerNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Dropout of x.
    pub mask: Option<Mask>,
    /// Sequence boundaries of the packed batch.
    pub sequences: Arc<Sequences>,
}

impl ResidualLayerNorm {
    /// dx, dr, dγ and dβ, where they are needed, of dy + `more`.
    fn gradients(&self, saved: Saved, dy: Tensor, more: Option<Tensor>, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let drop = self.mask.as_ref().map(|mask| (mask, &*self.sequences));
        let needs = ([needs[1], needs[0]], [needs[2], needs[3]]);
        let ([dr, dx], [dgamma, dbeta]) = layer_norm_shared::backward(self.name(), saved, dy, more, drop, needs)?;
        Ok(vec![dx, dr, dgamma, dbeta])
    }

    /// The plain form, for the tests.
    #[cfg(test)]
    fn composed(&self, tape: &mut Tape, [x, r, gamma, beta]: [&Var; 4]) -> Result<Var> {
        let dropped = tape.dropout(x, self.mask.clone(), &self.sequences)?;
        let sum = tape.add(&dropped, r)?;
        tape.layer_norm(&sum, gamma, beta, self.eps)
    }
}

impl Op for ResidualLayerNorm {
    fn name(&self) -> &'static str {
        "residual_layer_norm"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let &[x, residual, gamma, beta] = inputs else {
            return Err(Error::invalid("residual_layer_norm: takes x, the residual, gamma and beta"));
        };
        if x.shape() != residual.shape() || (self.mask.is_some() && x.shape().rows() != self.sequences.tokens()) {
            return Err(Error::shape("residual_layer_norm", "x and the residual [T, d]", &[x.shape(), residual.shape()]));
        }
        let drop = self.mask.as_ref().map(|mask| (mask, &*self.sequences));
        let rows = NormRows::Sublayer { x, residual: Some(residual), drop };
        layer_norm_shared::forward(self.name(), &rows, [gamma, beta], self.eps, [needs[0] || needs[1], needs[2]], saved)
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        self.gradients(saved, dy, None, needs)
    }

    fn adds_cotangents(&self) -> bool {
        true
    }

    fn backward_of_two(&self, saved: Saved, dy: Tensor, more: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        self.gradients(saved, dy, Some(more), needs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::random_sequences;
    use super::*;
    use crate::autograd::Parameter;
    use crate::autograd::gradcheck::random_tensor;
    use crate::tensor::philox::Stream;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_equals_its_three_parts(seed: u64) {
            let mut random = Stream::new(seed, "parts");
            let sequences = random_sequences(&mut random, 4).unwrap();
            let (t, d) = (sequences.tokens(), 2 + random.below(40));
            let p: Vec<Parameter> = [vec![t, d], vec![t, d], vec![d], vec![d]]
                .iter()
                .map(|dims| Parameter::new("p", random_tensor(&mut random, dims).unwrap()))
                .collect();
            let mask = (random.below(2) == 0).then_some(Mask { p: 0.3, seed, site: 1 });
            let dy = random_tensor(&mut random, &[t, d]).unwrap();
            let run = |fused: bool| {
                let mut tape = Tape::new();
                let v = [0, 1, 2, 3].map(|i| tape.parameter(&p[i]));
                let v = v.each_ref();
                let op = ResidualLayerNorm { eps: 1e-12, mask: mask.clone(), sequences: sequences.clone() };
                let y = if fused { tape.apply(op, &v) } else { op.composed(&mut tape, v) }.unwrap();
                let grads = tape.vjp(&y, dy.clone()).unwrap();
                let mut all = y.value().to_f64().unwrap();
                p.iter().for_each(|p| all.extend(grads.get(p).unwrap().to_f64().unwrap()));
                all
            };
            for (a, b) in run(true).iter().zip(run(false)) {
                prop_assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{a} {b}");
            }
        }
    }
}
