//! Linear layers with low-rank terms (LoRA). Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, equation 3.
//!
//! [`lora_composed`] is the meaning: five calls of the tape add a low-rank term to x Wᵀ + b. [`Linear`] is the same as one op, which keeps
//! less memory and passes over x fewer times. Its forward and backward are written twice: [`Linear::plain`] as products of whole matrices,
//! to be read and to test against, and the fast form in `linear_fast.rs` and `low_rank.rs`.
//!
//! | type | what it is |
//! |---|---|
//! | [`Linear`], [`GroupedLinear`], [`Term`] | the op, one linear of it and one low-rank term: their settings, without tensors |
//! | `LowRankLinear`, `LowRankTerm` | a linear and a term with their tensors W, b and A, B (`tensor/arguments.rs`) |
//! | `LowRankCotangent` | a term with what its backward reads: dy, x and h |
//! | `nn::Linear`, `nn::LowRank` | step 9: a layer of the model and a term, which own the weights |
//!
//! In `linear_inputs.rs`, `arrange` splits a flat list (one value per input of the op) into the value of x and those of each linear.
//! `resolve` does so for the input tensors, checks their shapes, and returns a `LowRankLinear` for each linear. `bind` joins a [`Term`]
//! with its A and B. `read_x` says whether backward reads x: for dW, or for the dA of a term.

use super::linear_fast;
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::gemm::{Init, Mat, gemm_naive};
use crate::tensor::{LowRankCotangent, LowRankLinear, LowRankTerm, Mask, Scalar, Sequences, Shape, Tensor, on_device};
use crate::{Result, dispatch};
use std::sync::Arc;

/// y = `affine` + s · drop(x) Aᵀ Bᵀ in five calls, with `affine` = x Wᵀ + b from [`Tape::linear`]. The tests compare [`Linear`] with it.
///
/// x `[T, in]`, A `[r, in]`, B `[out, r]`, `affine` and y `[T, out]`. The product BA `[out, in]` is never formed.
///
/// # Errors
/// If the shapes do not fit.
pub fn lora_composed(tape: &mut Tape, affine: &Var, x: &Var, [a, b]: [&Var; 2], term: &Term, sequences: &Arc<Sequences>) -> Result<Var> {
    let dropped = tape.dropout(x, term.mask.clone(), sequences)?; // drop(x)
    let h = tape.linear(&dropped, a, None)?; // drop(x) Aᵀ
    let update = tape.linear(&h, b, None)?; // drop(x) Aᵀ Bᵀ
    let update = tape.scale(&update, term.scale)?; // s · drop(x) Aᵀ Bᵀ
    tape.add(affine, &update) // x Wᵀ + b + s · drop(x) Aᵀ Bᵀ
}

