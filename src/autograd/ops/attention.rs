//! Scaled dot-product attention over packed sequences. Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, eq. 1.

use super::dropout::random_sequences;
use crate::autograd::gradcheck::{Case, Suite, random_tensor};
use crate::autograd::{Op, Saved};
#[cfg(feature = "cuda")]
use crate::cuda::Device;
use crate::tensor::gemm::{Init, Mat, Packed, Threads, gemm_packed, gemm_serial};
use crate::tensor::simd::{self, Kernel, vectorised};
use crate::tensor::{Accum, Mask, Pooled, Scalar, Sequences, Tensor, alloc, math, rows, zeroed};
use crate::{Error, Result, dispatch};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// For each sequence and head: P = softmax(q kᵀ / √K), y = drop(P) v. Each query sees the keys of its own sequence alone.
///
/// Inputs: qkv `[3, T, D]`, or q `[Tq, D]` and kv `[2, T, D]`, or q, k and v; then, if `extra`, more keys and values `[E, D]` that every sequence sees
/// before its own. y `[Tq, D]`. D = H·K, head h in columns hK..(h+1)K.
///
/// With δᵢ = Σ dyᵢ yᵢ and f the dropout factors: dv = (f P)ᵀ dy, dS = P (f dy vᵀ − δ), dq = dS k / √K, dk = dSᵀ q / √K. P is computed again
/// from the saved log-sum-exp of each row, as in Dao et al. 2022, <https://arxiv.org/abs/2205.14135>: no T×T matrix is kept. In bf16, drop(P) and dS are
/// rounded to bf16 for the products.
pub struct Attention {
    /// H.
    pub heads: usize,
    /// How the queries lie.
    pub queries: Arc<Sequences>,
    /// How the keys and values lie, without the extra ones.
    pub keys: Arc<Sequences>,
    /// Whether there are extra keys and values.
    pub extra: bool,
    /// Dropout of P: row = head · 2¹⁶ + query, column = key.
    pub mask: Option<Mask>,
}

/// What one sequence and head reads: q `[nq, K]`; k and v, extra ones first, `[nk, K]`. Without extra ones, all where they lie.
struct Head<'a, S: Accum> {
    b: usize,
    h: usize,
    q: Mat<'a, S>,
    k: Mat<'a, S>,
    v: Mat<'a, S>,
}

/// The inputs: q `[Tq, D]`, k and v `[T, D]`, and the extra k and v `[E, D]`.
struct Inputs<'a, S> {
    q: Mat<'a, S>,
    k: Mat<'a, S>,
    v: Mat<'a, S>,
    extra: Option<[Mat<'a, S>; 2]>,
    width: usize,
}

/// Rows of q that are taken at a time: their scores, `[QUERIES, nk]`, stay in the second-level cache. A multiple of every register tile's rows.
const QUERIES: usize = 72;
/// Rows of scores are a multiple of so many numbers apart, so that loops over them have no remainder: behind the nk keys are some that nothing sees.
const LANES: usize = 16;

