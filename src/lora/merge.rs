//! Merging: W + s B A in place of W and the term, so that inference costs what the base costs.

use crate::nn::{DistilBert, LowRank, Variant, Weight};
use crate::tensor::gemm::{Mat, gemm};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// What [`merge`] took out of a model, to undo it.
pub struct Merged(Vec<Taken>);

/// Which linear, and its weight, terms and magnitude.
type Taken = (usize, Weight, Vec<LowRank>, Option<Box<dyn Variant>>);

/// Adds every low-rank term to its weight, and gives the rows the lengths of a magnitude; computed in f64 and rounded once to the weight's type.
///
/// # Errors
/// If the model has adapters of another kind, or a weight that is itself computed; or if one is not finite, before or merged.
pub fn merge(model: &mut DistilBert) -> Result<Merged> {
    if model.prompt.is_some()
        || model.shared.is_some()
        || model.blocks.iter().any(|b| b.prefix.is_some() || b.hooks.iter().any(Option::is_some))
    {
        return Err(Error::invalid("merge: only low-rank terms can be merged; a prompt, a prefix, a subspace and adapters cannot"));
    }
    for linear in model.linears_mut().into_iter().filter(|l| !l.terms.is_empty()) {
        let factors = linear.terms.iter().flat_map(|t| [&t.a, &t.b]);
        let own = linear.variant.iter().flat_map(|v| v.weights());
        [&linear.weight].into_iter().chain(factors).chain(own).try_for_each(|w| super::check_finite("merge", w))?;
    }
    let mut taken = Vec::new();
    for (i, linear) in model.linears_mut().into_iter().enumerate().filter(|(_, l)| !l.terms.is_empty()) {
        let (old, shape) = (linear.weight.value()?, linear.weight.shape().clone());
        let (mut sum, [output, input]) = (old.to_f64()?, [shape.rows(), shape.cols()]);
        for term in &linear.terms {
            let b: Vec<f64> = term.b.value()?.to_f64()?.iter().map(|b| term.scale * b).collect();
            let (a, rank) = (term.a.value()?.to_f64()?, term.rank());
            gemm(Mat::new(&b, output, rank), Mat::new(&a, rank, input), &mut sum, input, true);
        }
        if let Some(variant) = &linear.variant {
            variant.merge(&mut sum, input)?;
        }
        let merged = Tensor::from_f64(sum, DType::F64, &shape)?.to_dtype(old.dtype())?;
        // Its value is no longer the checkpoint's, as that of a weight that trained.
        let merged = Weight::trained(linear.weight.name(), merged);
        super::check_finite("merge", &merged)?;
        taken.push((i, std::mem::replace(&mut linear.weight, merged), std::mem::take(&mut linear.terms), linear.variant.take()));
    }
    Ok(Merged(taken))
}

impl Merged {
    /// Puts back the weights, bit for bit, and the terms.
    pub fn undo(self, model: &mut DistilBert) {
        let mut linears = model.linears_mut();
        for (i, weight, terms, variant) in self.0 {
            (linears[i].weight, linears[i].terms, linears[i].variant) = (weight, terms, variant);
        }
    }

    /// Number of linears that were merged.
    pub fn linears(&self) -> usize {
        self.0.len()
    }
}
