//! [`Attention`](super::Attention) on the host, in blocks of queries. Dao et al. 2022, <https://arxiv.org/abs/2205.14135>.
//!
//! A task is one head of one sequence. It computes the scores of `QUERIES` queries to all keys at a time, so no `[nq, nk]` matrix is ever whole in
//! memory. Forward keeps one number for each query, the log-sum-exp of its scores: backward gets P back as exp(S − lse) and reads y instead of P for
//! δᵢ = Σⱼ Pᵢⱼ dPᵢⱼ = dyᵢ · yᵢ.
//!
//! Scores are computed transposed, Sᵀ = k qᵀ, and so are P, dP and dS: `attention_scores.rs` says why. A task copies its head first, and writes its
//! columns of y or of the gradients itself.

use super::attention_scores::{Scores, deltas, write};
use crate::Result;
use crate::tensor::gemm::{Mat, gemm_packed, gemm_serial, multiplies_pairs};
use crate::tensor::{Accum, AttentionInputs, Mask, MaskColumns, Pooled, Scalar, Sequences, Shape, Tensor, alloc, rows, zeroed};

/// Queries of a block: their scores `[nk, QUERIES]` stay in the second-level cache. A multiple of the rows of every register tile of the matrix product,
/// and of the columns of the widest one. It is part of a gradient's bits, because dk and dv are summed over blocks.
const QUERIES: usize = 144;

/// y `[Tq, D]`, and the log-sum-exp of each row of scores, sequence by sequence, head by head: `[H Tq]`.
pub(super) fn forward<T: Scalar>(x: &AttentionInputs) -> Result<(Tensor, Tensor)> {
    let (qkv, all_keys) = x.joined::<T::Acc>()?;
    let (tq, d) = (x.queries.tokens(), qkv[0].shape().cols());
    let qkv = [Mat::of(&qkv[0])?, Mat::of(&qkv[1])?, Mat::of(&qkv[2])?];
    let mut y = alloc::<T>(tq * d);
    let tasks = heads(x).into_iter().zip(cells(x.heads, x.queries, &mut y)).collect();
    let parts = rows::map(tasks, |(at, y)| Head::new(x, qkv, &all_keys, at).forward(y));
    let lse: Vec<T::Acc> = parts.concat();
    Ok((Tensor::new(y, [tq, d])?, Tensor::new(lse, [x.heads * tq])?))
}

/// The gradients of the one, two or three input tensors of `shapes`, and of the extra keys and values, from y, the log-sum-exps and dy.
pub(super) fn backward<T: Scalar>(x: &AttentionInputs, [y, lse, dy]: [&Tensor; 3], shapes: &[&Shape]) -> Result<Vec<Tensor>> {
    let (qkv, all_keys) = x.joined::<T::Acc>()?;
    let qkv = [Mat::of(&qkv[0])?, Mat::of(&qkv[1])?, Mat::of(&qkv[2])?];
    let (y, dy, lse) = (Mat::of(y)?, Mat::of(dy)?, lse.host::<T::Acc>()?);
    let mut buffers: Vec<Pooled<T>> = shapes.iter().map(|shape| alloc(shape.len())).collect();
    // The buffers hold dq, dk and dv in this order: one buffer all three, or two buffers one and two of them, or three buffers one each.
    let mut thirds = buffers.iter_mut().zip(&x.qkv).flat_map(|(buffer, part)| buffer.chunks_mut(part.shape().len().max(1)));
    let [dq, dk, dv] = [x.queries, x.keys, x.keys].map(|rows| cells(x.heads, rows, thirds.next().unwrap_or_default()));
    let tasks = heads(x).into_iter().zip(dq.into_iter().zip(dk).zip(dv)).collect();
    let parts = rows::map(tasks, |((b, h), ((dq, dk), dv))| {
        let [y, dy] = [y, dy].map(|m| columns(m, x.queries, (b, h), x.heads));
        let lse = &lse[x.queries.range(b).start * x.heads + h * y.rows()..][..y.rows()];
        Head::new(x, qkv, &all_keys, (b, h)).backward([y, dy], lse, [dq, dk, dv], x.extra_rows())
    });
    let mut grads = buffers.into_iter().zip(shapes).map(|(g, &shape)| Tensor::new(g, shape)).collect::<Result<Vec<_>>>()?;
    for (i, extra) in x.extra.iter().flatten().enumerate() {
        grads.push(extra_gradient(x, &parts.iter().map(|part| &*part[i]).collect::<Vec<_>>(), extra)?);
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

/// The rows of each task in `of` `[T, D]`: the elements of its head in each row of its sequence.
fn cells<'a, T>(heads: usize, sequences: &Sequences, of: &'a mut [T]) -> Vec<Vec<&'a mut [T]>> {
    let width = of.len() / (sequences.tokens() * heads).max(1);
    let mut all = of.chunks_exact_mut(width.max(1));
    let mut cells = Vec::with_capacity(sequences.count() * heads);
    for rows in (0..sequences.count()).map(|b| sequences.length(b)) {
        let first = cells.len();
        cells.extend((0..heads).map(|_| Vec::with_capacity(rows)));
        for _ in 0..rows {
            cells[first..].iter_mut().for_each(|cells: &mut Vec<_>| cells.push(all.next().unwrap_or_default()));
        }
    }
    cells
}

