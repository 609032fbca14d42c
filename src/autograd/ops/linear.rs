//! Linear maps with optional low-rank terms; several that read the same x run as one op.

use super::dropout::random_sequences;
use super::low_rank::{self, Placed};
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::Device;
use crate::tensor::gemm::{Init, Mat, Threads, gemm, gemm_sum};
use crate::tensor::{Accum, Mask, Scalar, Sequences, Tensor, alloc, rows, zeroed};
use crate::{Error, Result, dispatch};
use std::rc::Rc;
use std::sync::Arc;

/// y = x Wᵀ + b + Σ s · drop(x) Aᵀ Bᵀ, s = alpha / r. Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, eq. 3.
///
/// x `[.., in]`, W `[out, in]`, b `[out]`, A `[r, in]`, B `[out, r]`, y `[.., out]`. A group of G linears of one x gives y `[G, .., out]`.
/// BA is never formed. With h = drop(x) Aᵀ and dh = s dy B: dW = dyᵀ x, db = Σ dy, dB = s dyᵀ h, dA = dhᵀ drop(x),
/// dx = dy W + drop(dh A). Nothing is saved for a frozen W but W itself.
///
/// Inputs, in order: x, and for each member W, b if it has one, and A, B of each term.
pub struct Linear {
    /// The linears that read x.
    pub members: Vec<GroupedLinear>,
    /// How the rows of x lie, for dropout.
    pub sequences: Option<Arc<Sequences>>,
}

/// One linear of a group.
#[derive(Clone, Default)]
pub struct GroupedLinear {
    /// Whether it has b.
    pub bias: bool,
    /// Its low-rank terms.
    pub terms: Vec<Term>,
}

/// One low-rank term: s · drop(x) Aᵀ Bᵀ.
#[derive(Clone)]
pub struct Term {
    /// s.
    pub scale: f64,
    /// Dropout of x, each term its own.
    pub mask: Option<Mask>,
}

/// Where the inputs of a member are in the op's list.
pub(super) struct InputIndex {
    pub w: usize,
    pub bias: Option<usize>,
    /// (A, B) of each term.
    pub terms: Vec<(usize, usize)>,
}

impl Linear {
    pub(super) fn places(&self) -> (Vec<InputIndex>, usize) {
        let mut next = 1;
        let mut next_index = || {
            next += 1;
            next - 1
        };
        let place = |m: &GroupedLinear| InputIndex {
            w: next_index(),
            bias: m.bias.then(&mut next_index),
            terms: m.terms.iter().map(|_| (next_index(), next_index())).collect(),
        };
        let places = self.members.iter().map(place).collect();
        (places, next)
    }

    /// Checks all shapes; returns the width of the output.
    pub(super) fn check(&self, inputs: &[&Tensor], places: &[InputIndex], count: usize) -> Result<usize> {
        if inputs.len() != count || places.is_empty() {
            return Err(Error::invalid(format!("linear: takes {count} inputs, got {}", inputs.len())));
        }
        let x = inputs[0].shape();
        let out = inputs[places[0].w].shape().rows();
        for p in places {
            let w = inputs[p.w].shape();
            if w.dims() != [out, x.cols()] {
                return Err(Error::shape("linear", "x [.., in] and w [out, in]", &[x, w]));
            }
            if let Some(b) = p.bias
                && inputs[b].dims() != [out]
            {
                return Err(Error::shape("linear", "w [out, in] and bias [out]", &[w, inputs[b].shape()]));
            }
            for &(a, b) in &p.terms {
                let (a, b) = (inputs[a].shape(), inputs[b].shape());
                if a.dims().len() != 2 || a.cols() != x.cols() || b.dims() != [out, a.rows()] {
                    return Err(Error::shape("linear", "w [out, in], A [r, in] and B [out, r]", &[w, a, b]));
                }
            }
        }
        let masked = self.members.iter().flat_map(|m| &m.terms).any(|t| t.mask.is_some());
        if masked && self.sequences.as_ref().map(|p| p.tokens()) != Some(x.rows()) {
            return Err(Error::shape("linear", "one row per packed token, for dropout", &[x]));
        }
        Ok(out)
    }

