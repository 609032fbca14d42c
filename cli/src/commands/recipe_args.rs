//! The arguments of `train` that make a recipe.

use super::method::MethodArgs;
use super::task::only_for_classes;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lowrank::data::Tokenized;
use lowrank::lora::Method;
use lowrank::nn::Outputs;
use lowrank::train::{Recipe, Schedule, balanced_weights};
use lowrank::{Error, Result};

/// Loss, optimizer and batches of a run.
#[derive(Args)]
pub struct RecipeArgs {
    /// Compute the output of the frozen layers once (head, selective); dropout in those layers is then off
    #[arg(long)]
    cache_trunk: bool,
    /// Micro-batches of an optimizer step
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Highest learning rate [default: 3e-4 for the lora kinds, 2e-5 for full and selective, 1e-2 for prefix, prompt and intrinsic, else 1e-3]
    #[arg(long)]
    lr: Option<f64>,
    #[arg(long, default_value_t = 0.01)]
    weight_decay: f64,
    /// No weight decay for biases and layer norms
    #[arg(long)]
    no_bias_decay: bool,
    /// Share of the steps in which the learning rate rises
    #[arg(long, default_value_t = 0.1)]
    warmup: f64,
    /// What the learning rate does after the warm-up: fall to 0 in a straight line or as a cosine, or stay
    #[arg(long, default_value = "linear", value_parser = schedule())]
    schedule: Schedule,
    /// Largest global gradient norm
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// Weight of each class in the loss: balanced (each class has the same part, whatever its number of texts), or a weight for some labels, such as
    /// spam=5,ham=0.5; other labels have 1
    #[arg(long, value_delimiter = ',', value_name = "balanced|LABEL=WEIGHT", value_parser = class_weight, allow_hyphen_values = true)]
    class_weights: Vec<ClassWeight>,
    /// Share of each target that is spread evenly over all classes, in [0, 1)
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    label_smoothing: f64,
    /// Batch texts of similar length instead of plain shuffling
    #[arg(long)]
    group_by_length: bool,
    /// Compute each layer again in backward: less memory, more time, the same result
    #[arg(long)]
    recompute: bool,
}

/// An element of `--class-weights`.
#[derive(Clone, PartialEq)]
enum ClassWeight {
    Balanced,
    Of(String, f64),
}

fn class_weight(text: &str) -> std::result::Result<ClassWeight, String> {
    let Some((label, weight)) = text.rsplit_once('=') else {
        return if text == "balanced" { Ok(ClassWeight::Balanced) } else { Err("expected balanced or LABEL=WEIGHT".to_string()) };
    };
    let number = weight.parse().ok().filter(|w: &f64| *w > 0.0 && w.is_finite());
    number.map(|w| ClassWeight::Of(label.to_string(), w)).ok_or_else(|| format!("the weight {weight:?} is no positive number"))
}

fn schedule() -> impl TypedValueParser<Value = Schedule> {
    PossibleValuesParser::new(["linear", "cosine", "constant"]).map(|name| match name.as_str() {
        "cosine" => Schedule::Cosine,
        "constant" => Schedule::Constant,
        _ => Schedule::Linear,
    })
}

impl RecipeArgs {
    /// The recipe, without class weights: these need the classes of the data.
    ///
    /// # Errors
    /// For an impossible choice of the method.
    pub fn recipe(&self, (epochs, batch, seed): (usize, usize, u64), what: &MethodArgs, method: &Method) -> Result<Recipe> {
        Ok(Recipe {
            epochs,
            batch,
            accumulate: self.accumulate,
            lr: self.lr.unwrap_or(MethodArgs::learning_rate(method)),
            weight_decay: self.weight_decay,
            warmup: self.warmup,
            clip: self.clip,
            seed,
            group_by_length: self.group_by_length,
            recompute: self.recompute,
            cache_trunk: self.cache_trunk,
            nested_rank: what.nested_rank()?,
            schedule: self.schedule,
            class_weights: Vec::new(),
            label_smoothing: self.label_smoothing,
            no_bias_decay: self.no_bias_decay,
        })
    }

    /// Refuses options that have no meaning for the task.
    ///
    /// # Errors
    /// If one is given.
    pub fn check(&self, task: Outputs) -> Result<()> {
        only_for_classes(task, "--class-weights", !self.class_weights.is_empty())?;
        only_for_classes(task, "--label-smoothing", self.label_smoothing != 0.0)
    }

    /// The weight of each class of the training texts; none if none were asked for.
    ///
    /// # Errors
    /// If a label is not a class or has two weights, or `balanced` does not stand alone.
    pub fn class_weights(&self, train: &Tokenized) -> Result<Vec<f64>> {
        let names = &train.label_names;
        if self.class_weights == [ClassWeight::Balanced] {
            return Ok(balanced_weights(&train.class_counts()));
        }
        let mut weights: Vec<Option<f64>> = vec![None; names.len()];
        for weight in &self.class_weights {
            let ClassWeight::Of(label, weight) = weight else {
                return Err(Error::invalid("--class-weights: balanced stands alone: give it, or weights for labels"));
            };
            let problem = || format!("--class-weights: {label:?} is none of the classes {}", names.join(", "));
            let class = names.iter().position(|name| name == label).ok_or_else(|| Error::invalid(problem()))?;
            if weights[class].replace(*weight).is_some() {
                return Err(Error::invalid(format!("--class-weights: {label:?} has two weights")));
            }
        }
        let given = !self.class_weights.is_empty();
        Ok(if given { weights.into_iter().map(|weight| weight.unwrap_or(1.0)).collect() } else { Vec::new() })
    }
}
