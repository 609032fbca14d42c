//! What the logits of each kind of head mean, and the figures of heads for regression and for several labels at once.

use crate::metrics::{softmax, wilson};
use crate::nn::Outputs;
use serde::{Deserialize, Serialize};

/// The scores of a text with the logits `[C]`: probabilities of classes of which one is right (softmax), probabilities of labels of which any
/// number is right (a sigmoid each), or the logits themselves (regression). The logits of classes are divided by `temperature` first: 1, or what
/// [`temperature`](crate::metrics::temperature()) finds.
pub fn scores(outputs: Outputs, logits: &[f64], temperature: f64) -> Vec<f64> {
    match outputs {
        Outputs::Classes => softmax(&logits.iter().map(|z| z / temperature).collect::<Vec<_>>()),
        Outputs::Labels => logits.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
        Outputs::Numbers => logits.to_vec(),
    }
}

/// Errors of a regression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberErrors {
    /// Number of texts.
    pub examples: usize,
    /// Mean of (ŷ − y)².
    pub mean_squared_error: f64,
    /// Mean of |ŷ − y|.
    pub mean_absolute_error: f64,
}

/// The errors of `scores` `[N][C]` of [`Outputs::Numbers`], for `wanted` `[N][C]`.
pub fn number_errors(scores: &[Vec<f64>], wanted: &[Vec<f64>]) -> NumberErrors {
    let errors: Vec<f64> = scores.iter().flatten().zip(wanted.iter().flatten()).map(|(found, wanted)| found - wanted).collect();
    let mean = |of: fn(f64) -> f64| errors.iter().map(|e| of(*e)).sum::<f64>() / errors.len().max(1) as f64;
    NumberErrors { examples: scores.len(), mean_squared_error: mean(|e| e * e), mean_absolute_error: mean(f64::abs) }
}

/// Figures of a multi-label head. A label is answered if its probability is at least its threshold: see [`thresholds`](crate::metrics::thresholds()).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelsFound {
    /// Number of texts.
    pub examples: usize,
    /// Share of the texts whose labels are all right, as scikit-learn's `accuracy_score`.
    pub accuracy: f64,
    /// 95 % interval of `accuracy`.
    pub interval: (f64, f64),
    /// Share of right decisions over all texts and labels.
    pub label_accuracy: f64,
    /// Mean binary cross-entropy over texts and labels, in nats.
    pub loss: f64,
}

/// The figures of `scores` `[N][C]` of [`Outputs::Labels`] at `thresholds` `[C]`, for `wanted` `[N][C]` of zeros and ones.
pub fn labels_found(scores: &[Vec<f64>], wanted: &[Vec<f64>], thresholds: &[f64]) -> LabelsFound {
    let (mut all, mut each, mut loss, mut count) = (0, 0, 0.0, 0);
    for (found, wanted) in scores.iter().zip(wanted) {
        let hits = found.iter().zip(wanted).zip(thresholds).filter(|((p, y), t)| (**p >= **t) == (**y >= 0.5)).count();
        // A probability may underflow to 0. The loss stays finite.
        loss -= found.iter().zip(wanted).map(|(p, y)| if *y >= 0.5 { *p } else { 1.0 - p }.max(f64::MIN_POSITIVE).ln()).sum::<f64>();
        each += hits;
        count += found.len();
        all += usize::from(hits == found.len());
    }
    let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
    let (examples, loss) = (scores.len(), loss / count.max(1) as f64);
    LabelsFound { examples, accuracy: share(all, examples), interval: wilson(all, examples), label_accuracy: share(each, count), loss }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_head_has_its_scores() {
        let z = [0.0, 3.0_f64.ln()];
        assert_eq!(scores(Outputs::Numbers, &z, 1.0), z);
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-15);
        assert!(near(&scores(Outputs::Classes, &z, 1.0), &[0.25, 0.75]));
        assert!(near(&scores(Outputs::Classes, &[0.0, 9.0_f64.ln()], 2.0), &[0.25, 0.75]));
        assert!(near(&scores(Outputs::Labels, &z, 1.0), &[0.5, 0.75]));
        assert_eq!(scores(Outputs::Labels, &[-800.0, 800.0], 1.0), [0.0, 1.0]);
    }

    #[test]
    fn errors_are_those_of_the_formulas() {
        let found = number_errors(&[vec![1.0], vec![-2.0]], &[vec![2.0], vec![1.0]]);
        assert_eq!((found.examples, found.mean_squared_error, found.mean_absolute_error), (2, 5.0, 2.0));
        let rows = [vec![0.9, 0.4], vec![0.5, 0.6], vec![0.1, 0.2]];
        let wanted = [vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 0.0]];
        let found = labels_found(&rows, &wanted, &[0.5; 2]);
        assert_eq!((found.accuracy, found.label_accuracy), (2.0 / 3.0, 5.0 / 6.0));
        let loss = -[0.9_f64, 0.6, 0.5, 0.4, 0.9, 0.8].iter().map(|p| p.ln()).sum::<f64>() / 6.0;
        assert!((found.loss - loss).abs() < 1e-12, "{}", found.loss);
        assert_eq!(labels_found(&rows, &wanted, &[0.5, 0.7]).accuracy, 1.0);
    }
}
