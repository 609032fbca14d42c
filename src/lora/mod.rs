//! LoRA and the other ways to fine-tune: what trains, how it starts, how it is counted and kept.

pub mod adapter;
mod bottleneck;
mod combine;
mod config;
mod counts;
pub mod dora;
pub mod dylora;
mod fields;
mod file;
mod merge;
mod method;
mod pattern;
mod peft;
mod ranges;
mod start;
pub mod subspace;
mod terms;
mod virtual_tokens;

pub use bottleneck::Placement;
pub use combine::{Combination, combine};
pub use config::{Bias, Init, LoraConfig};
pub use counts::{Counts, thousands};
pub use merge::{Merged, merge};
pub use method::Method;
pub use dylora::truncate;
pub use terms::adapt;

use crate::autograd::gradcheck::Suite;
use crate::autograd::ops;
use crate::nn::Weight;
use crate::tensor::philox::Stream;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// The gradient checks of the ops of fine-tuning methods.
pub fn suites() -> Vec<Suite> {
    vec![dora::suite(), dylora::suite(), subspace::suite()]
}

/// The gradient checks of every op of the engine.
pub fn all_suites() -> Vec<Suite> {
    ops::suites().into_iter().chain(suites()).collect()
}

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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn every_op_of_a_method_has_a_suite() {
        let suites: Vec<&str> = super::suites().iter().map(|s| s.op).collect();
        let texts = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lora")).into_iter().map(|f| std::fs::read_to_string(f).unwrap());
        let ops: Vec<String> = texts
            .flat_map(|text| {
                let names = text.split("\nimpl Op for ").skip(1).map(|rest| rest.split_whitespace().next().unwrap().to_string());
                names.collect::<Vec<_>>()
            })
            .collect();
        assert!(ops.len() == suites.len() && ops.iter().all(|op| suites.contains(&op.as_str())), "{ops:?} {suites:?}");
    }
}