    /// All terms of all members, in order.
    fn placed_terms<'a>(&'a self, places: &[InputIndex]) -> Vec<Placed<'a>> {
        let members = self.members.iter().zip(places).enumerate();
        let terms = members
            .flat_map(|(member, (m, p))| m.terms.iter().zip(p.terms.clone()).map(move |(term, (a, b))| Placed { member, term, a, b }));
        terms.collect()
    }

    fn forward_host<T: Scalar>(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let (places, count) = self.places();
        let out = self.check(inputs, &places, count)?;
        let x = Mat::<T::Acc>::of(inputs[0])?;
        let n = x.rows();
        let terms = self.placed_terms(&places);
        let hidden = low_rank::hidden(&terms, inputs, x, self.sequences.as_deref())?;
        let mut y = alloc::<T>(places.len() * n * out);
        let scaled: Vec<_> = terms.iter().map(|t| low_rank::scaled::<T::Acc>(inputs[t.b], t.term.scale)).collect::<Result<_>>()?;
        let mut column = 0;
        for (member, (p, y)) in places.iter().zip(y.chunks_mut((n * out).max(1))).enumerate() {
            let bias = p.bias.map(|b| inputs[b].to_accum::<T::Acc>()).transpose()?;
            let start = bias.as_ref().map_or(Init::Zero, |b| Init::Bias(b));
            let mut products = vec![(x, Mat::of(inputs[p.w])?.t())];
            for (t, b) in terms.iter().zip(&scaled).filter(|(t, _)| t.member == member) {
                let r = inputs[t.a].shape().rows();
                if let Some(h) = &hidden {
                    products.push((Mat::of(h)?.cols_from(column, r), Mat::new(b, out, r).t()));
                }
                column += r;
            }
            gemm_sum(&products, start, y, out, Threads::Parallel);
            saved.keep_if(needs[0], "w", inputs[p.w]);
        }
        saved.keep_if(places.iter().any(|p| needs[p.w] || p.terms.iter().any(|&(a, _)| needs[a])), "x", inputs[0]);
        for t in &terms {
            // The model's own; kept for its shape too.
            saved.keep_if(needs.contains(&true), "a", inputs[t.a]);
            saved.keep_if(needs[0] || needs[t.a], "b", inputs[t.b]);
        }
        if let Some(h) = hidden {
            saved.keep_if(places.iter().any(|p| p.terms.iter().any(|&(_, b)| needs[b])), "h", &h);
        }
        let shape = inputs[0].shape().with_cols(out);
        let group: &[usize] = if places.len() > 1 { &[places.len()] } else { &[] };
        Tensor::new(y, [group, shape.dims()].concat())
    }

    fn backward_host<T: Scalar>(&self, mut saved: Saved, dy: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (places, count) = self.places();
        let mut grads: Vec<Option<Tensor>> = (0..count).map(|_| None).collect();
        let (out, n) = (dy.shape().cols(), dy.shape().rows() / places.len());
        let dy_members: Vec<Tensor> = match places.len() {
            1 => vec![dy.reshape([n, out])?],
            g => (0..g).map(|i| dy.reshape([g, n, out])?.index(i)).collect::<Result<_>>()?,
        };
        let x = saved.take("x").ok();
        for (p, dy) in places.iter().zip(&dy_members) {
            if let (true, Some(x)) = (needs[p.w], &x) {
                grads[p.w] = Some(product::<T::Acc>(Mat::of(dy)?.t(), Mat::of(x)?)?);
            }
            if let Some(b) = p.bias.filter(|&b| needs[b]) {
                grads[b] = Some(column_sums::<T>(dy.host::<T>()?, n, out)?);
            }
        }
        let weights: Vec<Tensor> = if needs[0] { places.iter().map(|_| saved.take("w")).collect::<Result<_>>()? } else { Vec::new() };
        let d = weights.first().or(x.as_ref()).map_or(0, |t| t.shape().cols());
        let dims = &dy.dims()[usize::from(places.len() > 1)..];
        let shape = crate::tensor::Shape::from(dims).with_cols(d);
        let mut products = Vec::new();
        for (dy, w) in dy_members.iter().zip(&weights) {
            products.push((Mat::of(dy)?, Mat::of(w)?));
        }
        let terms = self.placed_terms(&places);
        if !terms.iter().any(|t| needs[0] || needs[t.a] || needs[t.b]) {
            if needs[0] {
                let mut dx = alloc::<T>(n * d);
                gemm_sum(&products, Init::Zero, &mut dx, d, Threads::Parallel);
                grads[0] = Some(Tensor::new(dx, &shape)?);
            }
            return Ok(grads);
        }
        let mut dx = alloc::<T::Acc>(if needs[0] { n * d } else { 0 });
        if needs[0] {
            gemm_sum(&products, Init::Zero, &mut dx, d, Threads::Parallel);
        }
        low_rank::backward(&terms, saved, &dy_members, x.as_ref(), self.sequences.as_deref(), needs, &mut dx, &mut grads)?;
        if needs[0] {
            grads[0] = Some(Tensor::new(T::narrow_all(dx), &shape)?);
        }
        Ok(grads)
    }
}

/// a b as a tensor `[a.rows, b.cols]`.
fn product<S: Accum>(a: Mat<S>, b: Mat<S>) -> Result<Tensor> {
    let (m, n) = (a.rows(), b.cols());
    let mut c = alloc::<S>(m * n);
    gemm(a, b, &mut c, n, false);
    Tensor::new(c, [m, n])
}

