//! Layer normalisation of rows: groups of rows on all threads, each row in one pass of vector code. The formulas are in `layer_norm.rs`.

use super::embedding_rows::picked;
use super::linear_fast::{column_sums, sum_rows};
use crate::tensor::gemm::Mat;
use crate::tensor::simd::{self, Kernel, vectorised};
use crate::tensor::{Accum, NormRows, Scalar, Shape, Tensor, alloc, math, rows};
use crate::{Error, Result};

/// y `[.., d]`, and where they are kept, x̂ `[n, d]` and rstd `[n]`.
pub type Normalised = (Tensor, Option<Tensor>, Option<Tensor>);

/// Writes the rows s from a first row on, in the accumulator's type.
type Load<'a, S> = Box<dyn Fn(usize, &mut [S]) + Sync + Send + 'a>;

/// The shape of s, and the function that computes its rows.
fn load<'a, T: Scalar>(rows: &NormRows<'a>) -> Result<(Shape, Load<'a, T::Acc>)> {
    match *rows {
        NormRows::Sublayer { x, residual, drop } => {
            let (shape, d) = (x.shape().clone(), x.shape().cols());
            let (all_x, all_r) = (x.host::<T>()?, residual.map(Tensor::host::<T>).transpose()?);
            let load = move |first: usize, s: &mut [T::Acc]| {
                let x = &all_x[first * d..][..s.len()];
                let r = all_r.map(|r| &r[first * d..][..s.len()]);
                if let Some((mask, sequences)) = drop {
                    mask.factor_rows(sequences, first, d, s); // f
                }
                vectorised(|| match (drop.is_some(), r) {
                    (true, Some(r)) => s.iter_mut().zip(x).zip(r).for_each(|((s, x), r)| *s = *s * x.widen() + r.widen()),
                    (true, None) => s.iter_mut().zip(x).for_each(|(s, x)| *s *= x.widen()),
                    (false, Some(r)) => s.iter_mut().zip(x).zip(r).for_each(|((s, x), r)| *s = x.widen() + r.widen()),
                    (false, None) => s.iter_mut().zip(x).for_each(|(s, x)| *s = x.widen()),
                });
            };
            Ok((shape, Box::new(load)))
        }
        NormRows::Embeddings { ids, words, positions, prompt, sequences, .. } => {
            let (ids, d, prompt_rows) = (ids.host::<u32>()?, words.shape().cols(), prompt.map_or(0, |p| p.shape().rows()));
            // Without a prompt, no row is taken from the third table.
            let tables = [Mat::<T::Acc>::of(words)?, Mat::of(positions)?, Mat::of(prompt.unwrap_or(words))?];
            let load = move |first: usize, s: &mut [T::Acc]| {
                for (i, s) in s.chunks_exact_mut(d.max(1)).enumerate() {
                    let picked = picked(sequences, prompt_rows, ids, first + i);
                    let [own, position] = picked.map(|(table, row)| tables[table].rows_from(row as usize, 1).to_accum());
                    s.iter_mut().zip(&*own).zip(&*position).for_each(|((s, &own), &position)| *s = own + position);
                }
            };
            Ok((Shape::from([sequences.tokens(), d]), Box::new(load)))
        }
    }
}

/// Normalises rows. Returns y, and x̂ and rstd if they are kept.
pub fn forward<T: Scalar>(
    op: &'static str,
    rows: &NormRows,
    [gamma, beta]: [&Tensor; 2],
    eps: f64,
    [keep_x_hat, keep_rstd]: [bool; 2],
) -> Result<Normalised> {
    let (shape, load) = load::<T>(rows)?;
    let (n, d) = (shape.rows(), shape.cols());
    if gamma.dims() != [d] || beta.dims() != [d] {
        return Err(Error::shape(op, "x [.., d], gamma [d] and beta [d]", &[&shape, gamma.shape(), beta.shape()]));
    }
    let (g, b, eps) = (gamma.to_accum::<T::Acc>()?, beta.to_accum::<T::Acc>()?, T::Acc::of(eps));
    let (mut y, mut x_hat) = (alloc::<T>(n * d), alloc::<T>(if keep_x_hat { n * d } else { 0 }));
    let mut rstd = alloc::<T::Acc>(if keep_rstd { n } else { 0 });
    rows::for_each3((&mut y, d), (&mut x_hat, d), (&mut rstd, 1), |first, y, x_hat, rstd| {
        let mut loaded = alloc::<T::Acc>(y.len());
        load(first, &mut loaded);
        let (mut x_hat, mut rstd) = (x_hat.chunks_exact_mut(d.max(1)), rstd.iter_mut());
        for (y, row) in y.chunks_exact_mut(d.max(1)).zip(loaded.chunks_exact_mut(d.max(1))) {
            let r = simd::dispatch(Normalise { row, gamma: &g, beta: &b, eps, y, kept: x_hat.next().unwrap_or_default() });
            rstd.next().into_iter().for_each(|to| *to = r);
        }
    });
    let x_hat = keep_x_hat.then(|| Tensor::new(x_hat, [n, d])).transpose()?;
    let rstd = keep_rstd.then(|| Tensor::new(rstd, [n])).transpose()?;
    Ok((Tensor::new(y, shape)?, x_hat, rstd))
}