/// y = x Wᵀ + b + Σ s · drop(x) Aᵀ Bᵀ for one linear, or for a group of G linears of the same x.
///
/// x `[.., in]`, W `[out, in]`, b `[out]`, A `[r, in]`, B `[out, r]`; y `[.., out]`, or `[G, .., out]` for G > 1. The sum runs over the
/// linear's terms, each with its scale s. With n rows in x, h = drop(x) Aᵀ `[n, r]` (in `nn`, h is a hidden state) and dh = s dy B `[n,
/// r]`:
///
/// dW = dyᵀ x, db = Σ dy, dB = s dyᵀ h, dA = dhᵀ drop(x), dx = dy W + Σ drop(dh A). In a group, each linear has its own dy and these
/// gradients, and dx is the sum over the G linears.
///
/// A frozen W needs no activation: for it, only W itself is saved, for dx. x is saved only if a W or an A trains, h only if its B trains.
/// Dropout masks are never saved: backward draws them again.
///
/// Inputs, in order: x; then for each linear W, b if it has one, and A, B of each term.
pub struct Linear {
    /// The linears that read x.
    pub members: Vec<GroupedLinear>,
    /// Sequence boundaries of x's rows. Only dropout needs them.
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

/// A low-rank term s · drop(x) Aᵀ Bᵀ.
#[derive(Clone)]
pub struct Term {
    /// s.
    pub scale: f64,
    /// Dropout of x. Each term draws its own.
    pub mask: Option<Mask>,
}

impl Linear {
    /// y, and the gradients of all inputs in their order, in f64: each product is [`gemm_naive`]. Slow; the tests compare the fast form
    /// with it.
    ///
    /// # Errors
    /// If the shapes do not fit, or a tensor is not f64.
    pub fn plain(&self, inputs: &[&Tensor], dy: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let (x, linears) = self.resolve(inputs)?;
        let (n, out) = (x.shape().rows(), linears[0].w.shape().rows());
        let each_dy = dy.reshape([linears.len(), n, out])?;
        let (mut y, mut dx, mut grads) = (Vec::new(), vec![0.0; x.shape().len()], Vec::new());
        for (i, linear) in linears.iter().enumerate() {
            let (own_y, own_grads) = plain_linear(x, linear, &each_dy.index(i)?, &mut dx)?;
            y.extend(own_y);
            grads.extend(own_grads);
        }
        grads.insert(0, Tensor::new(dx, x.shape())?);
        Ok((Tensor::new(y, dy.shape())?, grads))
    }
}

/// y `[n, out]` of one linear, and dW, db, and dA, dB of each term. Adds the linear's part to dx `[n, in]`.
fn plain_linear(x: &Tensor, linear: &LowRankLinear, dy: &Tensor, dx: &mut [f64]) -> Result<(Vec<f64>, Vec<Tensor>)> {
    let mut y = matmul(1.0, Mat::of(x)?, Mat::of(linear.w)?.t())?.to_f64()?; // x Wᵀ
    let mut grads = vec![matmul(1.0, Mat::of(dy)?.t(), Mat::of(x)?)?]; // dW = dyᵀ x
    add(dx, &matmul(1.0, Mat::of(dy)?, Mat::of(linear.w)?)?)?; // dx += dy W
    if let Some(bias) = linear.bias {
        y.iter_mut().zip(bias.host::<f64>()?.iter().cycle()).for_each(|(y, b)| *y += b); // + b
        let mut db = vec![0.0; dy.shape().cols()];
        dy.host::<f64>()?.chunks_exact(db.len().max(1)).for_each(|row| db.iter_mut().zip(row).for_each(|(db, dy)| *db += dy));
        grads.push(Tensor::new(db, bias.shape())?); // db = Σ dy
    }
    for term in &linear.terms {
        let dropped = plain_dropout(term, x)?; // drop(x)
        let h = matmul(1.0, Mat::of(&dropped)?, Mat::of(&term.a)?.t())?; // h = drop(x) Aᵀ
        add(&mut y, &matmul(term.scale, Mat::of(&h)?, Mat::of(&term.b)?.t())?)?; // + s h Bᵀ
        let dh = matmul(term.scale, Mat::of(dy)?, Mat::of(&term.b)?)?; // dh = s dy B
        grads.push(matmul(1.0, Mat::of(&dh)?.t(), Mat::of(&dropped)?)?); // dA = dhᵀ drop(x)
        grads.push(matmul(term.scale, Mat::of(dy)?.t(), Mat::of(&h)?)?); // dB = s dyᵀ h
        add(dx, &plain_dropout(term, &matmul(1.0, Mat::of(&dh)?, Mat::of(&term.a)?)?)?)?; // dx += drop(dh A)
    }
    Ok((y, grads))
}

/// s · P·Q `[p.rows, q.cols]`.
fn matmul(s: f64, p: Mat<f64>, q: Mat<f64>) -> Result<Tensor> {
    let mut c = vec![0.0; p.rows() * q.cols()];
    gemm_naive(&[(p, q)], Init::Zero, &mut c, q.cols());
    c.iter_mut().for_each(|c| *c *= s);
    Tensor::new(c, [p.rows(), q.cols()])
}

/// to += x.
fn add(to: &mut [f64], x: &Tensor) -> Result<()> {
    to.iter_mut().zip(x.host::<f64>()?).for_each(|(to, x)| *to += x);
    Ok(())
}

/// drop(x), or x without dropout.
fn plain_dropout(term: &LowRankTerm, x: &Tensor) -> Result<Tensor> {
    let mut y = x.to_f64()?;
    if let Some((mask, sequences)) = term.drop {
        mask.apply(sequences, x.shape().cols(), x.host::<f64>()?, &mut y);
    }
    Tensor::new(y, x.shape())
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let (x, linears) = self.resolve(inputs)?;
        let (y, each_h) = on_device!(
            x,
            |device| launch::linear::forward(device, x, &linears),
            dispatch!("linear", x.dtype(), T => linear_fast::forward::<T>(x, &linears))
        )?;
        let (needs_x, each_needs) = self.arrange(needs)?;
        saved.keep_if(each_needs.iter().any(|needs| needs.read_x()), "x", x);
        let mut each_h = each_h.iter(); // h of every term, linear by linear
        for (linear, needs_of) in linears.iter().zip(&each_needs) {
            // To save a weight of the model costs no memory. So backward may take A and B of every term, needed or not.
            saved.keep_if(needs_x, "w", linear.w);
            for ((term, &[_, needs_b]), h) in linear.terms.iter().zip(&needs_of.terms).zip(each_h.by_ref()) {
                saved.keep_if(needs.contains(&true), "a", &term.a);
                saved.keep_if(needs.contains(&true), "b", &term.b);
                saved.keep_if(needs_b, "h", h);
            }
        }
        let x_dims = x.shape().with_cols(y.shape().cols());
        let group = if linears.len() > 1 { vec![linears.len()] } else { Vec::new() };
        y.reshape([&group, x_dims.dims()].concat())
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (needs_x, each_needs) = self.arrange(needs)?;
        let group = self.members.len();
        let each_dy = dy.reshape([group, dy.shape().rows() / group, dy.shape().cols()])?;
        let x = saved.take_if(each_needs.iter().any(|needs| needs.read_x()), "x")?;
        let (mut products, mut terms) = (Vec::new(), Vec::new());
        for (i, (member, needs_of)) in self.members.iter().zip(&each_needs).enumerate() {
            if needs_x {
                products.push((each_dy.index(i)?, saved.take("w")?));
            }
            for (term, &[needs_a, needs_b]) in member.terms.iter().zip(&needs_of.terms) {
                terms.push(LowRankCotangent {
                    term: term.bind(saved.take("a")?, saved.take("b")?, self.sequences.as_deref()),
                    dy: each_dy.index(i)?,
                    x: x.clone().filter(|_| needs_a),
                    h: if needs_b { Some(saved.take("h")?) } else { None },
                });
            }
        }
        let (dx, term_grads) = on_device!(
            dy,
            |device| launch::linear::backward(device, &products, &terms),
            dispatch!("linear", dy.dtype(), T => linear_fast::backward::<T>(&products, &terms))
        )?;
        // dx has the dimensions of one linear's dy, but for the last.
        let x_dims = &dy.dims()[usize::from(group > 1)..];
        let mut grads = vec![dx.map(|dx| dx.reshape(Shape::from(x_dims).with_cols(dx.shape().cols()))).transpose()?];
        let mut term_grads = term_grads.into_iter(); // [dA, dB] of every term, linear by linear
        for (i, needs_of) in each_needs.iter().enumerate() {
            let dy = each_dy.index(i)?;
            grads.push(x.as_ref().filter(|_| needs_of.w).map(|x| weight_gradient(&dy, x)).transpose()?);
            if let Some(needed) = needs_of.bias {
                grads.push(needed.then(|| bias_gradient(&dy)).transpose()?);
            }
            grads.extend(term_grads.by_ref().take(needs_of.terms.len()).flatten());
        }
        Ok(grads)
    }

