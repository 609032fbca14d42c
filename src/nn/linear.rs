//! Linear layers with optional low-rank terms.

use super::{Part, PartMut, Pass, Weight};
use crate::autograd::ops::{self, Member, Term};
use crate::autograd::{Parameter, Tape, Var};
use crate::{AtLayer, Result};

/// y = x Wᵀ + b + Σ s · drop(x) Aᵀ Bᵀ; see [`ops::Linear`].
pub struct Linear {
    /// Its name in the checkpoint, without `.weight`.
    pub name: String,
    /// W `[out, in]`.
    pub weight: Weight,
    /// b `[out]`.
    pub bias: Option<Weight>,
    /// Low-rank terms.
    pub terms: Vec<LowRank>,
    /// Dropout site of the first term.
    pub site: u32,
}

/// The factors of a low-rank term.
pub struct LowRank {
    /// A `[r, in]`.
    pub a: Parameter,
    /// B `[out, r]`.
    pub b: Parameter,
    /// s.
    pub scale: f64,
    /// Probability of dropping an element of x.
    pub dropout: f64,
}

impl Linear {
    /// `[out, in]`.
    pub fn dims(&self) -> (usize, usize) {
        (self.weight.shape().rows(), self.weight.shape().cols())
    }

    /// y of x `[T, in]`: `[T, out]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, x: &Var) -> Result<Var> {
        Linear::group(tape, pass, x, &[self])
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
                inputs.extend([tape.parameter(&term.a), tape.parameter(&term.b)]);
                terms.push(Term { scale: term.scale, mask: pass.mask(term.dropout, linear.site + ((i as u32) << 16)) });
            }
            members.push(Member { bias: linear.bias.is_some(), terms });
        }
        let op = ops::Linear { members, packing: Some(pass.packing.clone()) };
        tape.apply(op, &inputs.iter().collect::<Vec<_>>()).at(name)
    }

    pub(super) fn visit<'a>(&'a self, f: &mut dyn FnMut(Part<'a>)) {
        f(Part::Weight(&self.weight));
        self.bias.iter().for_each(|b| f(Part::Weight(b)));
        self.terms.iter().flat_map(|t| [&t.a, &t.b]).for_each(|p| f(Part::Extra(p)));
    }

    pub(super) fn visit_mut<'a>(&'a mut self, f: &mut dyn FnMut(PartMut<'a>)) {
        f(PartMut::Weight(&mut self.weight));
        self.bias.iter_mut().for_each(|b| f(PartMut::Weight(b)));
        self.terms.iter_mut().flat_map(|t| [&mut t.a, &mut t.b]).for_each(|p| f(PartMut::Extra(p)));
    }
}
