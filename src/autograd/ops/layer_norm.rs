//! Layer normalisation. Ba, Kiros & Hinton 2016, <https://arxiv.org/abs/1607.06450>, section 3.

use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
use crate::tensor::{Float, Tensor, rows, take};
use crate::{Error, Result, dispatch};
use std::rc::Rc;

/// y = (x − mean) rstd γ + β over the last dimension, rstd = 1/√(var + eps); x `[.., d]`, γ and β `[d]`.
///
/// With h = (x − mean) rstd and q = dy γ: dx = rstd (q − mean(q) − h mean(q h)), dγ = Σ dy h, dβ = Σ dy.
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let [x, gamma, beta] = inputs else { return Err(Error::invalid("layer_norm: takes x, gamma and beta")) };
        let d = x.shape().cols();
        if gamma.dims() != [d] || beta.dims() != [d] {
            return Err(Error::shape("layer_norm", "x [.., d], gamma [d] and beta [d]", &[x.shape(), gamma.shape(), beta.shape()]));
        }
        dispatch!("layer_norm", x.dtype(), T => {
            let n = x.shape().rows();
            let (mut y, mut stats) = (take::<T>(x.shape().len()), take::<T>(2 * n));
            let (g, b, from) = (gamma.host::<T>()?, beta.host::<T>()?, x.host::<T>()?);
            rows::for_each2(&mut y, d, &mut stats, 2, |first, y, stats| {
                forward_rows(&from[first * d..], g, b, T::of(self.eps), y, stats);
            });
            saved.keep_if(needs[0] || needs[1], "x", x);
            saved.keep_if(needs[0] || needs[1], "stats", &Tensor::new(stats, [n, 2])?);
            saved.keep_if(needs[0], "gamma", gamma);
            Tensor::new(y, x.shape())
        })
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let d = dy.shape().cols();
        let (n, shape) = (dy.shape().rows(), dy.shape().clone());
        dispatch!("layer_norm", dy.dtype(), T => {
            let normalised = if needs[0] || needs[1] { Some((saved.take("x")?, saved.take("stats")?)) } else { None };
            let normalised = match &normalised {
                Some((x, stats)) => Some((x.host::<T>()?, stats.host::<T>()?)),
                None => None,
            };
            let sums = |rule: &(dyn Fn(usize, &mut [T]) + Sync)| -> Result<Tensor> {
                let part = |range: std::ops::Range<usize>| {
                    let mut sum = crate::tensor::zeroed::<T>(d);
                    range.for_each(|row| rule(row, &mut sum));
                    sum
                };
                let total = rows::reduce(n, d, part, |sum, part| sum.iter_mut().zip(&*part).for_each(|(s, &p)| *s += p));
                Tensor::new(total.unwrap_or_else(|| crate::tensor::zeroed(d)), [d])
            };
            let from = dy.host::<T>()?;
            let dbeta = needs[2].then(|| sums(&|row, sum| {
                sum.iter_mut().zip(&from[row * d..][..d]).for_each(|(s, &dy)| *s += dy);
            })).transpose()?;
            let dgamma = match normalised {
                Some((x, stats)) if needs[1] => Some(sums(&|row, sum| {
                    let (mean, rstd) = (stats[2 * row], stats[2 * row + 1]);
                    let (x, dy) = (&x[row * d..][..d], &from[row * d..][..d]);
                    sum.iter_mut().zip(x).zip(dy).for_each(|((s, &x), &dy)| *s += dy * (x - mean) * rstd);
                })?),
                _ => None,
            };
            let dx = match normalised {
                Some((x, stats)) if needs[0] => {
                    let gamma = saved.take("gamma")?;
                    let gamma = gamma.host::<T>()?;
                    let mut dx = dy.into_host::<T>()?;
                    rows::for_each(&mut dx, d, |first, dx| backward_rows(&x[first * d..], gamma, &stats[2 * first..], dx));
                    Some(Tensor::new(dx, shape)?)
                }
                _ => None,
            };
            Ok(vec![dx, dgamma, dbeta])
        })
    }
}

fn forward_rows<T: Float>(x: &[T], gamma: &[T], beta: &[T], eps: T, y: &mut [T], stats: &mut [T]) {
    let d = gamma.len();
    let n = T::of(d as f64);
    for ((x, y), stats) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(stats.chunks_exact_mut(2)) {
        let mean = x.iter().copied().sum::<T>() / n;
        let var = x.iter().map(|&x| (x - mean) * (x - mean)).sum::<T>() / n;
        let rstd = T::ONE / (var + eps).sqrt();
        for (((y, &x), &g), &b) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
            *y = (x - mean) * rstd * g + b;
        }
        stats.copy_from_slice(&[mean, rstd]);
    }
}

/// `dx` holds dy on entry.
fn backward_rows<T: Float>(x: &[T], gamma: &[T], stats: &[T], dx: &mut [T]) {
    let d = gamma.len();
    let n = T::of(d as f64);
    for ((x, dx), stats) in x.chunks_exact(d).zip(dx.chunks_exact_mut(d)).zip(stats.chunks_exact(2)) {
        let (mean, rstd) = (stats[0], stats[1]);
        let (mut mean_q, mut mean_qh) = (T::ZERO, T::ZERO);
        for ((dy, &x), &g) in dx.iter().zip(x).zip(gamma) {
            let q = *dy * g;
            mean_q += q;
            mean_qh += q * (x - mean) * rstd;
        }
        (mean_q, mean_qh) = (mean_q / n, mean_qh / n);
        for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(gamma) {
            *dx = rstd * (*dx * g - mean_q - (x - mean) * rstd * mean_qh);
        }
    }
}

impl Tape<'_> {
    /// Layer normalisation; see [`LayerNorm`].
    ///
    /// # Errors
    /// If γ and β are not as wide as x.
    pub fn layer_norm(&mut self, x: &Var, gamma: &Var, beta: &Var, eps: f64) -> Result<Var> {
        self.apply(LayerNorm { eps }, &[x, gamma, beta])
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "LayerNorm",
        tolerance: 1e-6,
        case: |random| {
            // Two columns or more, and a visible eps: with one column, or two equal ones, y does not depend on x.
            let (n, d) = (random_size(random, 5), 2 + random.below(9));
            let inputs = vec![random_tensor(random, &[n, d])?, random_tensor(random, &[d])?, random_tensor(random, &[d])?];
            Ok(Case { op: Rc::new(LayerNorm { eps: 0.1 }), inputs })
        },
    }
}
