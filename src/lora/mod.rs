//! LoRA and the other ways to fine-tune: what trains, how it starts, how it is counted and kept.
//!
//! Low-rank adaptation is Hu et al. 2021, <https://arxiv.org/abs/2106.09685>.

pub mod adapter;
mod bottleneck;
mod merge;
mod method;
mod peft;
mod virtual_tokens;

pub use bottleneck::Placement;
pub use merge::{Merged, merge};
pub use method::Method;

use crate::autograd::Parameter;
use crate::nn::{DistilBert, LowRank};
use crate::tensor::philox::Stream;
use crate::tensor::safetensors::nearest;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// How A starts; B is zero, so that training starts at the base exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Init {
    /// U(−1/√in, 1/√in): PEFT's default (`kaiming_uniform` with a = √5), what the study's code ran.
    #[default]
    Kaiming,
    /// N(0, (1/r)²): PEFT's option of that name, and what the study's text says.
    Gaussian,
}

/// A LoRA configuration.
#[derive(Clone, Debug, Default)]
pub struct LoraConfig {
    /// Rank r.
    pub rank: usize,
    /// Scale of the term is alpha / r.
    pub alpha: f64,
    /// Probability of dropping an element of a term's input, in [0, 1).
    pub dropout: f64,
    /// Names of the adapted linears: a whole name, or its end after a dot.
    pub targets: Vec<String>,
    /// How A starts.
    pub init: Init,
    /// Scale alpha / √r in place of alpha / r. Kalajdzievski 2023, <https://arxiv.org/abs/2312.03732>, equation 4.
    pub rank_stabilised: bool,
    /// Ranks of single linears, by name or end of a name; of those that match, the first in alphabetical order holds, as in PEFT's files.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single linears, likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Layers whose linears are adapted; all if there are none.
    pub layers: Vec<usize>,
    /// Biases that train.
    pub bias: Bias,
}

/// The linears of a layer, by the ends of their names.
const BLOCK_LINEARS: [&str; 6] = ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"];

/// Biases that train beside the low-rank terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bias {
    /// None but the head's.
    #[default]
    None,
    /// Those of the adapted linears.
    LoraOnly,
    /// All, layer norms' included.
    All,
}

impl LoraConfig {
    /// The study's recipe at rank `r`: alpha = 2r, dropout 0.1. `all-linear` stands for the six linears of a layer.
    pub fn new(rank: usize, targets: &[&str]) -> LoraConfig {
        let mut all = Vec::new();
        for target in targets {
            match *target {
                "all-linear" => all.extend(BLOCK_LINEARS.map(String::from)),
                other => all.push(other.to_string()),
            }
        }
        LoraConfig { rank, alpha: 2.0 * rank as f64, dropout: 0.1, targets: all, ..LoraConfig::default() }
    }

