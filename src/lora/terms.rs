//! Low-rank terms put on the linears of a model, and cut to fewer ranks.

use super::{Init, LoraConfig, Method, dora};
use crate::nn::{DistilBert, LowRank, Weight};
use crate::tensor::philox::Stream;
use crate::tensor::{DType, Tensor};
use crate::Result;

/// [`Method::Lora`] applied: adds a term to every linear that a target names, and makes the head train in full.
///
/// # Errors
/// If a target names no linear; the message lists the nearest names.
pub fn adapt(model: &mut DistilBert, config: &LoraConfig, seed: u64) -> Result<Vec<String>> {
    Method::Lora(config.clone()).apply(model, seed)
}

/// Adds a term to every linear that a target names. Returns the names of those linears.
pub(super) fn add(model: &mut DistilBert, config: &LoraConfig, seed: u64) -> Result<Vec<String>> {
    let weights: Vec<String> = model.weights().iter().map(|w| w.name().to_string()).collect();
    config.check(&model.linears_mut().iter().map(|l| l.name.clone()).collect::<Vec<_>>(), &weights)?;
    let mut adapted = Vec::new();
    for linear in model.linears_mut() {
        if config.adapts(&linear.name) {
            let (output, input) = linear.dims();
            // What trains is kept in the type of sums.
            let dtype = linear.weight.value()?.dtype().accum();
            linear.terms.push(term(&linear.name, output, input, dtype, config, seed)?);
            if config.dora {
                dora::add(linear)?;
            }
            adapted.push(linear.name.clone());
        }
    }
    Ok(adapted)
}

fn term(name: &str, output: usize, input: usize, dtype: DType, config: &LoraConfig, seed: u64) -> Result<LowRank> {
    let (r, scale) = config.term_of(name);
    let a_name = format!("{name}.lora_A.weight");
    let mut stream = Stream::new(seed, &a_name);
    let bound = (input as f64).sqrt().recip();
    let mut draw = || match config.init {
        Init::Kaiming => bound * (2.0 * stream.uniform() - 1.0),
        Init::Gaussian => stream.normal() / r as f64,
    };
    let a = Tensor::from_f64((0..r * input).map(|_| draw()).collect(), dtype, [r, input])?;
    Ok(LowRank {
        a: if config.freeze_a { Weight::frozen(a_name, a) } else { Weight::trained(a_name, a) },
        b: Weight::trained(format!("{name}.lora_B.weight"), Tensor::zeros(dtype, [output, r])),
        scale,
        dropout: config.dropout,
    })
}
