//! The figure by which the best epoch is chosen.

use super::figures::Sample;
use super::labels::label_figures;
use super::numbers::number_figures;
use crate::outputs::Outputs;
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
    /// Mean cross-entropy, binary cross-entropy or squared error: what training minimises. Less is better.
    Loss,
    /// F1 of all decisions about several labels.
    MicroF1,
    /// Mean absolute error of numbers. Less is better.
    MeanAbsoluteError,
    /// Pearson's correlation of numbers.
    Pearson,
    /// Spearman's correlation of numbers.
    Spearman,
    /// Coefficient of determination of numbers.
    R2,
}

impl Metric {
    /// All, with their names on the command line. The first seven are in the order of `Sample::figures`.
    pub const ALL: [(&str, Metric); 13] = [
        ("accuracy", Metric::Accuracy),
        ("balanced-accuracy", Metric::BalancedAccuracy),
        ("macro-f1", Metric::MacroF1),
        ("weighted-f1", Metric::WeightedF1),
        ("matthews", Metric::Matthews),
        ("roc-auc", Metric::RocAuc),
        ("average-precision", Metric::AveragePrecision),
        ("loss", Metric::Loss),
        ("micro-f1", Metric::MicroF1),
        ("mae", Metric::MeanAbsoluteError),
        ("pearson", Metric::Pearson),
        ("spearman", Metric::Spearman),
        ("r2", Metric::R2),
    ];

    /// The figures of a kind of outputs; the first is the default.
    pub fn of_outputs(outputs: Outputs) -> &'static [Metric] {
        use Metric::{Accuracy, AveragePrecision, BalancedAccuracy, Loss, MacroF1, Matthews, MicroF1, RocAuc, WeightedF1};
        match outputs {
            Outputs::Classes => &[Accuracy, BalancedAccuracy, MacroF1, WeightedF1, Matthews, RocAuc, AveragePrecision, Loss],
            Outputs::Labels => &[Loss, Accuracy, MicroF1, MacroF1, RocAuc, AveragePrecision],
            Outputs::Numbers => &[Loss, Metric::MeanAbsoluteError, Metric::Pearson, Metric::Spearman, Metric::R2],
        }
    }

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
        if !Metric::of_outputs(Outputs::Classes).contains(&self) {
            return Err(Error::invalid(format!("{} is not a figure of classes", self.name())));
        }
        let sample = Sample::new(probabilities, labels)?;
        let value = sample.figures(&sample.once())[self.place()];
        let problem =
            || format!("{} is not defined for these {} texts: each class needs texts, and none may have all", self.name(), labels.len());
        if value.is_nan() { Err(Error::invalid(problem())) } else { Ok(value) }
    }

    /// The figure of several labels at thresholds of 1/2, or of numbers: `found` and `wanted` `[N][C]`, whose loss is `loss`.
    ///
    /// # Errors
    /// If the figure is not one of these outputs, or not defined for these texts.
    pub fn of_targets(self, outputs: Outputs, found: &[Vec<f64>], wanted: &[Vec<f64>], loss: f64) -> Result<f64> {
        if self == Metric::Loss {
            return Ok(loss);
        }
        let value = |estimate: Option<f64>| {
            estimate.ok_or_else(|| Error::invalid(format!("{} is not defined for these {} texts", self.name(), wanted.len())))
        };
        match outputs {
            Outputs::Labels => {
                let all = label_figures(found, wanted, &vec![0.5; found.first().map_or(0, Vec::len)])?;
                let place = [Metric::Accuracy, Metric::MicroF1, Metric::MacroF1, Metric::RocAuc, Metric::AveragePrecision];
                value(place.iter().position(|metric| *metric == self).map(|i| all[i]).filter(|x| !x.is_nan()))
            }
            _ => {
                let all = number_figures(found, wanted)?;
                let place = [Metric::MeanAbsoluteError, Metric::Pearson, Metric::Spearman, Metric::R2];
                value(place.iter().position(|metric| *metric == self).map(|i| all[i + 1]).filter(|x| !x.is_nan()))
            }
        }
    }

    /// Whether `a` is better than `b`. NaN, such as the correlation of equal numbers, is worse than every number.
    pub fn is_better(self, a: f64, b: f64) -> bool {
        let better = if matches!(self, Metric::Loss | Metric::MeanAbsoluteError) { a < b } else { a > b };
        better || b.is_nan() && !a.is_nan()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_worse_than_every_number() {
        for (metric, better, worse) in [(Metric::Loss, 0.1, 0.2), (Metric::Pearson, 0.2, -0.1)] {
            assert!(metric.is_better(better, worse) && !metric.is_better(worse, better) && !metric.is_better(worse, worse));
            assert!(metric.is_better(worse, f64::NAN) && !metric.is_better(f64::NAN, worse) && !metric.is_better(f64::NAN, f64::NAN));
        }
    }
}
