//! LoRA and the other ways to fine-tune: what trains, how it starts, how it is counted and kept.

mod about;
pub mod adapter;
mod bottleneck;
mod combine;
mod config;
mod counts;
mod fields;
mod file;
mod intrinsic;
mod merge;
mod method;
mod pattern;
mod peft;
mod ranges;
mod start;
mod terms;
mod virtual_tokens;

pub use about::{About, TrainedOn};
pub use bottleneck::Placement;
pub use combine::{Combination, combine};
pub use config::{Bias, Init, LoraConfig};
pub use counts::{Counts, thousands};
pub use merge::{Merged, merge};
pub use method::Method;
pub use terms::{adapt, truncate};

use crate::nn::Weight;
use crate::tensor::philox::Stream;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// # Errors
/// If the value of `weight` is not finite: `op` has no use for it.
fn check_finite(op: &str, weight: &Weight) -> Result<()> {
    weight.value()?.check_finite(|what| Error::invalid(format!("{op}: tensor {:?} {what}", weight.name())))
}

/// A weight that trains and starts at N(0, std²), drawn from the stream of its name.
fn normal(name: String, dims: [usize; 2], std: f64, dtype: DType, seed: u64) -> Result<Weight> {
    let mut stream = Stream::new(seed, &name);
    let values = (0..dims[0] * dims[1]).map(|_| std * stream.normal()).collect();
    Ok(Weight::trained(name, Tensor::from_f64(values, dtype, dims)?))
}
