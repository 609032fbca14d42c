//! LoRA and the other ways to fine-tune: what trains, how it starts, how it is counted and kept.

pub mod adapter;
mod bottleneck;
mod combine;
mod config;
mod counts;
mod intrinsic;
mod merge;
mod method;
mod peft;
mod ranges;
mod terms;
mod virtual_tokens;

pub use bottleneck::Placement;
pub use combine::{Combination, combine};
pub use config::{Bias, Init, LoraConfig};
pub use counts::{Counts, thousands};
pub use merge::{Merged, merge};
pub use method::Method;
pub use terms::{adapt, truncate};

use crate::Result;
use crate::nn::Weight;
use crate::tensor::philox::Stream;
use crate::tensor::{DType, Tensor};

/// A weight that trains and starts at N(0, std²), drawn from the stream of its name.
fn normal(name: String, dims: [usize; 2], std: f64, dtype: DType, seed: u64) -> Result<Weight> {
    let mut stream = Stream::new(seed, &name);
    let values = (0..dims[0] * dims[1]).map(|_| std * stream.normal()).collect();
    Ok(Weight::trained(name, Tensor::from_f64(values, dtype, dims)?))
}
