//! LoRA and the other ways to fine-tune: what trains, how it starts, how it is merged, counted and stored.
//!
//! LoRA (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, equation 3) freezes a weight W `[out, in]` and learns a change of low rank: y
//! = x Wᵀ + s · x Aᵀ Bᵀ with A `[r, in]`, B `[out, r]` and s = alpha / r. r is small, so few numbers train: r (in + out) in place of in ·
//! out. A starts random and B starts at zero, so that training starts at the base. Afterwards W + s B A can take the place of W.
//!
//! Read `config.rs` ([`LoraConfig`]), `method.rs` ([`Method`]), `terms.rs` and `merge.rs`. PEFT is Hugging Face's library of such methods.
//! An "adapter" here is what PEFT calls so: the trained weights of most methods, in two small files that belong to a base. Houlsby et al.
//! call networks after the sublayers adapters; here these are "bottlenecks" ([`Method::Bottleneck`]).

mod about;
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
mod names;
mod pattern;
mod peft;
mod ranges;
mod start;
pub mod subspace;
mod terms;
mod virtual_tokens;

pub use about::{About, BaseSettings, TrainedOn};
pub use bottleneck::Placement;
pub use combine::{Combination, combine};
pub use config::{Bias, Init, LoraConfig};
pub use counts::Counts;
pub use dylora::truncate;
pub use merge::{Merged, merge};
pub use method::{Method, adapt};

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

/// Refuses a weight with a NaN or an infinity. `op` is what reads or computed it, for the message.
///
/// # Errors
/// If there is one.
fn check_finite(op: &str, weight: &Weight) -> Result<()> {
    weight.value()?.check_finite(|what| Error::invalid(format!("{op}: tensor {:?} {what}", weight.name())))
}

/// A trained weight that starts at N(0, std²), drawn from the random stream of its name.
fn normal(name: String, dims: [usize; 2], std: f64, dtype: DType, seed: u64) -> Result<Weight> {
    let mut stream = Stream::new(seed, &name);
    let values = (0..dims[0] * dims[1]).map(|_| std * stream.normal()).collect();
    Ok(Weight::trained(name, Tensor::from_f64(values, dtype, dims)?))
}

#[cfg(test)]
mod tests {
    use crate::tensor::philox::Stream;
    use std::path::{Path, PathBuf};

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn every_op_of_a_method_has_a_suite() {
        for suite in super::suites() {
            let case = (suite.case)(&mut Stream::new(0, suite.op)).unwrap();
            assert_eq!(case.op.name().replace('_', ""), suite.op.to_lowercase());
        }
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