    fn flops(&self, inputs: &[&Tensor], needs: &[bool]) -> (u64, u64) {
        let (Ok((x, linears)), Ok((needs_x, each_needs))) = (self.arrange(inputs), self.arrange(needs)) else { return (0, 0) };
        // Of the product of a matrix with x's rows and a weight.
        let cost = |weight: &Tensor| 2 * (x.shape().rows() * weight.shape().len()) as u64;
        let (mut forward, mut backward) = (0, 0);
        for (linear, needs) in linears.iter().zip(each_needs) {
            forward += cost(linear.w);
            backward += cost(linear.w) * (u64::from(needs_x) + u64::from(needs.w));
            for ([a, b], [needs_a, needs_b]) in linear.terms.iter().zip(needs.terms) {
                forward += cost(a) + cost(b);
                backward += cost(b) * (u64::from(needs_b) + u64::from(needs_x || needs_a));
                backward += cost(a) * (u64::from(needs_a) + u64::from(needs_x));
            }
        }
        (forward, backward)
    }
}

/// dW = dyᵀ x, in the accumulator's type (f32 for a bf16 x): a trained W has that type.
fn weight_gradient(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    on_device!(
        x,
        |device| launch::linear::weight_gradient(device, dy, x),
        dispatch!("linear", x.dtype(), T => linear_fast::product::<<T as Scalar>::Acc>(Mat::of(dy)?.t(), Mat::of(x)?))
    )
}