impl Attention {
    fn inputs<'a, S: Accum>(&self, tensors: &[&'a Tensor]) -> Result<Inputs<'a, S>> {
        let (own, extra) = tensors.split_at(tensors.len() - if self.extra { 2 } else { 0 });
        let (tq, t) = (self.queries.tokens(), self.keys.tokens());
        let width = own.first().map_or(0, |x| x.shape().cols());
        let shapes: Vec<_> = tensors.iter().map(|x| x.shape()).collect();
        let bad = |rule| Err(Error::shape("attention", rule, &shapes));
        if self.queries.count() != self.keys.count() || self.heads == 0 || width % self.heads != 0 {
            return bad("as many query as key sequences, and D a multiple of the heads");
        }
        let [q, k, v] = match own {
            [qkv] if qkv.dims() == [3, t, width] && tq == t => {
                let all = Mat::of(qkv)?;
                [0, 1, 2].map(|i| all.rows_from(i * t, t))
            }
            [q, kv] if q.dims() == [tq, width] && kv.dims() == [2, t, width] => {
                let kv = Mat::of(kv)?;
                [Mat::of(q)?, kv.rows_from(0, t), kv.rows_from(t, t)]
            }
            [q, k, v] if q.dims() == [tq, width] && [k, v].iter().all(|x| x.dims() == [t, width]) => {
                [Mat::of(q)?, Mat::of(k)?, Mat::of(v)?]
            }
            _ => return bad("qkv [3, T, D], or q [Tq, D] and kv [2, T, D], or q, k and v"),
        };
        let extra = match extra {
            [ek, ev] if ek.shape().cols() == width && ek.shape() == ev.shape() => Some([Mat::of(ek)?, Mat::of(ev)?]),
            [] => None,
            _ => return bad("extra keys and values [E, D]"),
        };
        Ok(Inputs { q, k, v, extra, width })
    }

    /// Every (sequence, head), each a task of its own.
    fn tasks(&self) -> Vec<(usize, usize)> {
        (0..self.queries.count()).flat_map(|b| (0..self.heads).map(move |h| (b, h))).collect()
    }

    /// Runs `f` on what sequence `b` and head `h` read.
    fn on_head<'a, S: Accum, R>(&self, x: &Inputs<'a, S>, (b, h): (usize, usize), f: impl FnOnce(&Head<S>) -> R) -> R {
        let width = x.width / self.heads;
        let (queries, keys) = (self.queries.range(b), self.keys.range(b));
        let own = |m: Mat<'a, S>, r: &Range<usize>| m.rows_from(r.start, r.len()).cols_from(h * width, width);
        let (q, [k, v]) = (own(x.q, &queries), [x.k, x.v].map(|m| own(m, &keys)));
        let Some(extra) = x.extra else { return f(&Head { b, h, q, k, v }) };
        let joined = [(extra[0], k), (extra[1], v)].map(|(extra, own)| {
            let (extra, own) = (extra.cols_from(h * width, width).to_accum(), own.to_accum());
            let mut all = alloc::<S>(extra.len() + own.len());
            all[..extra.len()].copy_from_slice(&extra);
            all[extra.len()..].copy_from_slice(&own);
            all
        });
        let [k, v] = joined.each_ref().map(|m| Mat::new(m, m.len() / width, width));
        f(&Head { b, h, q, k, v })
    }

    /// Writes the dropout factors of a query row; leaves `out` alone if nothing is dropped.
    fn factors<S: Accum>(&self, head: &Head<S>, row: usize, out: &mut [S]) {
        if let Some(mask) = &self.mask {
            mask.factors(self.queries.example_ids()[head.b], (head.h << 16 | row) as u32, out);
        }
    }

    /// y `[nq, K]` and the log-sum-exp of each row.
    fn forward_head<T: Scalar>(&self, head: &Head<T::Acc>, width: usize) -> [Pooled<T::Acc>; 2] {
        let (nq, nk) = (head.q.rows(), head.k.rows());
        let k = Packed::for_products_of(head.q, head.k.t(), Threads::Serial);
        let (mut scores, mut factors) = (Scores::<T>::new(QUERIES.min(nq), nk), alloc(nk.next_multiple_of(LANES)));
        let v = scores.pack(head.v);
        let (mut y, mut lse) = (alloc(nq * width), alloc(nq));
        factors.fill(T::Acc::ONE);
        let scale = T::Acc::of((width as f64).sqrt().recip());
        for first in (0..nq).step_by(QUERIES) {
            let n = QUERIES.min(nq - first);
            scores.multiply(head.q.rows_from(first, n), &k);
            for i in 0..n {
                self.factors(head, first + i, &mut factors);
                let (p, rounded) = scores.row(i);
                lse[first + i] = simd::dispatch(Forward { p, rounded, nk, factors: &factors, scale });
            }
            gemm_packed(&[(scores.rounded(n), &v)], Init::Zero, &mut y[first * width..], width, Threads::Serial);
        }
        [y, lse]
    }

    /// dq `[nq, K]`, dk and dv `[nk, K]` of y's rows, dy's and the log-sum-exps.
    fn backward_head<T: Scalar>(
        &self,
        head: &Head<T::Acc>,
        width: usize,
        y: Mat<T::Acc>,
        dy: Mat<T::Acc>,
        lse: &[T::Acc],
    ) -> [Pooled<T::Acc>; 3] {
        let (nq, nk) = (head.q.rows(), head.k.rows());
        let (mut scores, mut d_scores) = (Scores::<T>::new(QUERIES.min(nq), nk), Scores::<T>::new(QUERIES.min(nq), nk));
        let k_t = Packed::for_products_of(head.q, head.k.t(), Threads::Serial);
        let v_t = Packed::for_products_of(dy, head.v.t(), Threads::Serial);
        let k = d_scores.pack(head.k);
        let (mut dq, mut dk, mut dv) = (alloc(nq * width), zeroed(nk * width), zeroed(nk * width));
        let mut factors = alloc(nk.next_multiple_of(LANES));
        factors.fill(T::Acc::ONE);
        let scale = T::Acc::of((width as f64).sqrt().recip());
        for first in (0..nq).step_by(QUERIES) {
            let n = QUERIES.min(nq - first);
            let [q_rows, y_rows, dy_rows] = [head.q, y, dy].map(|m| m.rows_from(first, n));
            let [y, dy] = [y_rows, dy_rows].map(Mat::to_accum);
            scores.multiply(q_rows, &k_t);
            d_scores.multiply(dy_rows, &v_t);
            for i in 0..n {
                self.factors(head, first + i, &mut factors);
                let (y, dy) = (&y[i * width..][..width], &dy[i * width..][..width]);
                let (p, ds) = (scores.row(i), d_scores.row(i));
                simd::dispatch(Backward { p, ds, factors: &factors, y, dy, lse: lse[first + i], scale });
            }
            gemm_serial(scores.rounded(n).t(), dy_rows, &mut dv, width, true);
            gemm_serial(d_scores.rounded(n).t(), q_rows, &mut dk, width, true);
            gemm_packed(&[(d_scores.rounded(n), &k)], Init::Zero, &mut dq[first * width..], width, Threads::Serial);
        }
        [dq, dk, dv]
    }

    /// Puts the heads' rows, from row `skip` of each, side by side: `[rows of packing, D]`.
    fn join<T: Scalar>(&self, sequences: &Sequences, parts: &[&[T::Acc]], skip: usize, to: &mut [T], width: usize) {
        let d = width * self.heads;
        rows::for_each(to, d, |first, to| {
            for (i, to) in to.chunks_exact_mut(d).enumerate() {
                let (b, row) = sequences.locate(first + i);
                for (h, to) in to.chunks_exact_mut(width).enumerate() {
                    let from = &parts[b * self.heads + h][(skip + row) * width..];
                    vectorised(|| round(from, to));
                }
            }
        });
    }

    fn forward_host<T: Scalar>(&self, tensors: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let x = self.inputs::<T::Acc>(tensors)?;
        let width = x.width / self.heads;
        let parts = rows::map(self.tasks(), |task| self.on_head(&x, task, |head| self.forward_head::<T>(head, width)));
        let tq = self.queries.tokens();
        let mut y = alloc::<T>(tq * x.width);
        self.join(&self.queries, &parts.iter().map(|[y, _]| &**y).collect::<Vec<_>>(), 0, &mut y, width);
        let y = Tensor::new(y, [tq, x.width])?;
        if needs.contains(&true) {
            tensors.iter().for_each(|t| saved.keep("inputs", t));
            saved.keep("y", &y);
            let lse: Vec<T::Acc> = parts.iter().flat_map(|[_, lse]| lse.iter().copied()).collect();
            saved.keep("lse", &Tensor::new(lse, [self.heads * tq])?);
        }
        Ok(y)
    }

    fn backward_host<T: Scalar>(&self, mut saved: Saved, dy: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let tensors: Vec<Tensor> = needs.iter().map(|_| saved.take("inputs")).collect::<Result<_>>()?;
        let (y, lse) = (saved.take("y")?, saved.take("lse")?);
        let tensors: Vec<&Tensor> = tensors.iter().collect();
        let x = self.inputs::<T::Acc>(&tensors)?;
        let width = x.width / self.heads;
        let (y, dy, lse) = (Mat::of(&y)?, Mat::of(dy)?, lse.host::<T::Acc>()?);
        let parts = rows::map(self.tasks(), |(b, h)| {
            let range = self.queries.range(b);
            let [y, dy] = [y, dy].map(|m| m.rows_from(range.start, range.len()).cols_from(h * width, width));
            // Sequence by sequence, and in each head by head.
            let lse = &lse[range.start * self.heads + h * range.len()..][..range.len()];
            self.on_head(&x, (b, h), |head| self.backward_head::<T>(head, width, y, dy, lse))
        });
        let part = |i: usize| parts.iter().map(|p| &*p[i]).collect::<Vec<_>>();
        let extra = x.extra.map_or(0, |[k, _]| k.rows());
        let mut grads: Vec<Pooled<T>> =
            tensors[..tensors.len() - if self.extra { 2 } else { 0 }].iter().map(|t| alloc::<T>(t.shape().len())).collect();
        // Whether they are one tensor, two or three: one after another they are dq, dk and dv.
        let sizes = [self.queries.tokens(), self.keys.tokens(), self.keys.tokens()].map(|rows| rows * x.width);
        let packings = [&self.queries, &self.keys, &self.keys];
        let mut pieces = grads.iter_mut().map(|g| &mut g[..]);
        let mut left = pieces.next().unwrap_or_default();
        for (i, (size, sequences)) in sizes.into_iter().zip(packings).enumerate() {
            if left.is_empty() {
                left = pieces.next().unwrap_or_default();
            }
            let (piece, rest) = left.split_at_mut(size);
            self.join(sequences, &part(i), if i == 0 { 0 } else { extra }, piece, width);
            left = rest;
        }
        let mut result = Vec::new();
        for ((g, t), &need) in grads.into_iter().zip(&tensors).zip(needs) {
            result.push(if need { Some(Tensor::new(g, t.shape())?) } else { None });
        }
        for i in result.len()..tensors.len() {
            let which = 1 + i + 2 - tensors.len();
            result.push(if needs[i] {
                Some(self.extra_grad::<T::Acc>(&part(which), extra, width)?.to_dtype(tensors[i].dtype())?)
            } else {
                None
            });
        }
        Ok(result)
    }

    /// Σ over the sequences of the first `extra` rows of each head: `[E, D]`.
    fn extra_grad<S: Accum>(&self, parts: &[&[S]], extra: usize, width: usize) -> Result<Tensor> {
        let d = width * self.heads;
        let mut sum = zeroed::<S>(extra * d);
        for ((_, h), part) in self.tasks().into_iter().zip(parts) {
            for (to, from) in sum.chunks_exact_mut(d).zip(part.chunks_exact(width)) {
                to[h * width..][..width].iter_mut().zip(from).for_each(|(to, &g)| *to += g);
            }
        }
        Tensor::new(sum, [extra, d])
    }
}