/// Σ over the rows of `[n, cols]`.
fn column_sums<T: Scalar>(x: &[T], n: usize, cols: usize) -> Result<Tensor> {
    let part = |range: std::ops::Range<usize>| {
        let mut sum = zeroed::<T::Acc>(cols);
        let rows = x[range.start * cols..range.end * cols].chunks_exact(cols.max(1));
        rows.for_each(|x| sum.iter_mut().zip(x).for_each(|(s, x)| *s += x.widen()));
        sum
    };
    let total = rows::reduce(n, cols, part, |sum, part| sum.iter_mut().zip(&*part).for_each(|(s, &p)| *s += p));
    Tensor::new(total.unwrap_or_else(|| zeroed(cols)), [cols])
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        dispatch!("linear", inputs[0].dtype(), T => self.forward_host::<T>(inputs, needs, saved))
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        dispatch!("linear", dy.dtype(), T => self.backward_host::<T>(saved, &dy, needs))
    }

    fn flops(&self, inputs: &[&Tensor], needs: &[bool]) -> (u64, u64) {
        let n = inputs[0].shape().rows();
        let product = |i: usize| 2 * (n * inputs[i].shape().len()) as u64;
        let (mut forward, mut backward) = (0, 0);
        for p in self.places().0 {
            forward += product(p.w);
            backward += product(p.w) * (u64::from(needs[0]) + u64::from(needs[p.w]));
            for (a, b) in p.terms {
                forward += product(a) + product(b);
                backward += product(b) * (u64::from(needs[b]) + u64::from(needs[0] || needs[a]));
                backward += product(a) * (u64::from(needs[a]) + u64::from(needs[0]));
            }
        }
        (forward, backward)
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

impl Tape<'_> {
    /// x Wᵀ + b without low-rank terms; see [`Linear`].
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn linear(&mut self, x: &Var, w: &Var, bias: Option<&Var>) -> Result<Var> {
        let op = Linear { members: vec![GroupedLinear { bias: bias.is_some(), terms: Vec::new() }], sequences: None };
        let inputs: Vec<&Var> = [x, w].into_iter().chain(bias).collect();
        self.apply(op, &inputs)
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "Linear",
        tolerance: 1e-8,
        case: |random| {
            let sequences = random_sequences(random, 3)?;
            let (input, output) = (random_size(random, 6), random_size(random, 6));
            let mut inputs = vec![random_tensor(random, &[sequences.tokens(), input])?];
            let mut members = Vec::new();
            for m in 0..1 + random.below(3) {
                let bias = random.below(2) == 0;
                inputs.push(random_tensor(random, &[output, input])?);
                if bias {
                    inputs.push(random_tensor(random, &[output])?);
                }
                let mut terms = Vec::new();
                for t in 0..random.below(3) {
                    let r = random_size(random, 3);
                    inputs.push(random_tensor(random, &[r, input])?);
                    inputs.push(random_tensor(random, &[output, r])?);
                    let mask = Mask { p: 0.4, seed: u64::from(random.word()), site: (10 * m + t) as u32 };
                    terms.push(Term { scale: 2.0, mask: (random.below(2) == 0).then_some(mask) });
                }
                members.push(GroupedLinear { bias, terms });
            }
            Ok(Case { op: Rc::new(Linear { members, sequences: Some(sequences) }), inputs })
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Parameter;

    #[test]
    fn a_frozen_weight_keeps_no_activation() {
        let t = |dims: &[usize]| random_tensor(&mut crate::tensor::philox::Stream::new(1, "t"), dims).unwrap();
        let (x, w, a, b) = (Parameter::new("x", t(&[3, 4])), t(&[2, 4]), Parameter::new("a", t(&[1, 4])), Parameter::new("b", t(&[2, 1])));
        let saved = |with_x: bool, with_b: bool| {
            let mut tape = Tape::with_ledger();
            let x = if with_x { tape.parameter(&x) } else { tape.constant(x.value()) };
            let (w, a) = (tape.constant(&w), tape.constant(a.value()));
            let b = if with_b { tape.parameter(&b) } else { tape.constant(b.value()) };
            let op = Linear { members: vec![GroupedLinear { bias: false, terms: vec![Term { scale: 1.0, mask: None }] }], sequences: None };
            tape.apply(op, &[&x, &w, &a, &b]).unwrap();
            tape.ledger()[0].saved.iter().map(|s| s.0).collect::<Vec<_>>()
        };
        assert!(saved(false, false).is_empty());
        assert_eq!(saved(true, false), ["w", "a", "b"]);
        assert_eq!(saved(false, true), ["a", "h"]);
    }

    #[test]
    fn errors_name_the_rule_and_the_shapes() {
        use crate::AtLayer;
        let mut tape = Tape::new();
        let x = tape.constant(&Tensor::zeros(crate::tensor::DType::F32, [3, 4]));
        let w = tape.constant(&Tensor::zeros(crate::tensor::DType::F32, [2, 5]));
        let e = tape.linear(&x, &w, None).at(|| "distilbert.layer.3.attention.q_lin".into()).unwrap_err();
        assert_eq!(e.to_string(), "distilbert.layer.3.attention.q_lin: linear: expected x [.., in] and w [out, in], got [3, 4] and [2, 5]");
    }
}
