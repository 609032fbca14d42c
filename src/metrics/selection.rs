//! The figure by which the best epoch is chosen.

use super::figures::Sample;
use crate::{Error, Result};

/// A figure of a classifier on held-out texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// Share of right answers.
    #[default]
    Accuracy,
    /// Mean recall of the classes.
    BalancedAccuracy,
    /// Mean F1 of the classes.
    MacroF1,
    /// Mean F1, weighted by the texts of each class.
    WeightedF1,
    /// Matthews' correlation.
    Matthews,
    /// Area under the ROC curve.
    RocAuc,
    /// Average precision.
    AveragePrecision,
    /// Mean cross-entropy. Less is better.
    Loss,
}

impl Metric {
    /// All, with their names on the command line. The first seven are in the order of `Sample::figures`.
    pub const ALL: [(&str, Metric); 8] = [
        ("accuracy", Metric::Accuracy),
        ("balanced-accuracy", Metric::BalancedAccuracy),
        ("macro-f1", Metric::MacroF1),
        ("weighted-f1", Metric::WeightedF1),
        ("matthews", Metric::Matthews),
        ("roc-auc", Metric::RocAuc),
        ("average-precision", Metric::AveragePrecision),
        ("loss", Metric::Loss),
    ];

    fn place(self) -> usize {
        Metric::ALL.iter().position(|(_, metric)| *metric == self).unwrap_or(0)
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        Metric::ALL[self.place()].0
    }

    /// The figure of class probabilities `[N][C]` whose mean cross-entropy is `loss`, for labels `[N]`.
    ///
    /// # Errors
    /// If the figure is not defined, because a class has no text or all of them; and those of [`Metrics::new`](super::Metrics::new).
    pub fn of(self, probabilities: &[Vec<f64>], labels: &[u32], loss: f64) -> Result<f64> {
        if self == Metric::Loss {
            return Ok(loss);
        }
        let sample = Sample::new(probabilities, labels)?;
        let value = sample.figures(&sample.once())[self.place()];
        let problem =
            || format!("{} is not defined for these {} texts: each class needs texts, and none may have all", self.name(), labels.len());
        if value.is_nan() { Err(Error::invalid(problem())) } else { Ok(value) }
    }

    /// Whether `a` is better than `b`.
    pub fn is_better(self, a: f64, b: f64) -> bool {
        if self == Metric::Loss { a < b } else { a > b }
    }
}
