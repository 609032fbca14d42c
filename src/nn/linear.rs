//! Linear layers with optional low-rank terms.

use super::{Pass, Weight, WeightMut, WeightRef};
use crate::autograd::ops::{self, GroupedLinear, Term};
use crate::autograd::{Tape, Var};
use crate::tensor::gemm::{Mat, gemm};
use crate::tensor::{Accum, Mask, Scalar, Tensor, math};
use crate::{AtLayer, Error, Result, dispatch};
use std::sync::{Mutex, PoisonError};

/// y = x Wᵀ + b + Σ s · drop(x) Aᵀ Bᵀ; see [`ops::Linear`]. With a magnitude, DoRA's [`Linear::forward`].
pub struct Linear {
    /// Its name in the checkpoint, without `.weight`.
    pub name: String,
    /// W `[out, in]`.
    pub weight: Weight,
    /// b `[out]`.
    pub bias: Option<Weight>,
    /// Low-rank terms.
    pub terms: Vec<LowRank>,
    /// m `[out]`: the length of each row of W + s B A, learned apart from its direction. Only with one term.
    pub magnitude: Option<Magnitude>,
    /// Dropout site of the first term.
    pub site: u32,
}

/// The factors of a low-rank term.
pub struct LowRank {
    /// A `[r, in]`.
    pub a: Weight,
    /// B `[out, r]`.
    pub b: Weight,
    /// s.
    pub scale: f64,
    /// Probability of dropping an element of x.
    pub dropout: f64,
}

/// DoRA's m, and the row norms that it divides.
pub struct Magnitude {
    /// m `[out]`.
    pub vector: Weight,
    /// W, A and B as they were last evaluated with, and ‖W + s B A‖ of each row then.
    evaluated: Mutex<Option<([Tensor; 3], Tensor)>>,
}

impl Magnitude {
    /// The magnitude m.
    pub fn new(vector: Weight) -> Magnitude {
        Magnitude { vector, evaluated: Mutex::new(None) }
    }

    /// [`Linear::row_norms`]. In training they change with every step; in evaluation they are computed once.
    fn norms(&self, linear: &Linear, term: &LowRank, pass: &Pass) -> Result<Tensor> {
        if pass.dropout.is_some() {
            return linear.row_norms(term);
        }
        let from = [linear.weight.value()?, term.a.value()?, term.b.value()?];
        let mut evaluated = self.evaluated.lock().unwrap_or_else(PoisonError::into_inner);
        match &*evaluated {
            // The tensors are held here, so that nothing else can have their storage.
            Some((known, norms)) if known.iter().zip(&from).all(|(a, b)| a.storage_id() == b.storage_id()) => Ok(norms.clone()),
            _ => {
                let norms = linear.row_norms(term)?;
                *evaluated = Some((from, norms.clone()));
                Ok(norms)
            }
        }
    }
}

impl LowRank {
    /// Rank r.
    pub fn rank(&self) -> usize {
        self.a.shape().rows()
    }

    /// A and B on the tape, or the part of them that the pass takes.
    fn factors<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass) -> Result<[Var; 2]> {
        let (a, b) = (self.a.var(tape)?, self.b.var(tape)?);
        match pass.rank.filter(|&rank| rank < self.rank()) {
            Some(rank) => Ok([tape.submatrix(&a, [rank, a.shape().cols()])?, tape.submatrix(&b, [b.shape().rows(), rank])?]),
            None => Ok([a, b]),
        }
    }

    /// s is alpha / r: it grows where fewer ranks are taken.
    fn scale_of(&self, pass: &Pass) -> f64 {
        self.scale * self.rank() as f64 / pass.rank.map_or(self.rank(), |rank| rank.min(self.rank())) as f64
    }

    /// Dropout of term `i` of a linear of `site`.
    fn mask(&self, pass: &Pass, site: u32, i: usize) -> Option<Mask> {
        pass.mask(self.dropout, site + ((i as u32) << 16))
    }
}

impl Linear {
    /// `[out, in]`.
    pub fn dims(&self) -> (usize, usize) {
        (self.weight.shape().rows(), self.weight.shape().cols())
    }

