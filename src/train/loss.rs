//! The loss that training minimises. This file alone knows how a batch of logits and labels becomes a number.

use super::Recipe;
use crate::autograd::ops::CrossEntropy;
use crate::autograd::{Tape, Var};
use crate::{Error, Result};

/// Cross-entropy with the class weights and the label smoothing of a recipe.
pub(super) struct Loss {
    weights: Vec<f64>,
    smoothing: f64,
}

impl Loss {
    /// The loss of `recipe`, for a model of `classes` classes.
    ///
    /// # Errors
    /// If the recipe has class weights, but not one for each class.
    pub fn new(recipe: &Recipe, classes: usize) -> Result<Loss> {
        let weights = recipe.class_weights.clone();
        if !weights.is_empty() && weights.len() != classes {
            return Err(Error::invalid(format!("recipe: {} class weights, and the model has {classes} classes", weights.len())));
        }
        Ok(Loss { weights, smoothing: recipe.label_smoothing })
    }

    /// What the sum over a step is divided by: the sum of the weights of its labels, which is their number if there are no weights.
    pub fn divisor(&self, labels: impl Iterator<Item = u32>) -> f64 {
        labels.map(|label| self.weights.get(label as usize).unwrap_or(&1.0)).sum()
    }

    /// The loss of a micro-batch of a step with this divisor.
    ///
    /// # Errors
    /// If a label is not a class of the model.
    pub fn apply(&self, tape: &mut Tape, logits: &Var, labels: &[u32], divisor: f64) -> Result<Var> {
        tape.cross_entropy_with(CrossEntropy { divisor, weights: self.weights.clone(), smoothing: self.smoothing }, logits, labels)
    }
}

/// Weights that give each class the same part in the loss, for classes with these numbers of texts: n / (C · n_c), for C classes with texts. A class
/// without texts gets 1. King & Zeng 2001, as scikit-learn's `class_weight="balanced"`.
pub fn balanced_weights(counts: &[usize]) -> Vec<f64> {
    let (n, classes) = (counts.iter().sum::<usize>() as f64, counts.iter().filter(|&&count| count > 0).count() as f64);
    counts.iter().map(|&count| if count > 0 { n / (classes * count as f64) } else { 1.0 }).collect()
}
