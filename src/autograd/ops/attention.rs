//! Scaled dot-product attention over packed sequences. Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, eq. 1.

use super::dropout::{Mask, random_packing};
use crate::autograd::gradcheck::{Case, Suite, random_tensor};
use crate::autograd::{Op, Saved};
use crate::tensor::gemm::{Mat, gemm_serial};
use crate::tensor::{Float, Packing, Pooled, Tensor, rows, simd, take, zeroed};
use crate::{Error, Result, dispatch};
use std::rc::Rc;
use std::sync::Arc;

/// For each sequence and head: P = softmax(q kᵀ / √K), y = drop(P) v. Each query sees the keys of its own sequence alone.
///
/// Inputs: either qkv `[3, T, D]`, or q `[Tq, D]` and kv `[2, T, D]`; then, if `extra`, more keys and values `[E, D]` that every sequence sees
/// before its own. y `[Tq, D]`. D = H·K, head h in columns hK..(h+1)K.
///
/// With δᵢ = Σ dyᵢ yᵢ and f the dropout factors: dv = (f P)ᵀ dy, dS = P (f dy vᵀ − δ), dq = dS k / √K, dk = dSᵀ q / √K. P is computed again
/// from the saved log-sum-exp of each row, as in Dao et al. 2022, <https://arxiv.org/abs/2205.14135>: no T×T matrix is kept.
pub struct Attention {
    /// H.
    pub heads: usize,
    /// How the queries lie.
    pub queries: Arc<Packing>,
    /// How the keys and values lie, without the extra ones.
    pub keys: Arc<Packing>,
    /// Whether there are extra keys and values.
    pub extra: bool,
    /// Dropout of P: row = head · 2¹⁶ + query, column = key.
    pub mask: Option<Mask>,
}

/// The matrices of one sequence and head, each `[rows, K]` on its own.
struct Head<T: crate::tensor::Element> {
    b: usize,
    h: usize,
    q: Pooled<T>,
    k: Pooled<T>,
    v: Pooled<T>,
}

/// The inputs as slices: q, k, v and the extra k, v.
struct Inputs<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    extra: Option<(&'a [T], &'a [T])>,
    width: usize,
}