    /// y of x `[T, in]`: `[T, out]`.
    ///
    /// With a magnitude m and n = ‖W + s B A‖ of each row, y = m ∘ (x Wᵀ + s · x Aᵀ Bᵀ) / n + b, of drop(x) in place of x, plus
    /// (x − drop(x)) Wᵀ: what is dropped still goes through W. Liu et al. 2024, <https://arxiv.org/abs/2402.09353>, equation 5; no gradient
    /// goes through n (section 4.3), and dropout is as in PEFT.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, x: &Var) -> Result<Var> {
        let Some(magnitude) = &self.magnitude else { return Linear::group(tape, pass, x, &[self]) };
        let [term] = &self.terms[..] else {
            return Err(Error::invalid(format!("{}: a magnitude needs one low-rank term, and there are {}", self.name, self.terms.len())));
        };
        let norms = magnitude.norms(self, term, pass)?;
        let mask = term.mask(pass, self.site, 0);
        let drops = mask.is_some();
        let dropped = tape.dropout(x, mask, &pass.sequences)?;
        let mut inputs = vec![dropped.clone(), self.weight.var(tape)?];
        inputs.extend(term.factors(tape, pass)?);
        let member = GroupedLinear { bias: false, terms: vec![Term { scale: term.scale_of(pass), mask: None }] };
        let op = ops::Linear { members: vec![member], sequences: Some(pass.sequences.clone()) };
        let y = tape.apply(op, &inputs.iter().collect::<Vec<_>>()).at(|| self.name.clone())?;
        let (m, bias) = (magnitude.vector.var(tape)?, self.bias.as_ref().map(|b| b.var(tape)).transpose()?);
        let y = tape.magnitude(&y, &m, bias.as_ref(), norms)?;
        if !drops {
            return Ok(y);
        }
        let minus = tape.scale(&dropped, -1.0)?;
        let rest = tape.add(x, &minus)?;
        let rest = tape.linear(&rest, &inputs[1], None)?;
        tape.add(&y, &rest)
    }

    /// ‖W + s B A‖ of each row, `[out]`: a value, not on the tape.
    ///
    /// # Errors
    /// If W is computed.
    pub fn row_norms(&self, term: &LowRank) -> Result<Tensor> {
        let (w, a, b) = (self.weight.value()?, term.a.value()?, term.b.value()?);
        #[cfg(feature = "cuda")]
        if let Some(device) = w.device() {
            return crate::cuda::launch::row_norms(device, &w, &a, &b, term.scale);
        }
        let ((output, input), rank) = (self.dims(), a.shape().rows());
        dispatch!("row_norms", w.dtype(), T => {
            let mut sum = w.to_accum::<<T as Scalar>::Acc>()?;
            let mut b = b.to_accum::<<T as Scalar>::Acc>()?;
            b.iter_mut().for_each(|b| *b *= <T as Scalar>::Acc::of(term.scale));
            gemm(Mat::new(&b, output, rank), Mat::of(&a)?, &mut sum, input, true);
            let norms: Vec<_> = sum.chunks_exact(input).map(|row| math::sum(row, |x| x * x).sqrt()).collect();
            Tensor::new(norms, [output])
        })
    }

    /// Several linears of one x, as one op: `[G, T, out]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn group<'m>(tape: &mut Tape<'m>, pass: &Pass, x: &Var, linears: &[&'m Linear]) -> Result<Var> {
        let name = || linears.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join("+");
        tape.enter(&name());
        let mut inputs = vec![x.clone()];
        let mut members = Vec::new();
        for linear in linears {
            inputs.push(linear.weight.var(tape)?);
            if let Some(bias) = &linear.bias {
                inputs.push(bias.var(tape)?);
            }
            let mut terms = Vec::new();
            for (i, term) in linear.terms.iter().enumerate() {
                inputs.extend(term.factors(tape, pass)?);
                terms.push(Term { scale: term.scale_of(pass), mask: term.mask(pass, linear.site, i) });
            }
            members.push(GroupedLinear { bias: linear.bias.is_some(), terms });
        }
        let op = ops::Linear { members, sequences: Some(pass.sequences.clone()) };
        tape.apply(op, &inputs.iter().collect::<Vec<_>>()).at(name)
    }

    pub(super) fn visit<'a>(&'a self, f: &mut dyn FnMut(WeightRef<'a>)) {
        f(WeightRef::Base(&self.weight));
        self.bias.iter().for_each(|b| f(WeightRef::Base(b)));
        self.terms.iter().flat_map(|t| [&t.a, &t.b]).chain(self.magnitude.iter().map(|m| &m.vector)).for_each(|w| f(WeightRef::Extra(w)));
    }

    pub(super) fn visit_mut<'a>(&'a mut self, f: &mut dyn FnMut(WeightMut<'a>)) {
        f(WeightMut::Base(&mut self.weight));
        self.bias.iter_mut().for_each(|b| f(WeightMut::Base(b)));
        self.terms
            .iter_mut()
            .flat_map(|t| [&mut t.a, &mut t.b])
            .chain(self.magnitude.iter_mut().map(|m| &mut m.vector))
            .for_each(|w| f(WeightMut::Extra(w)));
    }
}