/// The gradient of extra keys or values `[E, D]`: the sum over the sequences of the E rows of each head, `parts`.
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

/// A matrix whose rows are read many times: copied, so that they lie next to each other. In place, the rows of a head are D elements apart, and may
/// share few lines of the first-level cache. But bf16 that is multiplied in pairs stays where it is.
struct Near<'a, S: Accum> {
    from: Mat<'a, S>,
    copy: Option<Pooled<S>>,
}

impl<'a, S: Accum> Near<'a, S> {
    fn new(from: Mat<'a, S>) -> Self {
        Near { from, copy: (!multiplies_pairs()).then(|| from.to_accum()) }
    }

    fn mat(&self) -> Mat<'_, S> {
        self.copy.as_ref().map_or(self.from, |copy| Mat::new(copy, self.from.rows(), self.from.cols()))
    }
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

    /// The dropout factors of `n` queries from `first` on, if there is dropout.
    fn factors(&self, first: usize, n: usize) -> Option<MaskColumns<S>> {
        self.mask.map(|(mask, example)| mask.columns(example, (self.index << 16 | first) as u32, n))
    }

    /// 1 / √K.
    fn scale(&self) -> S {
        S::of((self.q.cols() as f64).sqrt().recip())
    }

    /// Writes y `[nq, K]`. Returns the log-sum-exp of the scores of each query.
    fn forward<T: Scalar<Acc = S>>(&self, mut y: Vec<&mut [T]>) -> Vec<S> {
        let (nq, width) = (self.q.rows(), self.q.cols());
        let near = [self.q, self.k, self.v].map(Near::new);
        let [q, k, v] = near.each_ref().map(Near::mat);
        let mut scores = Scores::<T>::new(QUERIES.min(nq), k.rows());
        let v = scores.pack(v);
        let (mut sums, mut all_lse) = (alloc(QUERIES.min(nq) * width), Vec::with_capacity(nq));
        for (i, y) in y.chunks_mut(QUERIES).enumerate() {
            let (first, n) = (i * QUERIES, y.len());
            scores.multiply(k, q.rows_from(first, n)); // k qᵀ
            let [sum, lse] = scores.softmax(self.scale(), self.factors(first, n));
            gemm_packed(scores.rounded(n).t(), &v, &mut sums, width, false);
            write(&sums, Some(&sum), y); // drop(P) v
            all_lse.extend_from_slice(&lse[..n]);
        }
        all_lse
    }

    /// Writes dq `[nq, K]`, dk and dv `[nk, K]`, from y and dy `[nq, K]` and the log-sum-exps. Leaves out the first `extra` rows of dk and dv, and returns
    /// them.
    fn backward<T: Scalar<Acc = S>>(&self, [y, dy]: [Mat<S>; 2], lse: &[S], to: [Vec<&mut [T]>; 3], extra: usize) -> [Vec<S>; 2] {
        let (nq, nk, width) = (self.q.rows(), self.k.rows(), self.q.cols());
        let [mut dq, mut dk, mut dv] = to;
        let near = [self.q, self.k, self.v, dy].map(Near::new);
        let [q, k, v, dy] = near.each_ref().map(Near::mat);
        let [mut scores, mut d_scores] = [(); 2].map(|()| Scores::<T>::new(QUERIES.min(nq), nk));
        let packed_k = d_scores.pack(k);
        let (mut dq_sums, mut dk_sums, mut dv_sums) = (alloc(QUERIES.min(nq) * width), alloc(nk * width), alloc(nk * width));
        for (i, dq) in dq.chunks_mut(QUERIES).enumerate() {
            let (first, n) = (i * QUERIES, dq.len());
            let [q, y, dy] = [q, y, dy].map(|m| m.rows_from(first, n));
            scores.multiply(k, q); // k qᵀ
            d_scores.multiply(v, dy); // v dyᵀ
            let each = [&lse[first..][..n], &deltas(y, dy)];
            scores.gradient(&mut d_scores, each, self.scale(), self.factors(first, n));
            gemm_serial(scores.rounded(n), dy, &mut dv_sums, width, i > 0); // dv += drop(P)ᵀ dy
            gemm_serial(d_scores.rounded(n), q, &mut dk_sums, width, i > 0); // dk += dSᵀ q / √K
            gemm_packed(d_scores.rounded(n).t(), &packed_k, &mut dq_sums, width, false); // dq = dS k / √K
            write(&dq_sums, None, dq);
        }
        [(&dk_sums, &mut dk), (&dv_sums, &mut dv)].map(|(sums, to)| {
            let (extra, own) = sums.split_at(extra * width);
            write(own, None, to);
            extra.to_vec()
        })
    }
}
