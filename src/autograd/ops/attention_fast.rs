//! [`Attention`](super::Attention) on the host, in blocks of queries. Dao et al. 2022, <https://arxiv.org/abs/2205.14135>.
//!
//! A task is one head of one sequence. It computes the scores of `QUERIES` queries to all keys at a time, so no `[nq, nk]` matrix is ever whole in
//! memory. Forward keeps one number for each row of scores, its log-sum-exp: backward gets P back as exp(S − lse) and reads y instead of P for
//! δᵢ = Σⱼ Pᵢⱼ dPᵢⱼ = dyᵢ · yᵢ.
//!
//! Rows of scores are padded to a multiple of 16. Padding gets probability 0. So loops over rows are whole vectors, without a remainder.

use crate::Result;
use crate::tensor::gemm::{Mat, Packed, gemm_packed, gemm_serial};
use crate::tensor::simd::{self, Kernel, vectorised};
use crate::tensor::{Accum, AttentionInputs, Mask, Pooled, Scalar, Sequences, Shape, Tensor, alloc, math, rows, zeroed};

/// Queries of a block: their scores `[QUERIES, nk]` stay in the second-level cache. A multiple of the rows of every register tile of the matrix product.
const QUERIES: usize = 72;
/// Rows of scores are padded to a multiple of this.
const LANES: usize = 16;

/// y `[Tq, D]`, and the log-sum-exp of each row of scores, sequence by sequence, head by head: `[H Tq]`.
pub(super) fn forward<T: Scalar>(x: &AttentionInputs) -> Result<(Tensor, Tensor)> {
    let (qkv, all_keys) = x.joined::<T::Acc>()?;
    let (tq, d) = (x.queries.tokens(), qkv[0].shape().cols());
    let qkv = [Mat::of(&qkv[0])?, Mat::of(&qkv[1])?, Mat::of(&qkv[2])?];
    let parts = rows::map(heads(x), |at| Head::new(x, qkv, &all_keys, at).forward::<T>());
    let mut y = alloc::<T>(tq * d);
    write_heads(x.heads, x.queries, 0, &parts.iter().map(|[y, _]| &**y).collect::<Vec<_>>(), &mut y);
    let lse: Vec<T::Acc> = parts.iter().flat_map(|[_, lse]| lse.iter().copied()).collect();
    Ok((Tensor::new(y, [tq, d])?, Tensor::new(lse, [x.heads * tq])?))
}

/// The gradients of the one, two or three input tensors of `shapes`, and of the extra keys and values, from y, the log-sum-exps and dy.
pub(super) fn backward<T: Scalar>(x: &AttentionInputs, [y, lse, dy]: [&Tensor; 3], shapes: &[&Shape]) -> Result<Vec<Tensor>> {
    let (qkv, all_keys) = x.joined::<T::Acc>()?;
    let qkv = [Mat::of(&qkv[0])?, Mat::of(&qkv[1])?, Mat::of(&qkv[2])?];
    let (y, dy, lse) = (Mat::of(y)?, Mat::of(dy)?, lse.host::<T::Acc>()?);
    let parts = rows::map(heads(x), |(b, h)| {
        let [y, dy] = [y, dy].map(|m| columns(m, x.queries, (b, h), x.heads));
        let lse = &lse[x.queries.range(b).start * x.heads + h * y.rows()..][..y.rows()];
        Head::new(x, qkv, &all_keys, (b, h)).backward::<T>(y, dy, lse)
    });
    let [dq_parts, dk_parts, dv_parts] = [0, 1, 2].map(|i| parts.iter().map(|p| &*p[i]).collect::<Vec<_>>());
    let mut buffers: Vec<Pooled<T>> = shapes.iter().map(|shape| alloc(shape.len())).collect();
    // The buffers hold dq, dk and dv in this order: one buffer all three, or two buffers one and two of them, or three buffers one each.
    let mut thirds = buffers.iter_mut().zip(&x.qkv).flat_map(|(buffer, part)| buffer.chunks_mut(part.shape().len().max(1)));
    let [dq, dk, dv] = [(); 3].map(|()| thirds.next().unwrap_or_default());
    write_heads(x.heads, x.queries, 0, &dq_parts, dq);
    write_heads(x.heads, x.keys, x.extra_rows(), &dk_parts, dk);
    write_heads(x.heads, x.keys, x.extra_rows(), &dv_parts, dv);
    let mut grads = buffers.into_iter().zip(shapes).map(|(g, &shape)| Tensor::new(g, shape)).collect::<Result<Vec<_>>>()?;
    for (extra, parts) in x.extra.iter().flatten().zip([dk_parts, dv_parts]) {
        grads.push(extra_gradient(x, &parts, extra)?);
    }
    Ok(grads)
}

