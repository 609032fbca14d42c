//! Figures of several labels, of which any number is right.

use super::bootstrap::{intervals, resamples};
use super::confusion::{mean, share};
use super::figures::{ClassMetrics, Estimate};
use super::ranking::Ranking;
use super::wilson;
use crate::{Error, Result};
use serde::Serialize;

/// Figures of several labels. The intervals of the accuracies, precision and recall are Wilson's; the others are of a bootstrap of `resamples` draws of the texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelMetrics {
    /// Number of texts.
    pub texts: usize,
    /// Share of the texts whose labels are all right.
    pub accuracy: Estimate,
    /// F1 of all decisions together.
    pub micro_f1: Estimate,
    /// Mean F1 of the labels.
    pub macro_f1: Estimate,
    /// Mean area under the ROC curve of the labels. `None` if it is not defined for a label.
    pub roc_auc: Option<Estimate>,
    /// Mean average precision of the labels.
    pub average_precision: Estimate,
    /// The probability from which each label is answered: `[C]`.
    pub thresholds: Vec<f64>,
    /// Each label: `[C]`.
    pub classes: Vec<ClassMetrics>,
    /// Number of draws of the bootstrap.
    pub resamples: usize,
}

/// Texts, prepared for figures of any draw of them.
struct Sample {
    /// Whether each label of each text is right, and whether it is answered: `[N][C]`.
    decisions: Vec<Vec<(bool, bool)>>,
    rankings: Vec<Ranking>,
}

/// Figures of all labels, in the order of [`Sample::figures`]; three more follow for each label.
const OVERALL: usize = 5;

/// Of a label: right and answered, answered, right.
type Counts = [f64; 3];

fn f1([hits, answered, right]: Counts) -> f64 {
    share(2.0 * hits, answered + right)
}

impl Sample {
    fn new(probabilities: &[Vec<f64>], wanted: &[Vec<f64>], thresholds: &[f64]) -> Result<Sample> {
        let labels = thresholds.len();
        check(probabilities, wanted, labels)?;
        let ranking = |c: usize| {
            let scores: Vec<f64> = probabilities.iter().map(|row| row[c]).collect();
            Ranking::new(&scores, wanted.iter().map(|row| row[c] >= 0.5).collect())
        };
        let decide = |(found, wanted): (&Vec<f64>, &Vec<f64>)| (0..labels).map(|c| (wanted[c] >= 0.5, found[c] >= thresholds[c])).collect();
        Ok(Sample { decisions: probabilities.iter().zip(wanted).map(decide).collect(), rankings: (0..labels).map(ranking).collect() })
    }

    fn counts(&self, times: &[u32]) -> Vec<Counts> {
        let mut all = vec![[0.0; 3]; self.rankings.len()];
        for (row, &n) in self.decisions.iter().zip(times) {
            for (counts, &(right, answered)) in all.iter_mut().zip(row) {
                let add = |yes: bool| if yes { f64::from(n) } else { 0.0 };
                [right && answered, answered, right].iter().zip(counts).for_each(|(yes, count)| *count += add(*yes));
            }
        }
        all
    }

    /// Accuracy, micro F1, macro F1, area and average precision; then F1, area and average precision of each label. NaN where one is not defined.
    fn figures(&self, times: &[u32]) -> Vec<f64> {
        let counts = self.counts(times);
        let ranked: Vec<(f64, f64)> = self.rankings.iter().map(|ranking| ranking.figures(times)).collect();
        let whole = self.decisions.iter().zip(times).filter(|(row, _)| row.iter().all(|(right, answered)| right == answered));
        let right: u32 = whole.map(|(_, n)| n).sum();
        let sum = counts.iter().fold([0.0; 3], |sum, counts| [0, 1, 2].map(|i| sum[i] + counts[i]));
        let mut all = vec![
            share(f64::from(right), times.iter().sum::<u32>().into()),
            f1(sum),
            mean(counts.iter().map(|counts| f1(*counts))),
            mean(ranked.iter().map(|r| r.0)),
            mean(ranked.iter().map(|r| r.1)),
        ];
        all.extend(counts.iter().zip(ranked).flat_map(|(counts, (area, precision))| [f1(*counts), area, precision]));
        all
    }
}

