//! Linear maps with optional low-rank terms; several that read the same x run as one op.

use super::dropout::{Mask, random_packing};
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
use crate::tensor::gemm::{Mat, gemm};
use crate::tensor::{Float, Packing, Tensor, rows, take, zeroed};
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
    pub members: Vec<Member>,
    /// How the rows of x lie, for dropout.
    pub packing: Option<Arc<Packing>>,
}

/// One linear of a group.
#[derive(Clone, Default)]
pub struct Member {
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
struct Places {
    w: usize,
    bias: Option<usize>,
    /// (A, B) of each term.
    terms: Vec<(usize, usize)>,
}

impl Linear {
    fn places(&self) -> (Vec<Places>, usize) {
        let mut next = 1;
        let mut take = || {
            next += 1;
            next - 1
        };
        let place =
            |m: &Member| Places { w: take(), bias: m.bias.then(&mut take), terms: m.terms.iter().map(|_| (take(), take())).collect() };
        let places = self.members.iter().map(place).collect();
        (places, next)
    }

    /// Checks all shapes; returns the width of the output.
    fn check(&self, inputs: &[&Tensor], places: &[Places], count: usize) -> Result<usize> {
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
        if masked && self.packing.as_ref().map(|p| p.tokens()) != Some(x.rows()) {
            return Err(Error::shape("linear", "one row per packed token, for dropout", &[x]));
        }
        Ok(out)
    }

    /// drop(x), in a buffer of its own, or `None` where nothing is dropped.
    fn dropped<T: Float>(&self, term: &Term, cols: usize, x: &[T]) -> Option<crate::tensor::Pooled<T>> {
        let (mask, packing) = (term.mask.as_ref()?, self.packing.as_ref()?);
        let mut y = take::<T>(x.len());
        mask.apply(packing, cols, x, &mut y);
        Some(y)
    }

    fn forward_host<T: Float>(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let (places, count) = self.places();
        let out = self.check(inputs, &places, count)?;
        let (n, d) = (inputs[0].shape().rows(), inputs[0].shape().cols());
        let x = inputs[0].host::<T>()?;
        let mut y = take::<T>(places.len() * n * out);
        let trained = places.iter().any(|p| needs[p.w] || p.terms.iter().any(|&(a, _)| needs[a]));
        saved.keep_if(trained, "x", inputs[0]);
        for ((p, member), y) in places.iter().zip(&self.members).zip(y.chunks_mut((n * out).max(1))) {
            if let Some(b) = p.bias {
                let b = inputs[b].host::<T>()?;
                rows::for_each(y, out, |_, y| y.chunks_exact_mut(out).for_each(|y| y.copy_from_slice(b)));
            }
            gemm(Mat::new(x, n, d), Mat::new(inputs[p.w].host::<T>()?, out, d).t(), y, out, p.bias.is_some());
            saved.keep_if(needs[0], "w", inputs[p.w]);
            for (&(a, b), term) in p.terms.iter().zip(&member.terms) {
                let r = inputs[a].shape().rows();
                let dropped = self.dropped(term, d, x);
                let mut h = take::<T>(n * r);
                gemm(Mat::new(dropped.as_deref().unwrap_or(x), n, d), Mat::new(inputs[a].host::<T>()?, r, d).t(), &mut h, r, false);
                let scaled: Vec<T> = inputs[b].host::<T>()?.iter().map(|&b| b * T::of(term.scale)).collect();
                gemm(Mat::new(&h, n, r), Mat::new(&scaled, out, r).t(), y, out, true);
                saved.keep_if(needs[b], "h", &Tensor::new(h, [n, r])?);
                saved.keep_if(needs[0], "a", inputs[a]);
                saved.keep_if(needs[0] || needs[a], "b", inputs[b]);
            }
        }
        let shape = inputs[0].shape().with_cols(out);
        let group: &[usize] = if places.len() > 1 { &[places.len()] } else { &[] };
        Tensor::new(y, [group, shape.dims()].concat())
    }

