//! How low-rank terms start, and who gets one.

use super::names::names_in;
use super::{Init, LoraConfig, dora};
use crate::Result;
use crate::nn::{DistilBert, LowRank, Weight};
use crate::tensor::philox::Stream;
use crate::tensor::{DType, Tensor};

/// Adds a term to every linear that `config` adapts, and returns the names of those linears. [`super::Method::apply`] calls it, and then
/// makes the head and the other weights that train in full trainable.
///
/// # Errors
/// If a name in `config` matches nothing in the model. `Method::apply` has checked the numbers.
pub(super) fn add(model: &mut DistilBert, config: &LoraConfig, seed: u64) -> Result<Vec<String>> {
    let (linears, weights) = names_in(model);
    config.check(&linears, &weights)?;
    let mut adapted = Vec::new();
    for linear in model.linears_mut().into_iter().filter(|l| config.adapts(&l.name)) {
        // Parameters have the precision of an accumulator: f32 on a bf16 weight.
        let dtype = linear.weight.value()?.dtype().accum();
        linear.terms.push(new_term(&linear.name, linear.dims(), dtype, config, seed)?);
        if config.dora {
            dora::add(linear)?;
        }
        adapted.push(linear.name.clone());
    }
    Ok(adapted)
}

/// A random A `[r, in]` and B = 0 `[out, r]`: s B A is 0, so that training starts at the base. In the first step dA, which is a product
/// with B, is 0, and dB is not. With warm-up, the rate of that step is 0: B stays 0, and dA is 0 in the second step, too. A has a random
/// stream of its own name: it does not depend on which other linears are adapted.
fn new_term(name: &str, (output, input): (usize, usize), dtype: DType, config: &LoraConfig, seed: u64) -> Result<LowRank> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_is_as_large_as_in_peft_and_b_is_zero() {
        let (r, input) = (8_usize, 1000_usize);
        for (init, variance) in [(Init::Kaiming, 1.0 / (3.0 * input as f64)), (Init::Gaussian, 1.0 / (r * r) as f64)] {
            let config = LoraConfig { init, ..LoraConfig::new(r, &["q_lin"]) };
            let term = new_term("q_lin", (3, input), DType::F64, &config, 1).unwrap();
            let [a, b] = [&term.a, &term.b].map(|weight| weight.value().unwrap().to_f64().unwrap());
            let found = a.iter().map(|a| a * a).sum::<f64>() / a.len() as f64;
            // The standard error of the mean of 8,000 squares is below 2 %.
            assert!(a.len() == r * input && (found / variance - 1.0).abs() < 0.1, "{init:?}: {found} and {variance}");
            assert!(b.len() == 3 * r && b.iter().all(|b| *b == 0.0));
        }
    }
}
