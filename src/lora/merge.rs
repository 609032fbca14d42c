//! Merging: W + s B A in place of W and the term, so that inference costs what the base costs.

use crate::autograd::Parameter;
use crate::nn::{DistilBert, LowRank, Weight};
use crate::tensor::gemm::{Mat, gemm};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// What [`merge`] took out of a model, to undo it.
pub struct Merged(Vec<(usize, Weight, Vec<LowRank>)>);

/// Adds every low-rank term to its weight, computed in f64 and rounded once to the weight's type.
///
/// # Errors
/// If the model has adapters of another kind, or a weight that is itself computed.
pub fn merge(model: &mut DistilBert) -> Result<Merged> {
    if model.prompt.is_some() || model.blocks.iter().any(|b| b.prefix.is_some() || b.hooks.iter().any(Option::is_some)) {
        return Err(Error::invalid("merge: only low-rank terms can be merged; a prompt, a prefix and adapters cannot"));
    }
    let mut taken = Vec::new();
    for (i, linear) in model.linears_mut().into_iter().enumerate().filter(|(_, l)| !l.terms.is_empty()) {
        let (old, shape) = (linear.weight.value()?, linear.weight.shape().clone());
        let (mut sum, [output, input]) = (old.to_f64()?, [shape.rows(), shape.cols()]);
        for term in &linear.terms {
            let b: Vec<f64> = term.b.value().to_f64()?.iter().map(|b| term.scale * b).collect();
            let (a, rank) = (term.a.value().to_f64()?, term.a.value().shape().rows());
            gemm(Mat::new(&b, output, rank), Mat::new(&a, rank, input), &mut sum, input, true);
        }
        let merged = Tensor::from_f64(sum, DType::F64, &shape)?.to_dtype(old.dtype())?;
        // Its value is no longer the checkpoint's, as that of a weight that trained.
        let merged = Weight::Trained(Parameter::new(linear.weight.name(), merged));
        taken.push((i, std::mem::replace(&mut linear.weight, merged), std::mem::take(&mut linear.terms)));
    }
    Ok(Merged(taken))
}

impl Merged {
    /// Puts back the weights, bit for bit, and the terms.
    pub fn undo(self, model: &mut DistilBert) {
        let mut linears = model.linears_mut();
        for (i, weight, terms) in self.0 {
            (linears[i].weight, linears[i].terms) = (weight, terms);
        }
    }

    /// Number of linears that were merged.
    pub fn linears(&self) -> usize {
        self.0.len()
    }
}