/// Turns `row` from x to x̂, rounds x̂ ⊙ γ + β into `y`, and x̂ into `kept` if that is not empty. Returns rstd.
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
        for (((y, &x_hat), &g), &b) in self.y.iter_mut().zip(&*self.row).zip(self.gamma).zip(self.beta) {
            *y = T::narrow(x_hat * g + b);
        }
        for (kept, &x_hat) in self.kept.iter_mut().zip(&*self.row) {
            *kept = T::narrow(x_hat);
        }
        rstd
    }
}

/// dx if rstd `[n]` and γ are given; dγ and dβ where they are needed.
pub fn backward<T: Scalar>(
    dy: Tensor,
    x_hat: Option<&Tensor>,
    rstd_gamma: Option<&[Tensor; 2]>,
    [need_dgamma, need_dbeta]: [bool; 2],
) -> Result<[Option<Tensor>; 3]> {
    let (n, d, shape) = (dy.shape().rows(), dy.shape().cols(), dy.shape().clone());
    let x_hat = x_hat.map(|x_hat| x_hat.host::<T>()).transpose()?.unwrap_or_default();
    let from = dy.host::<T>()?;
    let dbeta = need_dbeta.then(|| column_sums::<T>(&dy)).transpose()?;
    let add_row = |row: usize, sum: &mut [T::Acc]| {
        sum.iter_mut().zip(&x_hat[row * d..]).zip(&from[row * d..]).for_each(|((s, x_hat), dy)| *s += dy.widen() * x_hat.widen());
    };
    let dgamma = need_dgamma.then(|| sum_rows::<T>(n, d, add_row)).transpose()?;
    let Some([rstd, gamma]) = rstd_gamma else { return Ok([None, dgamma, dbeta]) };
    let (rstd, gamma) = (rstd.host::<T::Acc>()?, gamma.to_accum::<T::Acc>()?);
    let mut dx = dy.into_host::<T>()?;
    rows::for_each(&mut dx, d, |first, dx| {
        let rows = dx.chunks_exact_mut(d.max(1)).zip(x_hat[first * d..].chunks_exact(d.max(1))).zip(&rstd[first..]);
        rows.for_each(|((dx, x_hat), &rstd)| simd::dispatch(Backward::<T> { dx, x_hat, gamma: &gamma, rstd }));
    });
    Ok([Some(Tensor::new(dx, shape)?), dgamma, dbeta])
}

/// dx of one row. `dx` holds dy at first.
struct Backward<'a, T: Scalar> {
    dx: &'a mut [T],
    x_hat: &'a [T],
    gamma: &'a [T::Acc],
    rstd: T::Acc,
}

impl<T: Scalar> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Backward { dx, x_hat, gamma, rstd } = self;
        let n = T::Acc::of(dx.len() as f64);
        let mean_dx_hat = math::sum2(dx, gamma, |dy, g| dy.widen() * g) / n;
        let mean_dx_hat_x_hat = math::sum3(dx, gamma, x_hat, |dy, g, x_hat| dy.widen() * g * x_hat.widen()) / n;
        for ((dx, &x_hat), &g) in dx.iter_mut().zip(x_hat).zip(gamma) {
            *dx = T::narrow(rstd * (dx.widen() * g - mean_dx_hat - x_hat.widen() * mean_dx_hat_x_hat));
        }
    }
}