/// (sequence, head) of each task.
fn heads(x: &AttentionInputs) -> Vec<(usize, usize)> {
    (0..x.queries.count()).flat_map(|b| (0..x.heads).map(move |h| (b, h))).collect()
}

/// The rows of sequence `b` and the columns of head `h` of `m` `[.., D]`.
fn columns<'a, S: Accum>(m: Mat<'a, S>, sequences: &Sequences, (b, h): (usize, usize), heads: usize) -> Mat<'a, S> {
    let width = m.cols() / heads;
    m.rows_from(sequences.range(b).start, sequences.length(b)).cols_from(h * width, width)
}

/// Puts the heads' rows `[n, K]` side by side: `to` `[T, D]`, a row for each of `sequences`. Leaves out the first `skip` rows of each part.
fn write_heads<T: Scalar>(heads: usize, sequences: &Sequences, skip: usize, parts: &[&[T::Acc]], to: &mut [T]) {
    let d = to.len() / sequences.tokens().max(1);
    let width = (d / heads).max(1);
    rows::for_each(to, d, |first, to| {
        for (i, to) in to.chunks_exact_mut(d.max(1)).enumerate() {
            let (b, row) = sequences.locate(first + i);
            for (h, to) in to.chunks_exact_mut(width).enumerate() {
                let from = &parts[b * heads + h][(skip + row) * width..];
                vectorised(|| round(from, to));
            }
        }
    });
}

/// The gradient of extra keys or values `[E, D]`: the sum over the sequences of the first E rows of each head.
fn extra_gradient<S: Accum>(x: &AttentionInputs, parts: &[&[S]], extra: &Tensor) -> Result<Tensor> {
    let (d, width) = (extra.shape().cols(), extra.shape().cols() / x.heads);
    let mut sum = zeroed::<S>(extra.shape().len());
    for ((_, h), part) in heads(x).into_iter().zip(parts) {
        for (to, from) in sum.chunks_exact_mut(d).zip(part.chunks_exact(width)) {
            to[h * width..][..width].iter_mut().zip(from).for_each(|(to, &g)| *to += g);
        }
    }
    Tensor::new(sum, extra.shape())?.to_dtype(extra.dtype())
}

/// One head of one sequence: q `[nq, K]`, k and v `[nk, K]`, borrowed.
struct Head<'a, S: Accum> {
    q: Mat<'a, S>,
    k: Mat<'a, S>,
    v: Mat<'a, S>,
    index: usize,
    /// The mask and the sequence's example.
    mask: Option<(&'a Mask, u32)>,
}