/// Scores of some queries, `[n, nk]`: first in the type of sums, then rounded to T for the products that follow.
struct Scores<T: Scalar> {
    sums: Pooled<T::Acc>,
    /// Empty if T is the type of sums.
    narrow: Pooled<T>,
    nk: usize,
    /// Numbers from one row to the next.
    apart: usize,
}

impl<T: Scalar> Scores<T> {
    fn new(n: usize, nk: usize) -> Self {
        let apart = nk.next_multiple_of(LANES);
        let narrow = if T::DTYPE == T::DTYPE.accum() { 0 } else { n * apart };
        Scores { sums: alloc(n * apart), narrow: alloc(narrow), nk, apart }
    }

    /// Packs a matrix for products with these scores.
    fn pack(&self, by: Mat<T::Acc>) -> Packed<T::Acc> {
        Packed::for_products_of(self.rounded(0), by, Threads::Serial)
    }

    /// The products of these rows and the packed matrix.
    fn multiply(&mut self, rows: Mat<T::Acc>, by: &Packed<T::Acc>) {
        gemm_packed(&[(rows, by)], Init::Zero, &mut self.sums, self.apart, Threads::Serial);
    }

    /// A row and where it is rounded to, longer than the `nk` keys, up to whole vectors.
    fn row(&mut self, i: usize) -> (&mut [T::Acc], &mut [T]) {
        let (start, end) = (i * self.apart, (i + 1) * self.apart);
        (&mut self.sums[start..end], self.narrow.get_mut(start..end).unwrap_or_default())
    }