impl Attention {
    fn inputs<'a, T: Float>(&self, tensors: &[&'a Tensor]) -> Result<Inputs<'a, T>> {
        let (own, extra) = tensors.split_at(tensors.len() - if self.extra { 2 } else { 0 });
        let (tq, t) = (self.queries.tokens(), self.keys.tokens());
        let width = own.first().map_or(0, |x| x.shape().cols());
        let shapes: Vec<_> = tensors.iter().map(|x| x.shape()).collect();
        let bad = |rule| Err(Error::shape("attention", rule, &shapes));
        if self.queries.sequences() != self.keys.sequences() || self.heads == 0 || width % self.heads != 0 {
            return bad("as many query as key sequences, and D a multiple of the heads");
        }
        let (q, k, v) = match own {
            [qkv] if qkv.dims() == [3, t, width] && tq == t => {
                let all = qkv.host::<T>()?;
                (&all[..t * width], &all[t * width..2 * t * width], &all[2 * t * width..])
            }
            [q, kv] if q.dims() == [tq, width] && kv.dims() == [2, t, width] => {
                let (k, v) = kv.host::<T>()?.split_at(t * width);
                (q.host::<T>()?, k, v)
            }
            _ => return bad("qkv [3, T, D], or q [Tq, D] and kv [2, T, D]"),
        };
        let extra = match extra {
            [ek, ev] if ek.shape().cols() == width && ek.shape() == ev.shape() => Some((ek.host::<T>()?, ev.host::<T>()?)),
            [] => None,
            _ => return bad("extra keys and values [E, D]"),
        };
        Ok(Inputs { q, k, v, extra, width })
    }

    /// Every (sequence, head), each a task of its own.
    fn tasks(&self) -> Vec<(usize, usize)> {
        (0..self.queries.sequences()).flat_map(|b| (0..self.heads).map(move |h| (b, h))).collect()
    }

    fn head<T: Float>(&self, x: &Inputs<T>, b: usize, h: usize) -> Head<T> {
        let width = x.width / self.heads;
        let gather = |parts: [&[T]; 2]| {
            let n: usize = parts.iter().map(|p| p.len() / x.width.max(1)).sum();
            let mut out = take::<T>(n * width);
            let rows = parts.into_iter().flat_map(|p| p.chunks_exact(x.width));
            out.chunks_exact_mut(width).zip(rows).for_each(|(to, row)| to.copy_from_slice(&row[h * width..][..width]));
            out
        };
        let (queries, keys) = (self.queries.range(b), self.keys.range(b));
        let own = |all: &'_ [T]| keys.start * x.width..keys.end * x.width.min(all.len());
        let (ek, ev) = x.extra.unwrap_or((&[], &[]));
        Head {
            b,
            h,
            q: gather([&[], &x.q[queries.start * x.width..queries.end * x.width]]),
            k: gather([ek, &x.k[own(x.k)]]),
            v: gather([ev, &x.v[own(x.v)]]),
        }
    }

    /// Dropout factors of query row `i`, or nothing.
    fn factors<T: Float>(&self, head: &Head<T>, i: usize, out: &mut [T]) {
        if let Some(mask) = &self.mask {
            mask.factors(self.queries.examples()[head.b], (head.h << 16 | i) as u32, out);
        }
    }

    fn forward_head<T: Float>(&self, head: &Head<T>, width: usize) -> (Pooled<T>, Pooled<T>) {
        let (nq, nk) = (head.q.len() / width, head.k.len() / width);
        let mut p = scores(head, width, nq, nk);
        let mut lse = take::<T>(nq);
        let mut factors = take::<T>(nk);
        for (i, p) in p.chunks_exact_mut(nk).enumerate() {
            lse[i] = simd::dispatch(Softmax(p));
            if self.mask.is_some() {
                self.factors(head, i, &mut factors);
                p.iter_mut().zip(&*factors).for_each(|(p, &f)| *p *= f);
            }
        }
        let mut y = take::<T>(nq * width);
        gemm_serial(Mat::new(&p, nq, nk), Mat::new(&head.v, nk, width), &mut y, width, false);
        (y, lse)
    }

    fn backward_head<T: Float>(&self, head: &Head<T>, width: usize, lse: &[T], y: &[T], dy: &[T]) -> [Pooled<T>; 3] {
        let (nq, nk) = (head.q.len() / width, head.k.len() / width);
        let mut p = scores(head, width, nq, nk);
        let mut ds = take::<T>(nq * nk);
        gemm_serial(Mat::new(dy, nq, width), Mat::new(&head.v, nk, width).t(), &mut ds, nk, false);
        let mut factors = take::<T>(nk);
        factors.fill(T::ONE);
        let scale = T::of((width as f64).sqrt().recip());
        for (i, (p, ds)) in p.chunks_exact_mut(nk).zip(ds.chunks_exact_mut(nk)).enumerate() {
            let delta: T = y[i * width..][..width].iter().zip(&dy[i * width..]).map(|(&y, &dy)| y * dy).sum();
            self.factors(head, i, &mut factors);
            simd::dispatch(Backward { p, ds, factors: &factors, lse: lse[i], delta, scale });
        }
        let (mut dq, mut dk, mut dv) = (take::<T>(nq * width), take::<T>(nk * width), take::<T>(nk * width));
        gemm_serial(Mat::new(&p, nq, nk).t(), Mat::new(dy, nq, width), &mut dv, width, false);
        gemm_serial(Mat::new(&ds, nq, nk), Mat::new(&head.k, nk, width), &mut dq, width, false);
        gemm_serial(Mat::new(&ds, nq, nk).t(), Mat::new(&head.q, nq, width), &mut dk, width, false);
        [dq, dk, dv]
    }

    fn forward_host<T: Float>(&self, tensors: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let x = self.inputs::<T>(tensors)?;
        let width = x.width / self.heads;
        let outputs = rows::map(self.tasks(), |(b, h)| self.forward_head(&self.head(&x, b, h), width));
        let tq = self.queries.tokens();
        let (mut y, mut lse) = (take::<T>(tq * x.width), take::<T>(tq * self.heads));
        for ((b, h), (part, part_lse)) in self.tasks().into_iter().zip(outputs) {
            let range = self.queries.range(b);
            scatter(&part, &mut y[range.start * x.width..], x.width, h * width, width);
            scatter(&part_lse, &mut lse[range.start * self.heads..], self.heads, h, 1);
        }
        let y = Tensor::new(y, [tq, x.width])?;
        if needs.contains(&true) {
            tensors.iter().for_each(|t| saved.keep("inputs", t));
            saved.keep("y", &y);
            saved.keep("lse", &Tensor::new(lse, [tq, self.heads])?);
        }
        Ok(y)
    }

    fn backward_host<T: Float>(&self, mut saved: Saved, dy: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let tensors: Vec<Tensor> = needs.iter().map(|_| saved.take("inputs")).collect::<Result<_>>()?;
        let (y, lse) = (saved.take("y")?, saved.take("lse")?);
        let tensors: Vec<&Tensor> = tensors.iter().collect();
        let x = self.inputs::<T>(&tensors)?;
        let (all, width) = (x.width, x.width / self.heads);
        let (y, lse, dy) = (y.host::<T>()?, lse.host::<T>()?, dy.host::<T>()?);
        let parts = rows::map(self.tasks(), |(b, h)| {
            let range = self.queries.range(b);
            let own = |from: &[T], row: usize, start: usize, n: usize| -> Vec<T> {
                range.clone().flat_map(|t| from[t * row + start..][..n].iter().copied()).collect()
            };
            let (y, dy, lse) = (own(y, all, h * width, width), own(dy, all, h * width, width), own(lse, self.heads, h, 1));
            self.backward_head(&self.head(&x, b, h), width, &lse, &y, &dy)
        });
        let mut grads: Vec<_> = tensors.iter().map(|t| zeroed::<T>(t.shape().len())).collect();
        let extra = if self.extra { grads.split_off(tensors.len() - 2) } else { Vec::new() };
        let extra_rows = x.extra.map_or(0, |(k, _)| k.len() / all);
        let kv = self.keys.tokens() * all;
        // dq lies before dk and dv in one tensor, or in one of its own.
        let (first, rest) = grads.split_at_mut(1);
        let (dq, dkv) = match rest {
            [] => first[0].split_at_mut(kv),
            [dkv, ..] => (&mut first[0][..], &mut dkv[..]),
        };
        let (dk, dv) = dkv.split_at_mut(kv);
        let [mut dek, mut dev] = <[_; 2]>::try_from(extra).unwrap_or_else(|_| [take::<T>(0), take::<T>(0)]);
        for ((b, h), [pq, pk, pv]) in self.tasks().into_iter().zip(parts) {
            scatter(&pq, &mut dq[self.queries.range(b).start * all..], all, h * width, width);
            for (part, own, extra) in [(&pk, &mut *dk, &mut dek), (&pv, &mut *dv, &mut dev)] {
                let (head, tail) = part.split_at(extra_rows * width);
                scatter(tail, &mut own[self.keys.range(b).start * all..], all, h * width, width);
                for (to, from) in extra.chunks_exact_mut(all).zip(head.chunks_exact(width)) {
                    to[h * width..][..width].iter_mut().zip(from).for_each(|(to, &g)| *to += g);
                }
            }
        }
        if self.extra {
            grads.extend([dek, dev]);
        }
        let tensor = |((g, t), &need): ((Pooled<T>, &&Tensor), &bool)| need.then(|| Tensor::new(g, t.shape())).transpose();
        grads.into_iter().zip(&tensors).zip(needs).map(tensor).collect()
    }
}

