//! DoRA: the length of each row of a weight is trained apart from its direction. Liu et al. 2024, <https://arxiv.org/abs/2402.09353>.

mod magnitude;

pub use magnitude::Magnitude;
pub(super) use magnitude::suite;

use crate::autograd::ops::{self, GroupedLinear, Term};
use crate::autograd::{Tape, Var};
use crate::nn::{Linear, LowRank, Pass, Variant, Weight};
use crate::tensor::gemm::{Mat, gemm};
use crate::tensor::{Accum, Scalar, Tensor, math, on_device};
use crate::{AtLayer, Error, Result, dispatch};
use std::cell::RefCell;

/// y = m ∘ (x Wᵀ + s · x Aᵀ Bᵀ) / n + b with n = ‖W + s B A‖ of each row (equation 5). m `[out]` is trained, like A and B.
///
/// n changes with A and B, but no gradient goes through it (section 4.3). It equals m at the start, because B is zero and m starts at ‖W‖.
///
/// Dropout is as in PEFT: the formula takes drop(x) for x, and (x − drop(x)) Wᵀ is added, so that W sees the whole of x.
struct Dora {
    /// m.
    magnitude: Weight,
    /// The last row norms of an evaluation, and the W, A and B that they are of: kept, so that no other tensor can get their storage and be taken for
    /// them.
    cache: RefCell<Option<([Tensor; 3], Tensor)>>,
}

/// Makes `linear`, which has one low-rank term with B = 0, a DoRA layer. It computes the same as before.
pub(super) fn add(linear: &mut Linear) -> Result<()> {
    let norms = row_norms(linear)?;
    let magnitude = Weight::trained(format!("{}.lora_magnitude_vector", linear.name), norms);
    linear.variant = Some(Box::new(Dora { magnitude, cache: RefCell::default() }));
    Ok(())
}

fn only_term(linear: &Linear) -> Result<&LowRank> {
    match &linear.terms[..] {
        [term] => Ok(term),
        terms => Err(Error::invalid(format!("{}: a magnitude needs one low-rank term, and there are {}", linear.name, terms.len()))),
    }
}

/// n = ‖W + s B A‖ of each row, `[out]`: a value, not on the tape.
///
/// # Errors
/// If W is computed, or the linear has not exactly one low-rank term.
pub fn row_norms(linear: &Linear) -> Result<Tensor> {
    let term = only_term(linear)?;
    let (w, a, b) = (linear.weight.value()?, term.a.value()?, term.b.value()?);
    let ((output, input), rank) = (linear.dims(), term.rank());
    on_device!(
        w,
        |device| crate::cuda::launch::row_norms(device, &w, &a, &b, term.scale),
        dispatch!("row_norms", w.dtype(), T => {
            let mut sum = w.to_accum::<<T as Scalar>::Acc>()?;
            let mut b = b.to_accum::<<T as Scalar>::Acc>()?;
            b.iter_mut().for_each(|b| *b *= <T as Scalar>::Acc::of(term.scale));
            gemm(Mat::new(&b, output, rank), Mat::of(&a)?, &mut sum, input, true);
            let norms: Vec<_> = sum.chunks_exact(input).map(|row| math::sum(row, |x| x * x).sqrt()).collect();
            Tensor::new(norms, [output])
        })
    )
}

impl Dora {
    /// [`row_norms`]. Training changes A and B in every step; evaluation does not, and computes the norms once.
    fn norms(&self, linear: &Linear, term: &LowRank, pass: &Pass) -> Result<Tensor> {
        if pass.dropout_seed.is_some() {
            return row_norms(linear);
        }
        let of = [linear.weight.value()?, term.a.value()?, term.b.value()?];
        let mut cache = self.cache.borrow_mut();
        if let Some((known, norms)) = &*cache
            && known.iter().zip(&of).all(|(a, b)| a.storage_id() == b.storage_id())
        {
            return Ok(norms.clone());
        }
        let norms = row_norms(linear)?;
        *cache = Some((of, norms.clone()));
        Ok(norms)
    }
}

impl Variant for Dora {
    fn forward<'m>(&'m self, linear: &'m Linear, tape: &mut Tape<'m>, pass: &Pass, x: &Var) -> Result<Var> {
        let term = only_term(linear)?;
        let norms = self.norms(linear, term, pass)?;
        let mask = term.mask(pass, linear.site, 0);
        let drops = mask.is_some();
        let dropped = tape.dropout(x, mask, &pass.sequences)?;
        let (w, (a, b, scale)) = (linear.weight.var(tape, pass)?, term.factors(tape, pass)?);
        let member = GroupedLinear { bias: false, terms: vec![Term { scale, mask: None }] };
        let op = ops::Linear { members: vec![member], sequences: Some(pass.sequences.clone()) };
        let y = tape.apply(op, &[&dropped, &w, &a, &b]).at(|| linear.name.clone())?;
        let m = self.magnitude.var(tape, pass)?;
        let bias = linear.bias.as_ref().map(|b| b.var(tape, pass)).transpose()?;
        let inputs: Vec<&Var> = [&y, &m].into_iter().chain(&bias).collect();
        let y = tape.apply(Magnitude { norms }, &inputs)?;
        if !drops {
            return Ok(y);
        }
        let minus = tape.scale(&dropped, -1.0)?;
        let rest = tape.add(x, &minus)?;
        let rest = tape.linear(&rest, &w, None)?;
        tape.add(&y, &rest)
    }

    /// m ∘ (W + s B A) / n, row by row.
    fn merge(&self, sum: &mut [f64], input: usize) -> Result<()> {
        for (row, m) in sum.chunks_exact_mut(input).zip(self.magnitude.value()?.to_f64()?) {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter_mut().for_each(|x| *x *= m / norm);
        }
        Ok(())
    }

    fn weights(&self) -> Vec<&Weight> {
        vec![&self.magnitude]
    }

    fn weights_mut(&mut self) -> Vec<&mut Weight> {
        vec![&mut self.magnitude]
    }
}