    fn backward_host<T: Float>(&self, mut saved: Saved, dy: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (places, count) = self.places();
        let mut grads: Vec<Option<Tensor>> = (0..count).map(|_| None).collect();
        let out = dy.shape().cols();
        let n = dy.shape().rows() / places.len();
        let trained = places.iter().any(|p| needs[p.w] || p.terms.iter().any(|&(a, _)| needs[a]));
        let x = if trained { Some(saved.take("x")?) } else { None };
        let x = x.as_ref().map(|x| x.host::<T>()).transpose()?;
        let mut dx: Option<(crate::tensor::Pooled<T>, usize)> = None;
        for ((p, member), dy) in places.iter().zip(&self.members).zip(dy.host::<T>()?.chunks((n * out).max(1))) {
            let dy_rows = Mat::new(dy, n, out);
            if needs[0] {
                let w = saved.take("w")?;
                let d = w.shape().cols();
                let first = dx.is_none();
                let (dx, _) = dx.get_or_insert_with(|| (take::<T>(n * d), d));
                gemm(dy_rows, Mat::new(w.host::<T>()?, out, d), dx, d, !first);
            }
            if let (true, Some(x)) = (needs[p.w], x) {
                grads[p.w] = Some(product(dy_rows.t(), Mat::new(x, n, x.len() / n.max(1)))?);
            }
            if let Some(b) = p.bias
                && needs[b]
            {
                grads[b] = Some(column_sums(dy, n, out)?);
            }
            for (&(a, b), term) in p.terms.iter().zip(&member.terms) {
                if needs[b] {
                    let h = saved.take("h")?;
                    let db = product(dy_rows.t(), Mat::new(h.host::<T>()?, n, h.shape().cols()))?;
                    grads[b] = Some(super::elementwise::map::<T>(&db, |g| g * T::of(term.scale))?);
                }
                if !needs[0] && !needs[a] {
                    continue;
                }
                let a_value = if needs[0] { Some(saved.take("a")?) } else { None };
                let b_value = super::elementwise::map::<T>(&saved.take("b")?, |b| b * T::of(term.scale))?;
                let r = b_value.shape().cols();
                let dh: Tensor = product(dy_rows, Mat::new(b_value.host::<T>()?, out, r))?;
                let dh = Mat::new(dh.host::<T>()?, n, r);
                if let (true, Some(x)) = (needs[a], x) {
                    let d = x.len() / n.max(1);
                    let dropped = self.dropped(term, d, x);
                    grads[a] = Some(product(dh.t(), Mat::new(dropped.as_deref().unwrap_or(x), n, d))?);
                }
                if let (Some(a), Some((dx, d))) = (a_value, &mut dx) {
                    let a = Mat::new(a.host::<T>()?, r, *d);
                    if term.mask.is_some() {
                        let mut through = take::<T>(n * *d);
                        gemm(dh, a, &mut through, *d, false);
                        let through = self.dropped(term, *d, &through).unwrap_or(through);
                        rows::for_each(dx, 1, |at, dx| dx.iter_mut().zip(&through[at..]).for_each(|(dx, &t)| *dx += t));
                    } else {
                        gemm(dh, a, dx, *d, true);
                    }
                }
            }
        }
        if let Some((dx, d)) = dx {
            let dims = &dy.dims()[usize::from(places.len() > 1)..];
            grads[0] = Some(Tensor::new(dx, crate::tensor::Shape::from(dims).with_cols(d))?);
        }
        Ok(grads)
    }
}

/// a b as a tensor `[a.rows, b.cols]`.
fn product<T: Float>(a: Mat<T>, b: Mat<T>) -> Result<Tensor> {
    let (m, n) = (a.rows(), b.cols());
    let mut c = take::<T>(m * n);
    gemm(a, b, &mut c, n, false);
    Tensor::new(c, [m, n])
}

/// Σ over the rows of `[n, cols]`.
fn column_sums<T: Float>(x: &[T], n: usize, cols: usize) -> Result<Tensor> {
    let part = |range: std::ops::Range<usize>| {
        let mut sum = zeroed::<T>(cols);
        x[range.start * cols..range.end * cols].chunks_exact(cols).for_each(|x| sum.iter_mut().zip(x).for_each(|(s, &x)| *s += x));
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
}

impl Tape<'_> {
    /// x Wᵀ + b without low-rank terms; see [`Linear`].
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn linear(&mut self, x: &Var, w: &Var, bias: Option<&Var>) -> Result<Var> {
        let op = Linear { members: vec![Member { bias: bias.is_some(), terms: Vec::new() }], packing: None };
        let inputs: Vec<&Var> = [x, w].into_iter().chain(bias).collect();
        self.apply(op, &inputs)
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "Linear",
        tolerance: 1e-8,
        case: |random| {
            let packing = random_packing(random, 3)?;
            let (input, output) = (random_size(random, 6), random_size(random, 6));
            let mut inputs = vec![random_tensor(random, &[packing.tokens(), input])?];
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
                members.push(Member { bias, terms });
            }
            Ok(Case { op: Rc::new(Linear { members, packing: Some(packing) }), inputs })
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
            let op = Linear { members: vec![Member { bias: false, terms: vec![Term { scale: 1.0, mask: None }] }], packing: None };
            tape.apply(op, &[&x, &w, &a, &b]).unwrap();
            tape.ledger()[0].saved.iter().map(|s| s.0).collect::<Vec<_>>()
        };
        assert!(saved(false, false).is_empty());
        assert_eq!(saved(true, false), ["w", "a", "b"]);
        assert_eq!(saved(false, true), ["h"]);
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