/// q kᵀ / √K: `[nq, nk]`.
fn scores<T: Float>(head: &Head<T>, width: usize, nq: usize, nk: usize) -> Pooled<T> {
    let scale = T::of((width as f64).sqrt().recip());
    let mut q = take::<T>(head.q.len());
    q.iter_mut().zip(&*head.q).for_each(|(s, &q)| *s = q * scale);
    let mut s = take::<T>(nq * nk);
    gemm_serial(Mat::new(&q, nq, width), Mat::new(&head.k, nk, width).t(), &mut s, nk, false);
    s
}

/// Rows of `part` into columns `at..at + n` of rows of `cols`.
fn scatter<T: Copy>(part: &[T], to: &mut [T], cols: usize, at: usize, n: usize) {
    part.chunks_exact(n).zip(to.chunks_mut(cols)).for_each(|(from, to)| to[at..at + n].copy_from_slice(from));
}

/// Softmax of a row in place; returns its log-sum-exp.
struct Softmax<'a, T>(&'a mut [T]);

impl<T: Float> simd::Kernel for Softmax<'_, T> {
    type Output = T;
    #[inline(always)]
    fn run<const FMA: bool>(self) -> T {
        let max = self.0.iter().copied().fold(self.0[0], |a, b| a.max(b));
        self.0.iter_mut().for_each(|s| *s = (*s - max).exp());
        let sum = self.0.iter().copied().sum::<T>();
        self.0.iter_mut().for_each(|p| *p = *p / sum);
        max + sum.ln()
    }
}

