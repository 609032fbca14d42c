//! Layer normalisation. Ba, Kiros & Hinton 2016, <https://arxiv.org/abs/1607.06450>, section 3.

use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::simd::{self, Kernel};
use crate::tensor::{Accum, Scalar, Shape, Tensor, alloc, math, rows};
use crate::{Error, Result, dispatch};
use std::rc::Rc;
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// y = h γ + β with h = (x − mean) rstd over the last dimension, rstd = 1/√(var + eps); x `[.., d]`, γ and β `[d]`.
///
/// With q = dy γ: dx = rstd (q − mean(q) − h mean(q h)), dγ = Σ dy h, dβ = Σ dy. h and rstd are kept.
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
        dispatch!("layer_norm", x.dtype(), T => {
            let x_host = x.host::<T>()?;
            let d = x.shape().cols();
            forward::<T>("layer_norm", x.shape(), [gamma, beta], self.eps, [needs[0], needs[1]], saved, |first, sums| {
                sums.iter_mut().zip(&x_host[first * d..]).for_each(|(s, x)| *s = x.widen());
            })
        })
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        dispatch!("layer_norm", dy.dtype(), T => Ok(backward::<T>(saved, dy, [needs[0], needs[1], needs[2]])?.into()))
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let [x, gamma, beta] = inputs else { return Err(Error::invalid("layer_norm: takes x, gamma and beta")) };
        let rows = launch::NormRows::Sublayer { x, residual: None, drop: None };
        forward_on(device, &rows, [gamma, beta], self.eps, [needs[0], needs[1]], saved)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(launch::layer_norm_backward(device, saved, &dy, [needs[0], needs[1], needs[2]])?.into())
    }
}

/// Normalises rows that `load(first row, rows)` writes; keeps what a gradient of x or γ takes.
pub(super) fn forward<T: Scalar>(
    op: &'static str,
    shape: &Shape,
    [gamma, beta]: [&Tensor; 2],
    eps: f64,
    [x_trains, gamma_trains]: [bool; 2],
    saved: &mut Saved,
    load: impl Fn(usize, &mut [T::Acc]) + Sync + Send,
) -> Result<Tensor> {
    let (n, d) = (shape.rows(), shape.cols());
    if gamma.dims() != [d] || beta.dims() != [d] {
        return Err(Error::shape(op, "x [.., d], gamma [d] and beta [d]", &[shape, gamma.shape(), beta.shape()]));
    }
    let (g, b, eps) = (gamma.to_accum::<T::Acc>()?, beta.to_accum::<T::Acc>()?, T::Acc::of(eps));
    let keep = x_trains || gamma_trains;
    let (mut y, mut h) = (alloc::<T>(n * d), alloc::<T>(if keep { n * d } else { 0 }));
    let mut rstd = alloc::<T::Acc>(if keep { n } else { 0 });
    rows::for_each3((&mut y, d), (&mut h, d), (&mut rstd, 1), |first, y, h, rstd| {
        let mut sums = alloc::<T::Acc>(y.len());
        load(first, &mut sums);
        let (mut h, mut rstd) = (h.chunks_exact_mut(d.max(1)), rstd.iter_mut());
        for (y, row) in y.chunks_exact_mut(d.max(1)).zip(sums.chunks_exact_mut(d.max(1))) {
            let r = simd::dispatch(Normalise { row, gamma: &g, beta: &b, eps, y, kept: h.next().unwrap_or_default() });
            rstd.next().into_iter().for_each(|to| *to = r);
        }
    });
    if keep {
        saved.keep("h", &Tensor::new(h, [n, d])?);
    }
    if x_trains {
        saved.keep("rstd", &Tensor::new(rstd, [n])?);
        saved.keep("gamma", gamma);
    }
    Tensor::new(y, shape)
}

/// `row` becomes h and is rounded into y = h γ + β and, if it is wanted, `kept`; returns rstd.
struct Normalise<'a, T: Scalar> {
    row: &'a mut [T::Acc],
    gamma: &'a [T::Acc],
    beta: &'a [T::Acc],
    eps: T::Acc,
    y: &'a mut [T],
    kept: &'a mut [T],
}

