//! [`Linear`](super::Linear) on the host: each output is written once, as one sum of matrix products.
//!
//! y = x Wᵀ + b + h (s B)ᵀ is a single pass over y, and dx = Σ dy W a single pass over dx before the low-rank terms are added (`low_rank.rs`).
//! Sums are kept in the accumulator's precision and rounded once.

use super::low_rank;
use crate::Result;
use crate::tensor::gemm::{Init, Mat, gemm, gemm_sum};
use crate::tensor::{Accum, LinearGradients, LowRankCotangent, LowRankLinear, Pooled, Scalar, Tensor, alloc, rows, zeroed};

/// y `[G, n, out]` of a group of G linears, and h `[n, r]` of each term.
pub(super) fn forward<T: Scalar>(x: &Tensor, linears: &[LowRankLinear]) -> Result<(Tensor, Vec<Tensor>)> {
    let (n, out) = (x.shape().rows(), linears[0].w.shape().rows());
    let x = Mat::<T::Acc>::of(x)?;
    let terms: Vec<_> = linears.iter().flat_map(|l| &l.terms).collect();
    let hidden = low_rank::hidden(x, &terms)?;
    let mut h = hidden.iter();
    let mut y = alloc::<T>(linears.len() * n * out);
    for (linear, y) in linears.iter().zip(y.chunks_mut((n * out).max(1))) {
        let bias = linear.bias.map(Tensor::to_accum::<T::Acc>).transpose()?;
        let scaled_b = linear.terms.iter().map(low_rank::scaled_b::<T::Acc>).collect::<Result<Vec<_>>>()?;
        let mut products = vec![(x, Mat::of(linear.w)?.t())];
        for (b, h) in scaled_b.iter().zip(h.by_ref()) {
            products.push((Mat::of(h)?, Mat::new(b, out, h.shape().cols()).t()));
        }
        let init = bias.as_ref().map_or(Init::Zero, |b| Init::Bias(b));
        gemm_sum(&products, init, y, out);
    }
    Ok((Tensor::new(y, [linears.len(), n, out])?, hidden))
}

/// dx `[n, in]` = Σ dy W + Σ drop(dh A), with dy W given as `products` (none if dx is not wanted), and the gradients of the terms.
pub(super) fn backward<T: Scalar>(products: &[(Tensor, Tensor)], terms: &[LowRankCotangent]) -> Result<LinearGradients> {
    let pairs = products.iter().map(|(dy, w)| Ok((Mat::of(dy)?, Mat::of(w)?))).collect::<Result<Vec<_>>>()?;
    let dims = products.first().map_or([0, 0], |(dy, w)| [dy.shape().rows(), w.shape().cols()]);
    let (dx, grads) = if terms.is_empty() {
        (Tensor::new(sum_of::<_, T>(&pairs), dims)?, Vec::new())
    } else {
        let mut dx = sum_of::<_, T::Acc>(&pairs);
        let grads = low_rank::backward(terms, &mut dx)?;
        (Tensor::new(dx, dims)?.to_dtype(T::DTYPE)?, grads)
    };
    Ok(((!products.is_empty()).then_some(dx), grads))
}

/// Σ A·B, stored as C; nothing for no products.
fn sum_of<S: Accum, C: Scalar<Acc = S>>(products: &[(Mat<S>, Mat<S>)]) -> Pooled<C> {
    let [m, n] = products.first().map_or([0, 0], |(a, b)| [a.rows(), b.cols()]);
    let mut c = alloc(m * n);
    gemm_sum(products, Init::Zero, &mut c, n);
    c
}

/// A·B `[a.rows, b.cols]`, in the accumulator's precision.
pub(super) fn product<S: Accum>(a: Mat<S>, b: Mat<S>) -> Result<Tensor> {
    let (m, n) = (a.rows(), b.cols());
    let mut c = alloc::<S>(m * n);
    gemm(a, b, &mut c, n, false);
    Tensor::new(c, [m, n])
}

/// Σ over the rows of x `[n, cols]`.
pub(super) fn column_sums<T: Scalar>(x: &Tensor) -> Result<Tensor> {
    let (n, cols, x) = (x.shape().rows(), x.shape().cols(), x.host::<T>()?);
    sum_rows::<T>(n, cols, |row, sum| sum.iter_mut().zip(&x[row * cols..]).for_each(|(s, x)| *s += x.widen()))
}

/// Σ over n rows, `[cols]`; `add` adds one row to the sum.
pub(super) fn sum_rows<T: Scalar>(n: usize, cols: usize, add: impl Fn(usize, &mut [T::Acc]) + Sync + Send) -> Result<Tensor> {
    let part = |range: std::ops::Range<usize>| {
        let mut sum = zeroed::<T::Acc>(cols);
        range.for_each(|row| add(row, &mut sum));
        sum
    };
    let total = rows::reduce(n, cols, part, |sum, part| sum.iter_mut().zip(&*part).for_each(|(s, &p)| *s += p));
    Tensor::new(total.unwrap_or_else(|| zeroed(cols)), [cols])
}