/// db = Σ dy.
fn bias_gradient(dy: &Tensor) -> Result<Tensor> {
    on_device!(
        dy,
        |device| launch::column_sums(device, dy, None, None),
        dispatch!("linear", dy.dtype(), T => linear_fast::column_sums::<T>(dy))
    )
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

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::super::testing::{assert_close, check_plain};
    use super::*;
    use crate::autograd::gradcheck::random_tensor;
    use crate::autograd::{Grads, Parameter};
    use crate::tensor::philox::Stream;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_op_is_its_plain_form(seed: u64) {
            let mut random = Stream::new(seed, "linear");
            let (op, inputs) = cases::linear(&mut random).unwrap();
            check_plain(&op, &inputs, &mut random, |inputs, dy| op.plain(inputs, dy).unwrap());
        }

        #[test]
        fn the_op_is_five_calls_of_the_tape(seed: u64) {
            let mut random = Stream::new(seed, "composed");
            let (op, inputs) = cases::linear(&mut random).unwrap();
            let (sequences, group) = (op.sequences.clone().unwrap(), op.members.len());
            let (tokens, out) = (sequences.tokens(), inputs[1].dims()[0]);
            let dy = random_tensor(&mut random, &[group, tokens, out]).unwrap();

            let parameters: Vec<Parameter> = inputs.iter().map(|x| Parameter::new("input", x.clone())).collect();
            let (mut y, mut grads, mut own) = (Vec::new(), Grads::default(), &parameters[1..]);
            for (i, member) in op.members.iter().enumerate() {
                let mut tape = Tape::new();
                let x = tape.parameter(&parameters[0]);
                let (w, rest) = own.split_first().unwrap();
                let (bias, rest) = rest.split_at(usize::from(member.bias));
                let (factors, rest) = rest.split_at(2 * member.terms.len());
                own = rest;
                let (w, bias) = (tape.parameter(w), bias.first().map(|b| tape.parameter(b)));
                let mut sum = tape.linear(&x, &w, bias.as_ref()).unwrap();
                for (term, ab) in member.terms.iter().zip(factors.chunks(2)) {
                    let (a, b) = (tape.parameter(&ab[0]), tape.parameter(&ab[1]));
                    sum = lora_composed(&mut tape, &sum, &x, [&a, &b], term, &sequences).unwrap();
                }
                y.extend(sum.value().to_f64().unwrap());
                grads.add(tape.vjp(&sum, dy.index(i).unwrap()).unwrap()).unwrap();
            }

            let mut tape = Tape::new();
            let vars: Vec<Var> = parameters.iter().map(|p| tape.parameter(p)).collect();
            let fused = tape.apply(op, &vars.iter().collect::<Vec<_>>()).unwrap();
            assert_close(fused.value(), &Tensor::new(y, fused.shape()).unwrap());
            let fused = tape.vjp(&fused, dy.reshape(fused.shape()).unwrap()).unwrap();
            for p in &parameters {
                assert_close(fused.get(p).unwrap(), grads.get(p).unwrap());
            }
        }
    }

    #[test]
    fn a_frozen_weight_keeps_no_activation() {
        let t = |dims: &[usize]| random_tensor(&mut Stream::new(1, "t"), dims).unwrap();
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
        assert_eq!(saved(false, true), ["a", "b", "h"]);
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
