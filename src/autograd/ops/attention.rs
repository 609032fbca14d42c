//! Scaled dot-product attention over packed sequences. Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, equation 1.
//!
//! [`Attention::plain`] is the textbook form, in scalar loops. `attention_fast.rs` computes the same in blocks, and
//! `cuda::launch::attention` on a GPU.
//!
//! In `attention_inputs.rs`, `split` views the op's one, two or three input tensors as q, k and v. `joined` puts the extra keys and values,
//! if there are any, before the rows of each sequence. `cut`, below, is the reverse of `split` for gradients.

use super::attention_fast;
use crate::autograd::{Op, Saved};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Mask, Sequences, Shape, Tensor, on_device};
use crate::{Result, dispatch};
use std::sync::Arc;

/// For each sequence and head: y = drop(P) v with the probabilities P = softmax(q kᵀ / √K), `[nq, nk]`: a row for each query.
///
/// In one sequence there are nq queries and nk keys, the extra ones among them. In the batch there are Tq queries and T keys, and E extra
/// keys that every sequence sees. K is the width of a head; k, in small, are the keys.
///
/// Packed sequences: q `[Tq, D]`, k and v `[T, D]` have the rows of all sequences, one sequence after another, without padding. A query
/// sees the keys of its own sequence alone. The queries may be fewer than the keys: the classifier reads only `[CLS]`, so the last block's
/// queries are the first row of each sequence.
///
/// Inputs: qkv `[3, T, D]`, or q `[Tq, D]` and kv `[2, T, D]`, or q, k and v; then, if `extra`, keys and values `[E, D]` that every
/// sequence sees before its own (prefix tuning trains them). y `[Tq, D]`. D = H·K; head i has the columns iK..(i + 1)K.
///
/// With the scores S = q kᵀ / √K, the dropout factors f (0 or 1/(1 − p)) and dP = f ⊙ dy vᵀ: dv = (f ⊙ P)ᵀ dy, dS = P ⊙ (dP − δ) with
/// δᵢ = Σⱼ Pᵢⱼ dPᵢⱼ, dq = dS k / √K, dk = dSᵀ q / √K.
///
/// Saved: the inputs; y, because δᵢ = dyᵢ · yᵢ (in one head: Σⱼ Pᵢⱼ fᵢⱼ vⱼ is yᵢ); and one number for each row of scores, its log-sum-exp
/// lse: backward gets P back as exp(S − lse). P is not saved, nor is a dropout mask; but a GPU's tensor-core kernels save one bit of the
/// mask for each score, because to draw it twice more costs more. In bf16, drop(P) and dS are rounded to bf16 for the products where
/// these multiply bf16: on a GPU, and on a host with pairs of bf16.
pub struct Attention {
    /// H.
    pub heads: usize,
    /// Sequence boundaries of the queries.
    pub queries: Arc<Sequences>,
    /// Sequence boundaries of the keys and values, without the extra ones.
    pub keys: Arc<Sequences>,
    /// Whether there are extra keys and values.
    pub extra: bool,
    /// Dropout of P: row = head · 2¹⁶ + query, column = key.
    pub mask: Option<Mask>,
}

