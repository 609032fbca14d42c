//! Low-rank adaptation: who gets a term, how it starts, how it is counted and kept. Hu et al. 2021, <https://arxiv.org/abs/2106.09685>.

pub mod peft;

use crate::autograd::Parameter;
use crate::nn::{DistilBert, LowRank};
use crate::tensor::philox::Stream;
use crate::tensor::safetensors::nearest;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

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
#[derive(Clone, Debug)]
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
}

impl LoraConfig {
    /// The study's recipe at rank `r`: alpha = 2r, dropout 0.1.
    pub fn new(rank: usize, targets: &[&str]) -> LoraConfig {
        let targets = targets.iter().map(|t| t.to_string()).collect();
        LoraConfig { rank, alpha: 2.0 * rank as f64, dropout: 0.1, targets, init: Init::Kaiming }
    }

    fn check(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::invalid("lora: the rank must be at least 1"));
        }
        if !(0.0..1.0).contains(&self.dropout) || !self.alpha.is_finite() {
            return Err(Error::invalid("lora: dropout must lie in [0, 1) and alpha be finite"));
        }
        Ok(())
    }
}

/// Adds a term to every linear that a target names, and makes the head train in full. Returns the names of the adapted linears.
///
/// # Errors
/// If a target names no linear; the message lists the nearest names.
pub fn adapt(model: &mut DistilBert, config: &LoraConfig, seed: u64) -> Result<Vec<String>> {
    config.check()?;
    let names: Vec<String> = model.linears_mut().iter().map(|l| l.name.clone()).collect();
    let matches = |name: &str, target: &str| name == target || name.strip_suffix(target).is_some_and(|rest| rest.ends_with('.'));
    for target in &config.targets {
        if !names.iter().any(|name| matches(name, target)) {
            let mut ends: Vec<&str> = names.iter().map(|n| n.rsplit('.').next().unwrap_or(n)).collect();
            ends.sort();
            ends.dedup();
            let near = nearest(target, ends.into_iter(), 3).join(", ");
            return Err(Error::invalid(format!("lora: the target {target:?} names no linear of the model; the nearest names are {near}")));
        }
    }
    let mut adapted = Vec::new();
    for linear in model.linears_mut() {
        if config.targets.iter().any(|target| matches(&linear.name, target)) {
            let (output, input) = linear.dims();
            // What trains is kept in the type of sums.
            let dtype = linear.weight.value()?.dtype().sum();
            linear.terms.push(term(&linear.name, output, input, dtype, config, seed)?);
            adapted.push(linear.name.clone());
        }
    }
    for linear in [&mut model.pre_classifier, &mut model.classifier] {
        linear.weight.train()?;
        linear.bias.iter_mut().try_for_each(|b| b.train())?;
    }
    Ok(adapted)
}

fn term(name: &str, output: usize, input: usize, dtype: DType, config: &LoraConfig, seed: u64) -> Result<LowRank> {
    let r = config.rank;
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
        scale: config.alpha / r as f64,
        dropout: config.dropout,
    })
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