    /// The first `n` rows for the products that follow.
    fn rounded(&self, n: usize) -> Mat<'_, T::Acc> {
        match T::DTYPE == T::DTYPE.accum() {
            true => Mat::strided(&self.sums, n, self.nk, self.apart),
            false => Mat::strided(&self.narrow, n, self.nk, self.apart),
        }
    }
}

/// The first numbers of `from`, as many as `to` takes.
#[inline(always)]
fn round<T: Scalar>(from: &[T::Acc], to: &mut [T]) {
    for (to, &x) in to.iter_mut().zip(from) {
        *to = T::narrow(x);
    }
}

/// A row's products q k become f P; returns its log-sum-exp.
struct Forward<'a, T: Scalar> {
    p: &'a mut [T::Acc],
    rounded: &'a mut [T],
    nk: usize,
    factors: &'a [T::Acc],
    scale: T::Acc,
}

impl<T: Scalar> Kernel for Forward<'_, T> {
    type Output = T::Acc;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> T::Acc {
        let Forward { p, rounded, nk, factors, scale } = self;
        p[nk..].fill(T::Acc::of(f64::NEG_INFINITY));
        let max = math::max(p) * scale;
        for p in &mut *p {
            *p = (*p * scale - max).exp(FMA);
        }
        let sum = math::sum(p, |p| p);
        let inverse = T::Acc::ONE / sum;
        for (p, &f) in p.iter_mut().zip(factors) {
            *p = *p * inverse * f;
        }
        round(p, rounded);
        max + sum.ln()
    }
}