impl Attention {
    /// y, and the gradients of all inputs in their order, in scalar loops in f64. Slow; the tests compare the fast form with it.
    ///
    /// # Errors
    /// If the shapes do not fit, or a tensor is not f64.
    pub fn plain(&self, inputs: &[&Tensor], dy: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let x = self.split(inputs)?;
        // k, v and `all_keys` have the extra rows; `self.keys` does not.
        let ([q, k, v], all_keys) = x.joined::<f64>()?;
        let d = q.shape().cols();
        let (q, k, v, dy) = (q.host::<f64>()?, k.host::<f64>()?, v.host::<f64>()?, dy.host::<f64>()?);
        let [mut y, mut dq] = [(); 2].map(|()| vec![0.0; q.len()]);
        let [mut dk, mut dv] = [(); 2].map(|()| vec![0.0; k.len()]);
        let (width, scale) = (d / self.heads, ((d / self.heads) as f64).sqrt().recip());
        for (b, head) in (0..all_keys.count()).flat_map(|b| (0..self.heads).map(move |head| (b, head))) {
            // The elements of row i that belong to this head.
            let at = |i: usize| i * d + head * width..i * d + (head + 1) * width;
            for i in self.queries.range(b) {
                // Row i of each matrix: one number for each key. First P = softmax(q kᵀ / √K).
                let p = probabilities(&q[at(i)], all_keys.range(b).map(|j| &k[at(j)]), scale);
                let mut f = vec![1.0; p.len()]; // dropout factors
                if let Some(mask) = &self.mask {
                    let row = i - self.queries.range(b).start;
                    mask.factors(self.queries.example_ids()[b], (head << 16 | row) as u32, &mut f);
                }
                let dp: Vec<f64> = all_keys.range(b).zip(&f).map(|(j, f)| f * dot(&dy[at(i)], &v[at(j)])).collect(); // dP = f ⊙ dy vᵀ
                let delta = dot(&p, &dp); // δᵢ = Σⱼ Pᵢⱼ dPᵢⱼ
                for (j, ((p, f), dp)) in all_keys.range(b).zip(p.iter().zip(&f).zip(&dp)) {
                    let ds = p * (dp - delta); // dS = P ⊙ (dP − δ)
                    add(&mut y[at(i)], f * p, &v[at(j)]); // y = (f ⊙ P) v
                    add(&mut dv[at(j)], f * p, &dy[at(i)]); // dv = (f ⊙ P)ᵀ dy
                    add(&mut dq[at(i)], ds * scale, &k[at(j)]); // dq = dS k / √K
                    add(&mut dk[at(j)], ds * scale, &q[at(i)]); // dk = dSᵀ q / √K
                }
            }
        }
        let [(dk, extra_dk), (dv, extra_dv)] = [dk, dv].map(|g| part_extra(&g, &all_keys, x.extra_rows() * d, d));
        let shapes: Vec<_> = inputs.iter().map(|t| t.shape()).collect();
        let grads = cut(&[dq, dk, dv, extra_dk, extra_dv].concat(), &shapes)?;
        Ok((Tensor::new(y, [self.queries.tokens(), d])?, grads))
    }
}

/// Row i of P, from row i of q and the keys: softmax(q kᵀ / √K). `scale` is 1 / √K.
pub(super) fn probabilities<'k>(q: &[f64], keys: impl Iterator<Item = &'k [f64]>, scale: f64) -> Vec<f64> {
    let mut p: Vec<f64> = keys.map(|k| dot(q, k) * scale).collect();
    softmax(&mut p);
    p
}

/// Parts the gradient of the joined keys or values. In each sequence, the first `extra_len` elements belong to the extra rows: their sum
/// over the sequences is the gradient of the extra rows. The others, one sequence after another, are the gradient of the sequences' own
/// rows `[T, D]`.
fn part_extra(joined: &[f64], all_keys: &Sequences, extra_len: usize, d: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut own, mut sum) = (Vec::new(), vec![0.0; extra_len]);
    for rows in (0..all_keys.count()).map(|b| all_keys.range(b)) {
        let (first, last) = joined[rows.start * d..rows.end * d].split_at(extra_len);
        add(&mut sum, 1.0, first);
        own.extend(last);
    }
    (own, sum)
}

/// Σ aⱼ bⱼ.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// sum += s · x.
fn add(sum: &mut [f64], s: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += s * x);
}

