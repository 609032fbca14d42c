//! The loss that training minimises: which op makes a number of logits and labels, for each kind of label.

use super::Recipe;
use crate::autograd::ops::CrossEntropy;
use crate::autograd::{Tape, Var};
use crate::data::{Batch, Targets, Tokenized};
use crate::nn::Outputs;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The loss of a run, by the kind of its labels.
pub(super) enum Loss<'a> {
    /// Cross-entropy with the class weights and the label smoothing of a recipe.
    Classes { weights: Vec<f64>, smoothing: f64 },
    /// Binary cross-entropy of several labels, or the squared error of numbers: the mean over texts and outputs.
    Targets(&'a Targets),
}

impl<'a> Loss<'a> {
    /// The loss of `recipe` on `data`, for a model of `outputs` classes or other outputs.
    ///
    /// # Errors
    /// If the recipe has class weights, but not one for each class; and if it has settings for classes, and the labels are none.
    pub fn new(recipe: &Recipe, data: &'a Tokenized, outputs: usize) -> Result<Loss<'a>> {
        let weights = recipe.class_weights.clone();
        if let Some(targets) = &data.targets {
            if !weights.is_empty() || recipe.label_smoothing != 0.0 {
                return Err(Error::invalid("recipe: class weights and label smoothing are for classes, and the labels are none"));
            }
            if targets.rows.iter().any(|row| row.len() != outputs) {
                return Err(Error::invalid(format!("training data: expected {outputs} numbers for each label, one for each output")));
            }
            return Ok(Loss::Targets(targets));
        }
        if !weights.is_empty() && weights.len() != outputs {
            return Err(Error::invalid(format!("recipe: {} class weights, and the model has {outputs} classes", weights.len())));
        }
        Ok(Loss::Classes { weights, smoothing: recipe.label_smoothing })
    }

    /// What the sum over a step is divided by. For classes, the sum of the weights of its labels (their number, if there are no weights).
    /// For other labels, the number of outputs of all its texts.
    pub fn divisor(&self, labels: impl Iterator<Item = u32>) -> f64 {
        match self {
            Loss::Classes { weights, .. } => labels.map(|label| weights.get(label as usize).unwrap_or(&1.0)).sum(),
            Loss::Targets(Targets { rows, .. }) => labels.map(|label| rows[label as usize].len() as f64).sum(),
        }
    }

    /// The loss of a micro-batch of a step with this divisor.
    ///
    /// # Errors
    /// If a label is not a class of the model.
    pub fn apply(&self, tape: &mut Tape, logits: &Var, labels: &[u32], divisor: f64) -> Result<Var> {
        let targets = match self {
            Loss::Classes { weights, smoothing } => {
                return tape.cross_entropy_with(CrossEntropy { divisor, weights: weights.clone(), smoothing: *smoothing }, logits, labels);
            }
            Loss::Targets(targets) => targets,
        };
        let rows: Vec<f64> = labels.iter().flat_map(|&label| targets.rows[label as usize].iter().copied()).collect();
        let wanted = Tensor::new(rows, logits.value().shape())?;
        match targets.outputs {
            Outputs::Numbers => tape.squared_error(logits, &wanted, divisor),
            _ => tape.bce_with_logits(logits, &wanted, divisor),
        }
    }

    /// The batch as it is reported: without labels if they are no classes, because then an accuracy has no meaning.
    pub fn reported(&self, batch: Batch) -> Batch {
        if matches!(self, Loss::Targets(_)) { Batch { labels: Vec::new(), ..batch } } else { batch }
    }
}

/// Weights that give each class the same part in the loss, for classes with these numbers of texts: n / (C · n_c), for C classes with
/// texts. A class without texts gets 1. King & Zeng 2001, as scikit-learn's `class_weight="balanced"`.
pub fn balanced_weights(counts: &[usize]) -> Vec<f64> {
    let (n, classes) = (counts.iter().sum::<usize>() as f64, counts.iter().filter(|&&count| count > 0).count() as f64);
    counts.iter().map(|&count| if count > 0 { n / (classes * count as f64) } else { 1.0 }).collect()
}