impl<'a, S: Accum> Head<'a, S> {
    fn new(x: &AttentionInputs<'a>, [q, k, v]: [Mat<'a, S>; 3], all_keys: &Sequences, (b, h): (usize, usize)) -> Self {
        Head {
            q: columns(q, x.queries, (b, h), x.heads),
            k: columns(k, all_keys, (b, h), x.heads),
            v: columns(v, all_keys, (b, h), x.heads),
            index: h,
            mask: x.mask.map(|mask| (mask, x.queries.example_ids()[b])),
        }
    }

    /// A row of dropout factors, all 1.
    fn no_dropout(&self) -> Pooled<S> {
        let mut factors = alloc(self.k.rows().next_multiple_of(LANES));
        factors.fill(S::ONE);
        factors
    }

    /// Writes the dropout factors of the probabilities of query `row`, if there is dropout.
    fn draw(&self, row: usize, factors: &mut [S]) {
        if let Some((mask, example)) = self.mask {
            mask.factors(example, (self.index << 16 | row) as u32, factors);
        }
    }

    /// 1 / √K.
    fn scale(&self) -> S {
        S::of((self.q.cols() as f64).sqrt().recip())
    }

    /// y `[nq, K]`, and the log-sum-exp of each row of scores.
    fn forward<T: Scalar<Acc = S>>(&self) -> [Pooled<S>; 2] {
        let (nq, nk, width) = (self.q.rows(), self.k.rows(), self.q.cols());
        let k_t = Packed::for_products_of(self.q, self.k.t());
        let mut scores = Scores::<T>::new(QUERIES.min(nq), nk);
        let v = scores.pack(self.v);
        let (mut y, mut lse, mut factors) = (alloc(nq * width), alloc(nq), self.no_dropout());
        for first in (0..nq).step_by(QUERIES) {
            let n = QUERIES.min(nq - first);
            scores.multiply(self.q.rows_from(first, n), &k_t); // q kᵀ
            for i in 0..n {
                self.draw(first + i, &mut factors);
                let (p, rounded) = scores.row(i);
                lse[first + i] = simd::dispatch(SoftmaxRow { p, rounded, nk, factors: &factors, scale: self.scale() });
            }
            gemm_packed(scores.rounded(n), &v, &mut y[first * width..], width, false); // drop(P) v
        }
        [y, lse]
    }

    /// dq `[nq, K]`, dk and dv `[nk, K]`, from y and dy `[nq, K]` and the log-sum-exps.
    fn backward<T: Scalar<Acc = S>>(&self, y: Mat<S>, dy: Mat<S>, lse: &[S]) -> [Pooled<S>; 3] {
        let (nq, nk, width) = (self.q.rows(), self.k.rows(), self.q.cols());
        let [mut scores, mut d_scores] = [(); 2].map(|()| Scores::<T>::new(QUERIES.min(nq), nk));
        let k_t = Packed::for_products_of(self.q, self.k.t());
        let v_t = Packed::for_products_of(dy, self.v.t());
        let k = d_scores.pack(self.k);
        let (mut dq, mut dk, mut dv) = (alloc(nq * width), zeroed(nk * width), zeroed(nk * width));
        let mut factors = self.no_dropout();
        for first in (0..nq).step_by(QUERIES) {
            let n = QUERIES.min(nq - first);
            let [q_rows, y_rows, dy_rows] = [self.q, y, dy].map(|m| m.rows_from(first, n));
            let [y, dy] = [y_rows, dy_rows].map(Mat::to_accum);
            scores.multiply(q_rows, &k_t); // q kᵀ
            d_scores.multiply(dy_rows, &v_t); // dy vᵀ
            for i in 0..n {
                self.draw(first + i, &mut factors);
                let (y, dy) = (&y[i * width..][..width], &dy[i * width..][..width]);
                let (p, ds) = (scores.row(i), d_scores.row(i));
                simd::dispatch(GradientRow { p, ds, factors: &factors, y, dy, lse: lse[first + i], scale: self.scale() });
            }
            gemm_serial(scores.rounded(n).t(), dy_rows, &mut dv, width, true); // dv += drop(P)ᵀ dy
            gemm_serial(d_scores.rounded(n).t(), q_rows, &mut dk, width, true); // dk += dSᵀ q / √K
            gemm_packed(d_scores.rounded(n), &k, &mut dq[first * width..], width, false); // dq = dS k / √K
        }
        [dq, dk, dv]
    }
}

/// Scores `[n, nk]` of a block of queries: in the accumulator's precision, and then rounded to T for the products that follow.
struct Scores<T: Scalar> {
    sums: Pooled<T::Acc>,
    /// Empty if there is nothing to round.
    narrow: Pooled<T>,
    nk: usize,
    /// Elements from one row to the next: an odd multiple of LANES. Rows a multiple of 4 KiB apart would share a few lines of the first-level cache.
    stride: usize,
}

