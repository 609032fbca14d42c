//! Merging: W + s B A takes the place of W and its term, so that inference costs what the base costs.
//!
//! x (W + s B A)ᵀ = x Wᵀ + s · x Aᵀ Bᵀ, so a merged model computes the same function as the unmerged one without dropout, up to rounding.
//! Two roundings differ: sums run in another order, and W + s B A is rounded to the type of W. In f32 both are small. In bf16, which has 8
//! significant bits, an element of s B A that is less than about 1/500 of its element of W is lost: a small adapter can vanish in part.
//! Merge into an f32 base to keep it.

use super::check_finite;
use crate::nn::{DistilBert, Linear, Weight};
use crate::tensor::gemm::{Mat, gemm};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// What [`merge`] took out of a model, to undo it.
///
/// It holds each merged linear as it was (but without its bias, which stays in the model), and its number in the model.
pub struct Merged(Vec<(usize, Linear)>);

/// Merges every low-rank term into its weight. The sums are computed in f64 and rounded once, to the weight's type.
///
/// # Errors
/// If the model has something that cannot be merged (a prompt, a prefix, a bottleneck, a computed weight), or a number is not finite before
/// merging: the model is then unchanged. If a number is not finite after merging: the linears before it are then merged.
pub fn merge(model: &mut DistilBert) -> Result<Merged> {
    let hooked = model.blocks.iter().any(|b| b.prefix.is_some() || b.hooks.iter().any(Option::is_some));
    if model.prompt.is_some() || model.shared.is_some() || hooked {
        return Err(Error::invalid("merge: only low-rank terms can be merged; a prompt, a prefix, a subspace and bottlenecks cannot"));
    }
    for linear in model.linears_mut().into_iter().filter(|l| !l.terms.is_empty()) {
        let factors = linear.terms.iter().flat_map(|t| [&t.a, &t.b]);
        let own = linear.variant.iter().flat_map(|v| v.weights());
        [&linear.weight].into_iter().chain(factors).chain(own).try_for_each(|w| check_finite("merge", w))?;
    }
    let mut taken = Vec::new();
    for (i, linear) in model.linears_mut().into_iter().enumerate().filter(|(_, l)| !l.terms.is_empty()) {
        // The merged weight is marked as trained, so that it is saved: its value is no longer the checkpoint's.
        // It keeps the base's type, bf16 too, because a merged model does not train.
        let merged = Weight::trained(linear.weight.name(), merged_weight(linear)?);
        check_finite("merge", &merged)?;
        let plain = Linear::new(&linear.name, merged, linear.bias.take(), linear.site);
        taken.push((i, std::mem::replace(linear, plain)));
    }
    Ok(Merged(taken))
}

/// W + Σ s B A `[out, in]`, and what a variant makes of it.
fn merged_weight(linear: &Linear) -> Result<Tensor> {
    let (old, (output, input)) = (linear.weight.value()?, linear.dims());
    let mut sum = old.to_f64()?;
    for term in &linear.terms {
        let b: Vec<f64> = term.b.value()?.to_f64()?.iter().map(|b| term.scale * b).collect();
        let (a, rank) = (term.a.value()?.to_f64()?, term.rank());
        gemm(Mat::new(&b, output, rank), Mat::new(&a, rank, input), &mut sum, input, true);
    }
    if let Some(variant) = &linear.variant {
        variant.merge(&mut sum, input)?;
    }
    Tensor::from_f64(sum, DType::F64, [output, input])?.to_dtype(old.dtype())
}

impl Merged {
    /// Puts back the weights, bit for bit, and the terms.
    pub fn undo(self, model: &mut DistilBert) {
        let mut linears = model.linears_mut();
        for (i, linear) in self.0 {
            let bias = linears[i].bias.take();
            *linears[i] = Linear { bias, ..linear };
        }
    }

    /// Number of linears that were merged.
    pub fn linears(&self) -> usize {
        self.0.len()
    }
}
