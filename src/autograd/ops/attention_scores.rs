//! The scores of a block of queries, and the loops over them: softmax and its gradient.
//!
//! A block is Sᵀ `[nk, n]`: a row for each key, a column for each query. So what belongs to one query, its maximum, sum or log-sum-exp, is a number of
//! each column, and every loop runs along a row in whole vectors: none adds up the elements of a vector. Dropout factors are drawn for four keys at a
//! time, which is what one counter of the random generator gives.
//!
//! Columns are padded to whole register tiles of the matrix product. What the padding contains is finite, and nobody reads it.

use crate::tensor::gemm::{Mat, Packed, gemm_packed, multiplies_pairs};
use crate::tensor::simd::{self, Kernel};
use crate::tensor::{Accum, MaskColumns, Pooled, Scalar, alloc, math};

/// Elements of a cache line in f32.
const LANES: usize = 16;
/// Keys whose dropout factors are drawn together.
const KEYS: usize = 4;

/// Sᵀ `[nk, n]` of a block of queries: in the accumulator's precision, and rounded to T for the products that follow if these multiply pairs of bf16.
pub(super) struct Scores<T: Scalar> {
    sums: Pooled<T::Acc>,
    /// Empty if there is nothing to round.
    narrow: Pooled<T>,
    nk: usize,
    /// Columns with their padding.
    width: usize,
    /// Elements from one row to the next: an odd multiple of LANES, so that the elements of a column are in different lines of the first-level cache.
    stride: usize,
}

/// The same columns of `sums` and `narrow`, as the loops read them.
struct Rows<'a, T: Scalar> {
    sums: &'a mut [T::Acc],
    narrow: &'a mut [T],
    width: usize,
    stride: usize,
}

impl<T: Scalar> Scores<T> {
    /// Room for the scores of `n` queries or fewer. `n` is at most that of any block.
    pub fn new(n: usize, nk: usize) -> Self {
        // A tile has at most 3 LANES columns.
        let stride = ((n.next_multiple_of(3 * LANES) / LANES) | 1) * LANES;
        let rounds = size_of::<T>() != size_of::<T::Acc>() && multiplies_pairs();
        Scores { sums: alloc(nk * stride), narrow: alloc(if rounds { nk * stride } else { 0 }), nk, width: 0, stride }
    }

    /// Packs `by` for products of these scores and it.
    pub fn pack(&self, by: Mat<T::Acc>) -> Packed<T::Acc> {
        Packed::for_products_of(self.rounded(0), by)
    }

    /// Sets the scores to `keys` · `queries`ᵀ, matrices `[nk, K]` and `[n, K]`.
    pub fn multiply(&mut self, keys: Mat<T::Acc>, queries: Mat<T::Acc>) {
        let queries = Packed::for_products_of(keys, queries.t()).padded();
        self.width = queries.cols();
        gemm_packed(keys, &queries, &mut self.sums, self.stride, false);
    }

    /// The scores of the first `n` queries as the following products read them: `[nk, n]`.
    pub fn rounded(&self, n: usize) -> Mat<'_, T::Acc> {
        match self.narrow.is_empty() {
            true => Mat::strided(&self.sums, self.nk, n, self.stride),
            false => Mat::strided(&self.narrow, self.nk, n, self.stride),
        }
    }

    fn rows(&mut self) -> Rows<'_, T> {
        Rows { sums: &mut self.sums, narrow: &mut self.narrow, width: self.width, stride: self.stride }
    }

    /// Turns k qᵀ into f ⊙ e^(S − max)ᵀ, where the maximum is that of a query. Returns for each query the sum of its e^(S − max), without f, and its
    /// log-sum-exp.
    pub fn softmax(&mut self, scale: T::Acc, mask: Option<MaskColumns<T::Acc>>) -> [Vec<T::Acc>; 2] {
        let factors = Factors::new(mask, self.width);
        simd::dispatch(Softmax { scores: self.rows(), scale, factors })
    }

    /// Turns k qᵀ into (f ⊙ P)ᵀ, and `ds`, which is v dyᵀ, into dSᵀ / √K. `lse` and `delta` have a number for each query.
    pub fn gradient(&mut self, ds: &mut Self, [lse, delta]: [&[T::Acc]; 2], scale: T::Acc, mask: Option<MaskColumns<T::Acc>>) {
        let padded = |x: &[T::Acc]| [x, &vec![T::Acc::ZERO; self.width - x.len()]].concat();
        let (lse, delta, factors) = (padded(lse), padded(delta), Factors::new(mask, self.width));
        simd::dispatch(Gradient { p: self.rows(), ds: ds.rows(), lse, delta, scale, factors });
    }
}

/// The dropout factors of KEYS keys at a time.
struct Factors<S> {
    mask: Option<MaskColumns<S>>,
    /// A row for each key. All 1 without dropout.
    rows: [Vec<S>; KEYS],
}

impl<S: Accum> Factors<S> {
    fn new(mask: Option<MaskColumns<S>>, width: usize) -> Self {
        Factors { mask, rows: std::array::from_fn(|_| vec![S::ONE; width]) }
    }

    /// The factors of the keys from KEYS · `group` on.
    #[inline(always)]
    fn of(&mut self, group: usize) -> &[Vec<S>; KEYS] {
        if let Some(mask) = &self.mask {
            let [a, b, c, d] = &mut self.rows;
            mask.factors(group, [a, b, c, d]);
        }
        &self.rows
    }
}