/// Scores and dy vᵀ of a row become f P and dS / √K.
struct Backward<'a, T> {
    p: &'a mut [T],
    ds: &'a mut [T],
    factors: &'a [T],
    lse: T,
    delta: T,
    scale: T,
}

impl<T: Float> simd::Kernel for Backward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for ((p, ds), &f) in self.p.iter_mut().zip(self.ds.iter_mut()).zip(self.factors) {
            let probability = (*p - self.lse).exp();
            *ds = probability * (f * *ds - self.delta) * self.scale;
            *p = probability * f;
        }
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        if inputs.len() < 1 + if self.extra { 2 } else { 0 } {
            return Err(Error::invalid("attention: takes qkv, or q and kv, and the extra keys and values"));
        }
        dispatch!("attention", inputs[0].dtype(), T => self.forward_host::<T>(inputs, needs, saved))
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        dispatch!("attention", dy.dtype(), T => self.backward_host::<T>(saved, &dy, needs))
    }

    fn flops(&self, inputs: &[&Tensor], needs: &[bool]) -> (u64, u64) {
        let pairs: usize = (0..self.keys.sequences()).map(|b| self.queries.length(b) * self.keys.length(b)).sum();
        let product = 2 * (pairs * inputs[0].shape().cols()) as u64;
        // Two products forward; backward computes the scores again and four more.
        (2 * product, if needs.contains(&true) { 5 * product } else { 0 })
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "Attention",
        tolerance: 1e-6,
        case: |random| {
            let keys = random_packing(random, 5)?;
            let (heads, width) = (1 + random.below(2), 1 + random.below(4));
            let d = heads * width;
            let (split, extra) = (random.below(2) == 0, random.below(3) == 0);
            let queries = if split { Arc::new(keys.first_rows()) } else { keys.clone() };
            let t = keys.tokens();
            let mut inputs = match split {
                true => vec![random_tensor(random, &[queries.tokens(), d])?, random_tensor(random, &[2, t, d])?],
                false => vec![random_tensor(random, &[3, t, d])?],
            };
            if extra {
                inputs.extend([random_tensor(random, &[2, d])?, random_tensor(random, &[2, d])?]);
            }
            let mask = Mask { p: 0.3, seed: u64::from(random.word()), site: 1 };
            let mask = (random.below(2) == 0).then_some(mask);
            Ok(Case { op: Rc::new(Attention { heads, queries, keys, extra, mask }), inputs })
        },
    }
}
