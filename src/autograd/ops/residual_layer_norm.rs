//! The end of a sublayer in one pass: dropout, the residual connection, layer normalisation.

use super::dropout::random_sequences;
use super::layer_norm;
use crate::autograd::gradcheck::{Case, Suite, random_tensor};
use crate::autograd::{Op, Saved};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::simd::vectorised;
use crate::tensor::{Mask, Scalar, Sequences, Tensor, alloc};
use crate::{Error, Result, dispatch};
use std::rc::Rc;
use std::sync::Arc;

/// y = LN(drop(x) + r) γ + β; x and the residual r `[T, d]`, γ and β `[d]`. Equal to [`super::Dropout`], [`super::Add`] and
/// [`super::LayerNorm`] one after another, without their passes over memory.
///
/// With g the gradient of LN's input: dr = g, dx = f ⊙ g, f the dropout factors.
///
/// Inputs, in order: x, r, γ, β.
pub struct ResidualLayerNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Dropout of x.
    pub mask: Option<Mask>,
    /// Sequence boundaries of the packed batch.
    pub sequences: Arc<Sequences>,
}

impl ResidualLayerNorm {
    /// x, the residual, γ and β, if the first two fit.
    fn check<'a>(&self, inputs: &[&'a Tensor]) -> Result<[&'a Tensor; 4]> {
        let &[x, residual, gamma, beta] = inputs else {
            return Err(Error::invalid("residual_layer_norm: takes x, the residual, gamma and beta"));
        };
        if x.shape() != residual.shape() || (self.mask.is_some() && x.shape().rows() != self.sequences.tokens()) {
            return Err(Error::shape("residual_layer_norm", "x and the residual [T, d]", &[x.shape(), residual.shape()]));
        }
        Ok([x, residual, gamma, beta])
    }
}

impl Op for ResidualLayerNorm {
    fn name(&self) -> &'static str {
        "residual_layer_norm"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let [x, residual, gamma, beta] = self.check(inputs)?;
        let d = x.shape().cols();
        dispatch!("residual_layer_norm", x.dtype(), T => {
            let (x_host, r_host) = (x.host::<T>()?, residual.host::<T>()?);
            let trains = [needs[0] || needs[1], needs[2]];
            layer_norm::forward::<T>("residual_layer_norm", x.shape(), [gamma, beta], self.eps, trains, saved, |first, sums| {
                let (x, r) = (&x_host[first * d..][..sums.len()], &r_host[first * d..][..sums.len()]);
                match &self.mask {
                    Some(mask) => {
                        mask.factor_rows(&self.sequences, first, d, sums);
                        vectorised(|| sums.iter_mut().zip(x).zip(r).for_each(|((s, x), r)| *s = *s * x.widen() + r.widen()));
                    }
                    None => vectorised(|| sums.iter_mut().zip(x).zip(r).for_each(|((s, x), r)| *s = x.widen() + r.widen())),
                }
            })
        })
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        dispatch!("residual_layer_norm", dy.dtype(), T => {
            let [dr, dgamma, dbeta] = layer_norm::backward::<T>(saved, dy, [needs[0] || needs[1], needs[2], needs[3]])?;
            let dx = match (&dr, &self.mask) {
                (Some(dr), Some(mask)) if needs[0] => {
                    let mut dx = alloc::<T>(dr.shape().len());
                    mask.apply(&self.sequences, dr.shape().cols(), dr.host::<T>()?, &mut dx);
                    Some(Tensor::new(dx, dr.shape())?)
                }
                (dr, _) => (*dr).clone().filter(|_| needs[0]),
            };
            Ok(vec![dx, dr.filter(|_| needs[1]), dgamma, dbeta])
        })
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let [x, residual, gamma, beta] = self.check(inputs)?;
        let drop = self.mask.as_ref().map(|mask| (mask, &*self.sequences));
        let rows = launch::NormRows::Sublayer { x, residual: Some(residual), drop };
        layer_norm::forward_on(device, &rows, [gamma, beta], self.eps, [needs[0] || needs[1], needs[2]], saved)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let [dr, dgamma, dbeta] = launch::layer_norm_backward(device, saved, &dy, [needs[0] || needs[1], needs[2], needs[3]])?;
        let dx = match (&dr, &self.mask) {
            (Some(dr), Some(mask)) if needs[0] => Some(launch::mask_rows(device, mask, &self.sequences, dr)?),
            (dr, _) => (*dr).clone().filter(|_| needs[0]),
        };
        Ok(vec![dx, dr.filter(|_| needs[1]), dgamma, dbeta])
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "ResidualLayerNorm",
        tolerance: 1e-6,
        case: |random| {
            let sequences = random_sequences(random, 4)?;
            let (t, d) = (sequences.tokens(), 2 + random.below(9));
            let mut draw = |dims: &[usize]| random_tensor(random, dims);
            let inputs = vec![draw(&[t, d])?, draw(&[t, d])?, draw(&[d])?, draw(&[d])?];
            let mask = Mask { p: 0.3, seed: u64::from(random.word()), site: 1 };
            let mask = (random.below(2) == 0).then_some(mask);
            Ok(Case { op: Rc::new(ResidualLayerNorm { eps: 0.1, mask, sequences }), inputs })
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::{Parameter, Tape};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_equals_its_three_parts(seed: u64) {
            let mut random = crate::tensor::philox::Stream::new(seed, "parts");
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
                let v: Vec<_> = p.iter().map(|p| tape.parameter(p)).collect();
                let y = if fused {
                    let op = ResidualLayerNorm { eps: 1e-12, mask: mask.clone(), sequences: sequences.clone() };
                    tape.apply(op, &v.iter().collect::<Vec<_>>()).unwrap()
                } else {
                    let dropped = tape.dropout(&v[0], mask.clone(), &sequences).unwrap();
                    let sum = tape.add(&dropped, &v[1]).unwrap();
                    tape.layer_norm(&sum, &v[2], &v[3], 1e-12).unwrap()
                };
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