impl<T: Scalar> Scores<T> {
    const ROUNDS: bool = size_of::<T>() != size_of::<T::Acc>();

    fn new(n: usize, nk: usize) -> Self {
        let stride = (nk.div_ceil(LANES) | 1) * LANES;
        Scores { sums: alloc(n * stride), narrow: alloc(if Self::ROUNDS { n * stride } else { 0 }), nk, stride }
    }

    /// Packs `by` for products of these scores and it.
    fn pack(&self, by: Mat<T::Acc>) -> Packed<T::Acc> {
        Packed::for_products_of(self.rounded(0), by)
    }

    /// Sets the scores to the product of `rows` and the packed matrix.
    fn multiply(&mut self, rows: Mat<T::Acc>, by: &Packed<T::Acc>) {
        gemm_packed(rows, by, &mut self.sums, self.stride, false);
    }

    /// Row i with its padding, and where its rounded form goes.
    fn row(&mut self, i: usize) -> (&mut [T::Acc], &mut [T]) {
        let start = i * self.stride;
        let range = start..start + self.nk.next_multiple_of(LANES);
        (&mut self.sums[range.clone()], self.narrow.get_mut(range).unwrap_or_default())
    }

    /// The first `n` rows, rounded, without their padding.
    fn rounded(&self, n: usize) -> Mat<'_, T::Acc> {
        match Self::ROUNDS {
            true => Mat::strided(&self.narrow, n, self.nk, self.stride),
            false => Mat::strided(&self.sums, n, self.nk, self.stride),
        }
    }
}

/// Rounds the first elements of `from` to all of `to`.
#[inline(always)]
fn round<T: Scalar>(from: &[T::Acc], to: &mut [T]) {
    for (to, &x) in to.iter_mut().zip(from) {
        *to = T::narrow(x);
    }
}

/// Turns a row of q kᵀ into f ⊙ P. Returns its log-sum-exp.
struct SoftmaxRow<'a, T: Scalar> {
    p: &'a mut [T::Acc],
    rounded: &'a mut [T],
    nk: usize,
    factors: &'a [T::Acc],
    scale: T::Acc,
}

impl<T: Scalar> Kernel for SoftmaxRow<'_, T> {
    type Output = T::Acc;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> T::Acc {
        let SoftmaxRow { p, rounded, nk, factors, scale } = self;
        p[nk..].fill(T::Acc::of(f64::NEG_INFINITY));
        let max = math::max(p) * scale;
        // In one pass, so that the additions, which wait for each other, run beside the exponentials.
        let sum = math::map_sum(p, |p| (p * scale - max).exp(FMA));
        let inverse = T::Acc::ONE / sum;
        for (p, &f) in p.iter_mut().zip(factors) {
            *p = *p * inverse * f;
        }
        round(p, rounded);
        max + sum.ln()
    }
}

/// Turns a row of q kᵀ into f ⊙ P, and a row of dy vᵀ into dS / √K. Padding is not read afterwards.
struct GradientRow<'a, T: Scalar> {
    p: (&'a mut [T::Acc], &'a mut [T]),
    ds: (&'a mut [T::Acc], &'a mut [T]),
    factors: &'a [T::Acc],
    y: &'a [T::Acc],
    dy: &'a [T::Acc],
    lse: T::Acc,
    scale: T::Acc,
}

impl<T: Scalar> Kernel for GradientRow<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let GradientRow { p: (p, p_rounded), ds: (ds, ds_rounded), factors, y, dy, lse, scale } = self;
        let delta = math::sum2(y, dy, |y, dy| y * dy);
        for ((p, ds), &f) in p.iter_mut().zip(ds.iter_mut()).zip(factors) {
            let probability = (*p * scale - lse).exp(FMA);
            *ds = probability * (f * *ds - delta) * scale;
            *p = probability * f;
        }
        round(p, p_rounded);
        round(ds, ds_rounded);
    }
}