/// e^xⱼ / Σ e^xⱼ; subtracting the largest x changes nothing, and keeps e^x finite.
fn softmax(x: &mut [f64]) {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f64 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let x = self.split(inputs)?;
        let (y, lse, mask_bits) = on_device!(
            x.qkv[0],
            |device| launch::attention::forward(device, &x, needs.contains(&true)),
            dispatch!("attention", x.qkv[0].dtype(), T => attention_fast::forward::<T>(&x)).map(|(y, lse)| (y, lse, None::<Tensor>))
        )?;
        if needs.contains(&true) {
            inputs.iter().for_each(|t| saved.keep("inputs", t));
            saved.keep("y", &y);
            saved.keep("lse", &lse);
            mask_bits.iter().for_each(|bits| saved.keep("mask_bits", bits));
        }
        Ok(y)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let inputs = needs.iter().map(|_| saved.take("inputs")).collect::<Result<Vec<_>>>()?;
        let x = self.split(&inputs.iter().collect::<Vec<_>>())?;
        let (y, lse) = (saved.take("y")?, saved.take("lse")?);
        // Only a GPU keeps them.
        #[cfg(feature = "cuda")]
        let mask_bits = saved.take("mask_bits").ok();
        // The fast form cuts dq, dk and dv to these shapes, and adds the gradients of the extra rows itself.
        let own_shapes: Vec<_> = inputs[..inputs.len() - if self.extra { 2 } else { 0 }].iter().map(Tensor::shape).collect();
        let grads = on_device!(
            dy,
            |device| {
                let grads = inputs.iter().map(|t| Tensor::empty_on(device, t.dtype(), t.shape())).collect::<Result<Vec<_>>>()?;
                // The kernels write the gradients. `split` gives views of them: dq, dk and dv.
                launch::attention::backward(
                    device,
                    &x,
                    [&y, &lse, &dy],
                    mask_bits.as_ref(),
                    &self.split(&grads.iter().collect::<Vec<_>>())?,
                )?;
                Ok(grads)
            },
            dispatch!("attention", dy.dtype(), T => attention_fast::backward::<T>(&x, [&y, &lse, &dy], &own_shapes))
        )?;
        Ok(grads.into_iter().zip(needs).map(|(g, &need)| need.then_some(g)).collect())
    }

    fn flops(&self, inputs: &[&Tensor], needs: &[bool]) -> (u64, u64) {
        let pairs: usize = (0..self.keys.count()).map(|b| self.queries.length(b) * self.keys.length(b)).sum();
        let one_product = 2 * (pairs * inputs[0].shape().cols()) as u64;
        // The E extra keys are few and left out. Forward has two products. Backward computes the scores again, and has four more.
        (2 * one_product, if needs.contains(&true) { 5 * one_product } else { 0 })
    }
}

/// Cuts tensors of `shapes` from `all`. In one, two or three tensors, the elements are those of q, then k, then v.
fn cut(mut all: &[f64], shapes: &[&Shape]) -> Result<Vec<Tensor>> {
    let next = |shape: &&Shape| {
        let (own, after) = all.split_at(shape.len());
        all = after;
        Tensor::new(own.to_vec(), *shape)
    };
    shapes.iter().map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::super::testing::check_plain;
    use super::*;
    use crate::autograd::gradcheck::random_tensor;
    use crate::tensor::DType;
    use crate::tensor::math;
    use crate::tensor::philox::Stream;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn the_op_is_its_plain_form(seed: u64) {
            let mut random = Stream::new(seed, "attention");
            let (op, inputs) = cases::attention(&mut random).unwrap();
            check_plain(&op, &inputs, &mut random, |inputs, dy| op.plain(inputs, dy).unwrap());
        }
    }

    #[test]
    fn the_probabilities_times_v_are_the_output() {
        for extra in [0, 3] {
            let (op, inputs, _) = case(extra, false, 8);
            let inputs: Vec<&Tensor> = inputs.iter().collect();
            let (y, p) = (
                run(&op, &inputs.iter().map(|t| (*t).clone()).collect::<Vec<_>>(), &inputs[0].index(0).unwrap(), DType::F64),
                op.probabilities(&inputs).unwrap(),
            );
            let x = op.split(&inputs).unwrap();
            let ([_, _, v], keys) = x.joined::<f64>().unwrap();
            let (v, d) = (v.host::<f64>().unwrap(), 16);
            assert_eq!(p.len(), 2 * LENGTHS.len());
            for (b, head) in (0..LENGTHS.len()).flat_map(|b| [(b, 0), (b, 1)]) {
                for (i, row) in p[2 * b + head].iter().enumerate() {
                    assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12 && row.len() == LENGTHS[b] + extra);
                    for c in 8 * head..8 * head + 8 {
                        let sum: f64 = row.iter().zip(keys.range(b)).map(|(p, j)| p * v[j * d + c]).sum();
                        assert!((sum - y[0][(op.queries.range(b).start + i) * d + c]).abs() < 1e-12);
                    }
                }
            }
        }
    }

    #[test]
    fn long_sequences_are_as_defined_in_every_type() {
        for (extra, dropped, width) in [(0, false, 32), (0, true, 5), (3, true, 32), (20, false, 8)] {
            let (op, inputs, dy) = case(extra, dropped, width);
            let exact = run(&op, &inputs, &dy, DType::F64);
            let (y, grads) = op.plain(&inputs.iter().collect::<Vec<_>>(), &dy).unwrap();
            for (exact, plain) in exact.iter().zip([y].iter().chain(&grads)) {
                assert!(furthest(exact, &plain.to_f64().unwrap()) < 1e-12, "extra {extra} dropped {dropped} width {width}");
            }
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