    /// Rank and scale of the term of linear `name`.
    pub fn term_of(&self, name: &str) -> (usize, f64) {
        let rank = self.rank_pattern.iter().find(|(end, _)| names(name, end)).map_or(self.rank, |(_, &rank)| rank);
        let alpha = self.alpha_pattern.iter().find(|(end, _)| names(name, end)).map_or(self.alpha, |(_, &alpha)| alpha);
        (rank, alpha / if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 })
    }

    /// Whether linear `name` gets a term.
    pub fn adapts(&self, name: &str) -> bool {
        let layer = || method::layer(name).is_some_and(|layer| self.layers.contains(&layer));
        self.targets.iter().any(|target| names(name, target)) && (self.layers.is_empty() || layer())
    }

    fn check(&self, linears: &[String]) -> Result<()> {
        if self.rank == 0 || self.rank_pattern.values().any(|&rank| rank == 0) {
            return Err(Error::invalid("lora: the rank must be at least 1"));
        }
        if !(0.0..1.0).contains(&self.dropout) || ![self.alpha].iter().chain(self.alpha_pattern.values()).all(|a| a.is_finite()) {
            return Err(Error::invalid("lora: dropout must lie in [0, 1) and alpha be finite"));
        }
        let adapted: Vec<&String> = linears.iter().filter(|name| self.adapts(name)).collect();
        let targets = self.targets.iter().map(|t| ("target", t));
        let patterns = self.rank_pattern.keys().map(|k| ("rank pattern", k)).chain(self.alpha_pattern.keys().map(|k| ("alpha pattern", k)));
        for (what, end) in targets.chain(patterns) {
            if !adapted.iter().any(|name| names(name, end)) {
                let mut ends: Vec<&str> = linears.iter().map(|n| n.rsplit('.').next().unwrap_or(n)).collect();
                ends.sort();
                ends.dedup();
                let (near, of) =
                    (nearest(end, ends.into_iter(), 3).join(", "), if self.layers.is_empty() { "" } else { " in these layers" });
                return Err(Error::invalid(format!(
                    "lora: the {what} {end:?} names no linear of the model{of}; the nearest names are {near}"
                )));
            }
        }
        match self.layers.iter().find(|&&layer| !adapted.iter().any(|name| method::layer(name) == Some(layer))) {
            Some(layer) => Err(Error::invalid(format!("lora: layer {layer} has no linear that a target names"))),
            None => Ok(()),
        }
    }
}

/// Whether `end` is the name or its end after a dot.
fn names(name: &str, end: &str) -> bool {
    name == end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'))
}

/// [`Method::Lora`] applied: adds a term to every linear that a target names, and makes the head train in full.
///
/// # Errors
/// If a target names no linear; the message lists the nearest names.
pub fn adapt(model: &mut DistilBert, config: &LoraConfig, seed: u64) -> Result<Vec<String>> {
    Method::Lora(config.clone()).apply(model, seed)
}

/// Adds a term to every linear that a target names. Returns the names of those linears.
fn add_terms(model: &mut DistilBert, config: &LoraConfig, seed: u64) -> Result<Vec<String>> {
    config.check(&model.linears_mut().iter().map(|l| l.name.clone()).collect::<Vec<_>>())?;
    let mut adapted = Vec::new();
    for linear in model.linears_mut() {
        if config.adapts(&linear.name) {
            let (output, input) = linear.dims();
            // What trains is kept in the type of sums.
            let dtype = linear.weight.value()?.dtype().sum();
            linear.terms.push(term(&linear.name, output, input, dtype, config, seed)?);
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
        a: Parameter::new(a_name, a),
        b: Parameter::new(format!("{name}.lora_B.weight"), Tensor::zeros(dtype, [output, r])),
        scale,
        dropout: config.dropout,
    })
}

/// A parameter that starts at N(0, std²), drawn from the stream of its name.
fn normal(name: String, dims: [usize; 2], std: f64, dtype: DType, seed: u64) -> Result<Parameter> {
    let mut stream = Stream::new(seed, &name);
    let values = (0..dims[0] * dims[1]).map(|_| std * stream.normal()).collect();
    Ok(Parameter::new(name, Tensor::from_f64(values, dtype, dims)?))
}

/// How many numbers train.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Trained numbers.
    pub trainable: usize,
    /// Numbers of the checkpoint with its head.
    pub base: usize,
}

impl Counts {
    /// Counts a model.
    pub fn of(model: &DistilBert) -> Counts {
        Counts {
            trainable: model.parameters().iter().map(|p| p.value().shape().len()).sum(),
            base: model.weights().iter().map(|w| w.shape().len()).sum(),
        }
    }

    /// PEFT's line, which counts a trained head twice: the original and the copy that trains.
    pub fn peft_line(&self) -> String {
        let all = self.base + self.trainable;
        let percent = 100.0 * self.trainable as f64 / all as f64;
        format!("trainable params: {} || all params: {} || trainable%: {percent:.4}", thousands(self.trainable), thousands(all))
    }

    /// Percentage of the model's own numbers.
    pub fn percent(&self) -> f64 {
        100.0 * self.trainable as f64 / self.base as f64
    }
}

/// 1234567 as `1,234,567`.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