impl LabelMetrics {
    /// The figures of probabilities `[N][C]` at `thresholds` `[C]`, for `wanted` `[N][C]` of zeros and ones.
    ///
    /// # Errors
    /// If there are no texts, a row has another length, or a probability is not finite.
    pub fn new(probabilities: &[Vec<f64>], wanted: &[Vec<f64>], thresholds: &[f64]) -> Result<LabelMetrics> {
        let (texts, labels) = (probabilities.len(), thresholds.len());
        let sample = Sample::new(probabilities, wanted, thresholds)?;
        let once = vec![1; texts];
        let (values, counts, resamples) = (sample.figures(&once), sample.counts(&once), resamples(texts, labels));
        let intervals = intervals(texts, resamples, |times| sample.figures(times));
        let estimate = |k: usize| Estimate { value: values[k], interval: intervals[k] };
        let defined = |k: usize| (!values[k].is_nan()).then(|| estimate(k));
        let proportion = |part: f64, whole: f64| Estimate { value: share(part, whole), interval: wilson(part as usize, whole as usize) };
        let class = |(c, [hits, answered, right]): (usize, &Counts)| ClassMetrics {
            support: *right as usize,
            precision: proportion(*hits, *answered),
            recall: proportion(*hits, *right),
            f1: estimate(OVERALL + 3 * c),
            roc_auc: defined(OVERALL + 3 * c + 1),
            average_precision: estimate(OVERALL + 3 * c + 2),
        };
        Ok(LabelMetrics {
            texts,
            accuracy: proportion((values[0] * texts as f64).round(), texts as f64),
            micro_f1: estimate(1),
            macro_f1: estimate(2),
            roc_auc: defined(3),
            average_precision: estimate(4),
            thresholds: thresholds.to_vec(),
            classes: counts.iter().enumerate().map(class).collect(),
            resamples,
        })
    }
}

/// Accuracy, micro F1, macro F1, area and average precision, without intervals; NaN where one is not defined.
pub(super) fn label_figures(probabilities: &[Vec<f64>], wanted: &[Vec<f64>], thresholds: &[f64]) -> Result<Vec<f64>> {
    Ok(Sample::new(probabilities, wanted, thresholds)?.figures(&vec![1; probabilities.len()]))
}

/// Checks rows of `outputs` finite numbers, as many as there are wanted ones.
///
/// # Errors
/// If there are none, or one has another length.
pub(super) fn check(found: &[Vec<f64>], wanted: &[Vec<f64>], outputs: usize) -> Result<()> {
    let bad = |rows: &[Vec<f64>]| rows.iter().any(|row| row.len() != outputs || row.iter().any(|x| !x.is_finite()));
    if found.is_empty() || found.len() != wanted.len() || outputs == 0 || bad(found) || bad(wanted) {
        let problem = format!("metrics: expected rows of {outputs} finite numbers, got {} and {} wanted", found.len(), wanted.len());
        return Err(Error::invalid(problem));
    }
    Ok(())
}

/// The threshold of each label that gives the highest F1 on held-out texts: probabilities `[N][C]`, and `wanted` `[N][C]` of zeros and ones. It lies in the middle between
/// two probabilities. A label that no text has gets 1/2. Of equally good thresholds, the highest is taken. Lipton et al. 2014, <https://arxiv.org/abs/1402.1892>.
///
/// # Errors
/// As [`LabelMetrics::new`].
pub fn thresholds(probabilities: &[Vec<f64>], wanted: &[Vec<f64>]) -> Result<Vec<f64>> {
    let labels = probabilities.first().map_or(0, Vec::len);
    check(probabilities, wanted, labels)?;
    let of = |c: usize| {
        let mut rows: Vec<(f64, bool)> = probabilities.iter().zip(wanted).map(|(p, y)| (p[c], y[c] >= 0.5)).collect();
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        let right = rows.iter().filter(|(_, right)| *right).count() as f64;
        let (mut best, mut threshold, mut hits) = (0.0, 0.5, 0.0);
        for (i, &(p, is_right)) in rows.iter().enumerate() {
            hits += f64::from(u8::from(is_right));
            let next = rows.get(i + 1).map_or(0.0, |row| row.0);
            let value = f1([hits, (i + 1) as f64, right]);
            if value > best && (next < p || i + 1 == rows.len()) {
                // The middle may round to p or to next; then p is the threshold.
                let middle = next + (p - next) / 2.0;
                (best, threshold) = (value, if middle > next { middle } else { p });
            }
        }
        threshold
    };
    Ok((0..labels).map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_lies_between_two_probabilities() {
        let of = |rows: &[(f64, f64)]| {
            let (p, y): (Vec<_>, Vec<_>) = rows.iter().map(|&(p, y)| (vec![p], vec![y])).unzip();
            thresholds(&p, &y).unwrap()[0]
        };
        assert_eq!(of(&[(0.875, 1.0), (0.25, 1.0), (0.125, 0.0), (0.0, 0.0)]), 0.1875);
        assert_eq!(of(&[(0.875, 0.0), (0.25, 0.0)]), 0.5, "no text has the label");
        assert_eq!(of(&[(0.875, 1.0), (0.25, 1.0)]), 0.125, "every text has the label");
        assert_eq!(of(&[(0.5, 1.0), (0.5, 0.0), (0.25, 0.0)]), 0.375, "equal probabilities stay together");
        assert_eq!(of(&[(0.5, 1.0), (0.0, 1.0)]), 0.0, "a text with the label has the probability 0");
        assert!(thresholds(&[vec![f64::NAN]], &[vec![1.0]]).is_err() && thresholds(&[], &[]).is_err());
    }
}