impl<T: Scalar> Kernel for Normalise<'_, T> {
    type Output = T::Acc;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> T::Acc {
        let n = T::Acc::of(self.row.len() as f64);
        let mean = math::sum(self.row, |x| x) / n;
        let var = math::sum(self.row, |x| (x - mean) * (x - mean)) / n;
        let rstd = T::Acc::ONE / (var + self.eps).sqrt();
        for x in &mut *self.row {
            *x = (*x - mean) * rstd;
        }
        for (((y, &h), &g), &b) in self.y.iter_mut().zip(&*self.row).zip(self.gamma).zip(self.beta) {
            *y = T::narrow(h * g + b);
        }
        for (kept, &h) in self.kept.iter_mut().zip(&*self.row) {
            *kept = T::narrow(h);
        }
        rstd
    }
}

/// [`forward`] on a GPU.
#[cfg(feature = "cuda")]
pub(super) fn forward_on(
    device: &Arc<Device>,
    rows: &launch::NormRows,
    weights: [&Tensor; 2],
    eps: f64,
    [x_trains, gamma_trains]: [bool; 2],
    saved: &mut Saved,
) -> Result<Tensor> {
    let (y, h, rstd) = launch::layer_norm(device, rows, weights, eps, [x_trains || gamma_trains, x_trains])?;
    h.iter().for_each(|h| saved.keep("h", h));
    if let Some(rstd) = &rstd {
        saved.keep("rstd", rstd);
        saved.keep("gamma", weights[0]);
    }
    Ok(y)
}

/// dx, dγ, dβ.
pub(super) fn backward<T: Scalar>(mut saved: Saved, dy: Tensor, needs: [bool; 3]) -> Result<[Option<Tensor>; 3]> {
    let (n, d, shape) = (dy.shape().rows(), dy.shape().cols(), dy.shape().clone());
    let h = if needs[0] || needs[1] { Some(saved.take("h")?) } else { None };
    let h = h.as_ref().map(|h| h.host::<T>()).transpose()?.unwrap_or_default();
    let sums = |rule: &(dyn Fn(usize, &mut [T::Acc]) + Sync)| -> Result<Tensor> {
        let part = |range: std::ops::Range<usize>| {
            let mut sum = crate::tensor::zeroed::<T::Acc>(d);
            range.for_each(|row| rule(row, &mut sum));
            sum
        };
        let total = rows::reduce(n, d, part, |sum, part| sum.iter_mut().zip(&*part).for_each(|(s, &p)| *s += p));
        Tensor::new(total.unwrap_or_else(|| crate::tensor::zeroed(d)), [d])
    };
    let from = dy.host::<T>()?;
    let dbeta = needs[2]
        .then(|| {
            sums(&|row, sum| {
                sum.iter_mut().zip(&from[row * d..]).for_each(|(s, dy)| *s += dy.widen());
            })
        })
        .transpose()?;
    let dgamma = needs[1]
        .then(|| {
            sums(&|row, sum| {
                sum.iter_mut().zip(&h[row * d..]).zip(&from[row * d..]).for_each(|((s, h), dy)| *s += dy.widen() * h.widen());
            })
        })
        .transpose()?;
    if !needs[0] {
        return Ok([None, dgamma, dbeta]);
    }
    let (rstd, gamma) = (saved.take("rstd")?, saved.take("gamma")?.to_accum::<T::Acc>()?);
    let rstd = rstd.host::<T::Acc>()?;
    let mut dx = dy.into_host::<T>()?;
    rows::for_each(&mut dx, d, |first, dx| {
        let rows = dx.chunks_exact_mut(d.max(1)).zip(h[first * d..].chunks_exact(d.max(1))).zip(&rstd[first..]);
        rows.for_each(|((dx, h), &rstd)| simd::dispatch(Backward::<T> { dx, h, gamma: &gamma, rstd }));
    });
    Ok([Some(Tensor::new(dx, shape)?), dgamma, dbeta])
}

/// A row's gradient; `dx` holds dy on entry.
struct Backward<'a, T: Scalar> {
    dx: &'a mut [T],
    h: &'a [T],
    gamma: &'a [T::Acc],
    rstd: T::Acc,
}

impl<T: Scalar> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Backward { dx, h, gamma, rstd } = self;
        let n = T::Acc::of(dx.len() as f64);
        let mean_q = math::sum2(dx, gamma, |dy, g| dy.widen() * g) / n;
        let mean_qh = math::sum3(dx, gamma, h, |dy, g, h| dy.widen() * g * h.widen()) / n;
        for ((dx, &h), &g) in dx.iter_mut().zip(h).zip(gamma) {
            *dx = T::narrow(rstd * (dx.widen() * g - mean_q - h.widen() * mean_qh));
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
