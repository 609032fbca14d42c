//! A linear layer: y = x Wᵀ + b, plus low-rank terms.

use super::{Pass, Weight};
use crate::autograd::ops::{self, GroupedLinear, Term};
use crate::autograd::{Tape, Var};
use crate::tensor::Mask;
use crate::{AtLayer, Result};

/// y = x Wᵀ + b + Σ s · drop(x) Aᵀ Bᵀ. Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, equation 3. x `[T, in]`, y `[T, out]`.
pub struct Linear {
    /// Name in the checkpoint, without `.weight`.
    pub name: String,
    /// W `[out, in]`.
    pub weight: Weight,
    /// b `[out]`.
    pub bias: Option<Weight>,
    /// Low-rank terms; none in a checkpoint.
    pub terms: Vec<LowRank>,
    /// A formula that replaces the one above.
    pub variant: Option<Box<dyn Variant>>,
    /// Dropout site of the first term.
    pub site: u32,
}

/// A low-rank term s · drop(x) Aᵀ Bᵀ.
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

/// Another formula for a linear layer, which may have weights of its own: DoRA. A first reader may skip it.
pub trait Variant {
    /// y `[T, out]` of x `[T, in]`.
    ///
    /// # Errors
    /// Those of the ops it applies.
    fn forward<'m>(&'m self, linear: &'m Linear, tape: &mut Tape<'m>, pass: &Pass, x: &Var) -> Result<Var>;
    /// Turns W + Σ s B A `[out, in]` (row-major, `input` columns) into the W of a plain linear layer with the same output.
    ///
    /// # Errors
    /// If there is no such W.
    fn merge(&self, sum: &mut [f64], input: usize) -> Result<()>;
    /// Its own weights.
    fn weights(&self) -> Vec<&Weight>;
    /// Its own weights, to be changed.
    fn weights_mut(&mut self) -> Vec<&mut Weight>;
}

/// A part of a low-rank term that stands for the whole in a pass: DyLoRA's first ranks. A first reader may skip it.
pub trait TermPart {
    /// A, B and s of the part, A and B on the tape.
    ///
    /// # Errors
    /// Those of the ops it applies.
    fn of<'m>(&self, term: &'m LowRank, tape: &mut Tape<'m>, pass: &Pass) -> Result<(Var, Var, f64)>;
}

impl LowRank {
    /// Rank r.
    pub fn rank(&self) -> usize {
        self.a.shape().rows()
    }

    /// A, B and s as the pass uses them, A and B on the tape.
    ///
    /// # Errors
    /// If a factor cannot be computed.
    pub fn factors<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass) -> Result<(Var, Var, f64)> {
        match &pass.part {
            Some(part) => part.of(self, tape, pass),
            None => Ok((self.a.var(tape, pass)?, self.b.var(tape, pass)?, self.scale)),
        }
    }

    /// Dropout of x in term number `i` of a linear with dropout site `site`.
    pub fn mask(&self, pass: &Pass, site: u32, i: usize) -> Option<Mask> {
        pass.mask(self.dropout, site + ((i as u32) << 16))
    }
}

impl Linear {
    /// A linear layer without low-rank terms.
    pub fn new(name: impl Into<String>, weight: Weight, bias: Option<Weight>, site: u32) -> Linear {
        Linear { name: name.into(), weight, bias, terms: Vec::new(), variant: None, site }
    }

    /// (out, in).
    pub fn dims(&self) -> (usize, usize) {
        (self.weight.shape().rows(), self.weight.shape().cols())
    }

    /// y `[T, out]` of x `[T, in]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, x: &Var) -> Result<Var> {
        match &self.variant {
            Some(variant) => variant.forward(self, tape, pass, x),
            None => Linear::group(tape, pass, x, &[self]),
        }
    }

    /// G linears of one x `[T, in]` as one op: `[G, T, out]`, or `[T, out]` for one linear. Variants are ignored.
    ///
    /// `tape.enter` names the layer of the ops that follow, for the record of what they save. [`AtLayer::at`] puts the name before an
    /// error's message.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn group<'m>(tape: &mut Tape<'m>, pass: &Pass, x: &Var, linears: &[&'m Linear]) -> Result<Var> {
        let name = || linears.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join("+");
        tape.enter(&name());
        let mut inputs = vec![x.clone()];
        let mut members = Vec::new();
        for linear in linears {
            inputs.push(linear.weight.var(tape, pass)?);
            if let Some(bias) = &linear.bias {
                inputs.push(bias.var(tape, pass)?);
            }
            let mut terms = Vec::new();
            for (i, term) in linear.terms.iter().enumerate() {
                let (a, b, scale) = term.factors(tape, pass)?;
                inputs.extend([a, b]);
                terms.push(Term { scale, mask: term.mask(pass, linear.site, i) });
            }
            members.push(GroupedLinear { bias: linear.bias.is_some(), terms });
        }
        let op = ops::Linear { members, sequences: Some(pass.sequences.clone()) };
        tape.apply(op, &inputs.iter().collect::<Vec<_>>()).at(name)
    }
}