/// A row's products q k and dy v become f P and dS / √K. What lies behind the keys is of no account.
struct Backward<'a, T: Scalar> {
    p: (&'a mut [T::Acc], &'a mut [T]),
    ds: (&'a mut [T::Acc], &'a mut [T]),
    factors: &'a [T::Acc],
    y: &'a [T::Acc],
    dy: &'a [T::Acc],
    lse: T::Acc,
    scale: T::Acc,
}

impl<T: Scalar> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Backward { p: (p, p_rounded), ds: (ds, ds_rounded), factors, y, dy, lse, scale } = self;
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

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        if inputs.len() < 1 + if self.extra { 2 } else { 0 } {
            return Err(Error::invalid("attention: takes qkv, or q and kv, or q, k and v, and the extra keys and values"));
        }
        dispatch!("attention", inputs[0].dtype(), T => self.forward_host::<T>(inputs, needs, saved))
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        dispatch!("attention", dy.dtype(), T => self.backward_host::<T>(saved, &dy, needs))
    }

    fn flops(&self, inputs: &[&Tensor], needs: &[bool]) -> (u64, u64) {
        let pairs: usize = (0..self.keys.count()).map(|b| self.queries.length(b) * self.keys.length(b)).sum();
        let product = 2 * (pairs * inputs[0].shape().cols()) as u64;
        // Two products forward; backward computes the scores again and four more.
        (2 * product, if needs.contains(&true) { 5 * product } else { 0 })
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        self.forward_on(device, inputs, needs, saved)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        self.backward_on(device, saved, &dy, needs)
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "Attention",
        tolerance: 1e-6,
        case: |random| {
            let keys = random_sequences(random, 5)?;
            let (heads, width) = (1 + random.below(2), 1 + random.below(4));
            let d = heads * width;
            let (tensors, extra) = (1 + random.below(3), random.below(3) == 0);
            let queries = if tensors > 1 { Arc::new(keys.first_rows()) } else { keys.clone() };
            let t = keys.tokens();
            let shapes: &[&[usize]] = match tensors {
                1 => &[&[3, t, d]],
                2 => &[&[queries.tokens(), d], &[2, t, d]],
                _ => &[&[queries.tokens(), d], &[t, d], &[t, d]],
            };
            let mut inputs = shapes.iter().map(|dims| random_tensor(random, dims)).collect::<Result<Vec<_>>>()?;
            if extra {
                inputs.extend([random_tensor(random, &[2, d])?, random_tensor(random, &[2, d])?]);
            }
            let mask = Mask { p: 0.3, seed: u64::from(random.word()), site: 1 };
            let mask = (random.below(2) == 0).then_some(mask);
            Ok(Case { op: Rc::new(Attention { heads, queries, keys, extra, mask }), inputs })
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::tensor::philox::Stream;

    /// Queries of more than one block, and keys of more than one vector, with and without a remainder.
    const LENGTHS: [usize; 5] = [15, 16, 17, 73, 145];

    fn case(extra: usize, dropped: bool, width: usize) -> (Attention, Vec<Tensor>, Tensor) {
        let sequences = Arc::new(Sequences::new(&LENGTHS, vec![3, 1, 4, 1, 5]).unwrap());
        let mut random = Stream::new(7, "attention");
        let (t, d) = (sequences.tokens(), 2 * width);
        let mut draw = |dims: &[usize]| {
            // Numbers that bf16 holds.
            random_tensor(&mut random, dims).unwrap().to_dtype(DType::BF16).unwrap().to_dtype(DType::F64).unwrap()
        };
        let mut inputs = vec![draw(&[3, t, d])];
        if extra > 0 {
            inputs.extend([draw(&[extra, d]), draw(&[extra, d])]);
        }
        let mask = dropped.then_some(Mask { p: 0.3, seed: 5, site: 4 });
        let op = Attention { heads: 2, queries: sequences.clone(), keys: sequences, extra: extra > 0, mask };
        (op, inputs, draw(&[t, d]))
    }

    /// y, row by row, by the definition.
    fn naive(op: &Attention, inputs: &[Tensor], width: usize) -> Vec<f64> {
        let values: Vec<Vec<f64>> = inputs.iter().map(|t| t.to_f64().unwrap()).collect();
        let (t, d) = (op.queries.tokens(), 2 * width);
        let extra = if op.extra { values[1].len() / d } else { 0 };
        let mut y = vec![0.0; t * d];
        for (b, h) in op.tasks() {
            let rows = op.queries.range(b);
            let key = |j: usize, of: usize| match j < extra {
                true => &values[of][j * d + h * width..][..width],
                false => &values[0][(of * t + rows.start + j - extra) * d + h * width..][..width],
            };
            for i in 0..rows.len() {
                let q = &values[0][(rows.start + i) * d + h * width..][..width];
                let dot = |k: &[f64]| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (width as f64).sqrt();
                let e: Vec<f64> = (0..extra + rows.len()).map(|j| dot(key(j, 1)).exp()).collect();
                let sum: f64 = e.iter().sum();
                let mut factors = vec![1.0; e.len()];
                if let Some(mask) = &op.mask {
                    mask.factors(op.queries.example_ids()[b], (h << 16 | i) as u32, &mut factors);
                }
                for (j, e) in e.iter().enumerate() {
                    for (k, v) in key(j, 2).iter().enumerate() {
                        y[(rows.start + i) * d + h * width + k] += factors[j] * e / sum * v;
                    }
                }
            }
        }
        y
    }

    fn run(op: &Attention, inputs: &[Tensor], dy: &Tensor, dtype: DType) -> Vec<Vec<f64>> {
        let inputs: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(dtype).unwrap()).collect();
        let (mut saved, needs) = (Saved::default(), vec![true; inputs.len()]);
        let y = op.forward(&inputs.iter().collect::<Vec<_>>(), &needs, &mut saved).unwrap();
        let grads = op.backward(saved, dy.to_dtype(dtype).unwrap(), &needs).unwrap();
        [y].into_iter().chain(grads.into_iter().flatten()).map(|t| t.to_f64().unwrap()).collect()
    }

    fn furthest(a: &[f64], b: &[f64]) -> f64 {
        let scale = math::largest(b.iter().map(|x| x.abs()));
        math::largest(a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale))
    }

    #[test]
    fn long_sequences_are_as_defined_in_every_type() {
        for (extra, dropped, width) in [(0, false, 32), (0, true, 5), (3, true, 32), (20, false, 8)] {
            let (op, inputs, dy) = case(extra, dropped, width);
            let exact = run(&op, &inputs, &dy, DType::F64);
            assert!(furthest(&exact[0], &naive(&op, &inputs, width)) < 1e-13, "extra {extra} dropped {dropped} width {width}");
            for (dtype, bound) in [(DType::F32, 1e-5), (DType::BF16, 2e-2)] {
                let found = run(&op, &inputs, &dy, dtype);
                assert_eq!(found.len(), exact.len());
                for (i, (found, exact)) in found.iter().zip(&exact).enumerate() {
                    let far = furthest(found, exact);
                    assert!(far < bound, "{dtype} extra {extra} dropped {dropped} width {width}, tensor {i}: {far}");
                }
            }
        }
    }
}
