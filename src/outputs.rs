//! What the outputs of a model mean: classes, several labels, or numbers.

use std::ops::RangeInclusive;

/// Largest number of outputs C of a head. More classes come from a damaged or hostile file, or from a column that holds no labels.
pub const MOST_CLASSES: usize = 4096;

/// The temperatures that logits may be divided by. With a larger one two classes could have the same probability, and with a smaller one all would be 0
/// or 1: the answer would be lost in rounding.
pub const TEMPERATURES: RangeInclusive<f64> = 1e-10..=1e6;

/// Checks the number of outputs of a head, before memory is allocated for it.
pub(crate) fn check_classes(classes: usize) -> std::result::Result<(), String> {
    match classes {
        1..=MOST_CLASSES => Ok(()),
        _ => Err(format!("{classes} classes: there must be 1 to {MOST_CLASSES}")),
    }
}

/// The meaning of the logits of a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Outputs {
    /// Exactly one of several classes is right: softmax.
    #[default]
    Classes,
    /// Any number of the labels are right, or the only label is right or not: a sigmoid each.
    Labels,
    /// Regression: the logits are the result.
    Numbers,
}

impl Outputs {
    /// All.
    pub const ALL: [Outputs; 3] = [Outputs::Classes, Outputs::Labels, Outputs::Numbers];

    /// The value of `problem_type` in transformers.
    pub fn problem_type(self) -> &'static str {
        match self {
            Outputs::Classes => "single_label_classification",
            Outputs::Labels => "multi_label_classification",
            Outputs::Numbers => "regression",
        }
    }

    /// What a value of `problem_type` means. `None` for another value.
    pub fn named(problem_type: &str) -> Option<Outputs> {
        Outputs::ALL.into_iter().find(|outputs| outputs.problem_type() == problem_type)
    }
}

/// The name that Hugging Face transformers gives to class `i` if a checkpoint has no names.
pub fn generic_label(i: usize) -> String {
    format!("LABEL_{i}")
}