/// The arguments of [`Scores::softmax`].
struct Softmax<'a, T: Scalar> {
    scores: Rows<'a, T>,
    scale: T::Acc,
    factors: Factors<T::Acc>,
}

impl<T: Scalar> Kernel for Softmax<'_, T> {
    type Output = [Vec<T::Acc>; 2];

    #[inline(always)]
    fn run<const FMA: bool>(self) -> [Vec<T::Acc>; 2] {
        let Softmax { scores: Rows { sums: scores, narrow, width, stride }, scale, mut factors } = self;
        let mut max = vec![T::Acc::of(f64::NEG_INFINITY); width];
        for row in scores.chunks_exact(stride) {
            for (max, &x) in max.iter_mut().zip(&row[..width]) {
                *max = if x > *max { x } else { *max };
            }
        }
        for max in &mut max {
            *max *= scale;
        }
        // Each of the keys drawn together has a sum of its own, so that sums of many numbers lose fewer digits.
        let mut sums: [Vec<T::Acc>; KEYS] = std::array::from_fn(|_| vec![T::Acc::ZERO; width]);
        for (group, rows) in scores.chunks_mut(KEYS * stride).enumerate() {
            for ((row, factors), sums) in rows.chunks_exact_mut(stride).zip(factors.of(group)).zip(&mut sums) {
                for (((x, &max), &factor), sum) in row[..width].iter_mut().zip(&max).zip(factors).zip(sums) {
                    let e = (*x * scale - max).exp(FMA);
                    *sum += e;
                    *x = e * factor;
                }
            }
        }
        round(scores, narrow);
        let [mut sum, b, c, d] = sums;
        for (((sum, b), c), d) in sum.iter_mut().zip(b).zip(c).zip(d) {
            *sum = (*sum + b) + (c + d);
        }
        let lse = max.iter().zip(&sum).map(|(&max, sum)| max + sum.ln()).collect();
        [sum, lse]
    }
}

/// The arguments of [`Scores::gradient`].
struct Gradient<'a, T: Scalar> {
    p: Rows<'a, T>,
    ds: Rows<'a, T>,
    lse: Vec<T::Acc>,
    delta: Vec<T::Acc>,
    scale: T::Acc,
    factors: Factors<T::Acc>,
}

impl<T: Scalar> Kernel for Gradient<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Gradient { p: Rows { sums: p, narrow: p_narrow, width, stride }, ds, lse, delta, scale, mut factors } = self;
        for (group, (p, ds)) in p.chunks_mut(KEYS * stride).zip(ds.sums.chunks_mut(KEYS * stride)).enumerate() {
            let rows = p.chunks_exact_mut(stride).zip(ds.chunks_exact_mut(stride));
            for ((p, ds), factors) in rows.zip(factors.of(group)) {
                let columns = p[..width].iter_mut().zip(&mut ds[..width]).zip(factors).zip(&lse).zip(&delta);
                for ((((p, ds), &factor), &lse), &delta) in columns {
                    let probability = (*p * scale - lse).exp(FMA);
                    *ds = probability * (factor * *ds - delta) * scale;
                    *p = probability * factor;
                }
            }
        }
        round(p, p_narrow);
        round(ds.sums, ds.narrow);
    }
}

/// Rounds the first elements of `from` to all of `to`.
#[inline(always)]
fn round<T: Scalar>(from: &[T::Acc], to: &mut [T]) {
    for (to, &x) in to.iter_mut().zip(from) {
        *to = T::narrow(x);
    }
}

/// δᵢ = dyᵢ · yᵢ for each row of matrices `[n, K]`.
pub(super) fn deltas<S: Accum>(y: Mat<S>, dy: Mat<S>) -> Vec<S> {
    let (width, y, dy) = (y.cols().max(1), y.to_accum(), dy.to_accum());
    y.chunks_exact(width).zip(dy.chunks_exact(width)).map(|(y, dy)| simd::dispatch(Dot(y, dy))).collect()
}

struct Dot<'a, S>(&'a [S], &'a [S]);

impl<S: Accum> Kernel for Dot<'_, S> {
    type Output = S;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> S {
        math::sum2(self.0, self.1, |a, b| a * b)
    }
}

/// Writes the rows of `from` `[n, K]`, each divided by its number in `by` if there is one, to the rows `to`, rounded.
pub(super) fn write<T: Scalar>(from: &[T::Acc], by: Option<&[T::Acc]>, to: &mut [&mut [T]]) {
    simd::dispatch(Write { from, by, to });
}

struct Write<'a, 'b, T: Scalar> {
    from: &'a [T::Acc],
    by: Option<&'a [T::Acc]>,
    to: &'a mut [&'b mut [T]],
}

impl<T: Scalar> Kernel for Write<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.to.first().map_or(1, |row| row.len().max(1));
        for (i, (to, from)) in self.to.iter_mut().zip(self.from.chunks_exact(width)).enumerate() {
            let factor = self.by.map_or(T::Acc::ONE, |by| T::Acc::ONE / by[i]);
            for (to, &x) in to.iter_mut().zip(from) {
                *to = T::narrow(x * factor);
            }
        }
    }
}
