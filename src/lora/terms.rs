//! Low-rank terms put on the linears of a model, and cut to fewer ranks.

use super::{Init, LoraConfig, Method};
use crate::nn::{DistilBert, LowRank, Magnitude, Weight};
use crate::tensor::philox::Stream;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

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
            let term = term(&linear.name, output, input, dtype, config, seed)?;
            if config.dora {
                // B is zero: m is ‖W‖, and m / n is 1.
                let norms = linear.row_norms(&term)?;
                let vector = Weight::trained(format!("{}.lora_magnitude_vector", linear.name), norms);
                linear.magnitude = Some(Magnitude::new(vector));
            }
            linear.terms.push(term);
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

/// Cuts every term to its first `rank` ranks, as DyLoRA's training makes them usable; s = alpha / r grows accordingly. Valipour et al. 2022,
/// <https://arxiv.org/abs/2210.07558>, equation 7.
///
/// # Errors
/// If no term has so many ranks, or a magnitude was learned for the whole.
pub fn truncate(model: &mut DistilBert, rank: usize) -> Result<()> {
    let most = model.linears_mut().iter().flat_map(|l| l.terms.iter().map(LowRank::rank)).max().unwrap_or(0);
    if rank == 0 || rank > most {
        return Err(Error::invalid(format!("the adapter has terms of rank {most}, which cannot be cut to rank {rank}")));
    }
    for linear in model.linears_mut() {
        if linear.magnitude.is_some() {
            return Err(Error::invalid(format!("{}: its magnitude was learned for all ranks, which cannot be cut", linear.name)));
        }
        for term in linear.terms.iter_mut().filter(|t| t.rank() > rank) {
            if !term.b.trains() {
                let problem = "half of its term is what the factors started as (PiSSA, OLoRA): that cannot be cut to fewer ranks";
                return Err(Error::invalid(format!("{}: {problem}", linear.name)));
            }
            let (old, dtype) = (term.rank(), term.a.value()?.dtype());
            let (a, b) = (term.a.value()?.to_f64()?, term.b.value()?.to_f64()?);
            let (input, output) = (a.len() / old, b.len() / old);
            let b = b.chunks_exact(old).flat_map(|row| row[..rank].iter().copied()).collect();
            term.a = Weight::trained(term.a.name(), Tensor::from_f64(a[..rank * input].to_vec(), dtype, [rank, input])?);
            term.b = Weight::trained(term.b.name(), Tensor::from_f64(b, dtype, [output, rank])?);
            term.scale *= old as f64 / rank as f64;
        }
    }
    Ok(())
}
