//! The flat list of [`Linear`]'s inputs: sorted by linear, checked, and drawn for the gradient check.

use super::linear::{Linear, Term};
use crate::tensor::{LowRankLinear, LowRankTerm, Sequences, Tensor};
use crate::{Error, Result};

/// One value for each input of a linear: the tensor itself, or whether its gradient is needed.
pub(super) struct LinearInputs<T> {
    /// W.
    pub w: T,
    /// b, if the linear has one.
    pub bias: Option<T>,
    /// [A, B] of each term.
    pub terms: Vec<[T; 2]>,
}

impl LinearInputs<bool> {
    /// Whether backward reads x: for dW, or for the dA of a term.
    pub(super) fn read_x(&self) -> bool {
        self.w || self.terms.iter().any(|&[a, _]| a)
    }
}

impl Term {
    /// The term with its tensors.
    pub(super) fn bind<'a>(&'a self, a: Tensor, b: Tensor, sequences: Option<&'a Sequences>) -> LowRankTerm<'a> {
        LowRankTerm { a, b, scale: self.scale, drop: self.mask.as_ref().zip(sequences) }
    }
}

impl Linear {
    /// Splits a list in the order of the op's inputs into the value of x and those of each linear.
    pub(super) fn arrange<T: Copy>(&self, list: &[T]) -> Result<(T, Vec<LinearInputs<T>>)> {
        let count = 1 + self.members.iter().map(|m| 1 + usize::from(m.bias) + 2 * m.terms.len()).sum::<usize>();
        if list.len() != count || self.members.is_empty() {
            return Err(Error::invalid(format!("linear: takes {count} inputs, got {}", list.len())));
        }
        let (x, mut rest) = (list[0], &list[1..]);
        let mut take = |n: usize| rest.split_off(..n).unwrap_or_default();
        let each = self.members.iter().map(|member| LinearInputs {
            w: take(1)[0],
            bias: take(member.bias.into()).first().copied(),
            terms: take(2 * member.terms.len()).as_chunks().0.to_vec(),
        });
        Ok((x, each.collect()))
    }

    /// x and the tensors of each linear, with all shapes checked.
    pub(super) fn resolve<'a>(&'a self, inputs: &[&'a Tensor]) -> Result<(&'a Tensor, Vec<LowRankLinear<'a>>)> {
        let (tensor, linears) = self.arrange(inputs)?;
        let x = tensor.shape();
        let out = linears[0].w.shape().rows();
        for linear in &linears {
            let w = linear.w.shape();
            if w.dims() != [out, x.cols()] {
                return Err(Error::shape("linear", "x [.., in] and w [out, in]", &[x, w]));
            }
            if let Some(bias) = linear.bias.filter(|bias| bias.dims() != [out]) {
                return Err(Error::shape("linear", "w [out, in] and bias [out]", &[w, bias.shape()]));
            }
            for [a, b] in linear.terms.iter().map(|ab| ab.map(Tensor::shape)) {
                if a.dims().len() != 2 || a.cols() != x.cols() || b.dims() != [out, a.rows()] {
                    return Err(Error::shape("linear", "w [out, in], A [r, in] and B [out, r]", &[w, a, b]));
                }
            }
        }
        let masked = self.members.iter().flat_map(|m| &m.terms).any(|t| t.mask.is_some());
        if masked && self.sequences.as_ref().map(|s| s.tokens()) != Some(x.rows()) {
            return Err(Error::shape("linear", "one row per packed token, for dropout", &[x]));
        }
        let bound = linears.into_iter().zip(&self.members).map(|(inputs, member)| {
            let terms = member.terms.iter().zip(&inputs.terms);
            let terms = terms.map(|(t, &[a, b])| t.bind(a.clone(), b.clone(), self.sequences.as_deref()));
            LowRankLinear { w: inputs.w, bias: inputs.bias, terms: terms.collect() }
        });
        Ok((tensor, bound.collect()))
    }
}
