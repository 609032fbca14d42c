//! All figures of a classifier on labelled texts.

use super::bootstrap::{intervals, resamples};
use super::calibration::{BINS, Bins, ReliabilityBin, bin, calibration_error, reliability};
use super::confusion::{Confusion, mean, share};
use super::ranking::Ranking;
use super::{argmax, check, wilson};
use crate::Result;
use serde::{Deserialize, Serialize};

/// A figure and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Lower and upper end.
    pub interval: (f64, f64),
}

/// Figures of one class against the rest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassMetrics {
    /// Texts with this label.
    pub support: usize,
    /// Share of the answers with this class that are right; 0 without such an answer.
    pub precision: Estimate,
    /// Share of the texts with this label that are answered with it; 0 without such a text.
    pub recall: Estimate,
    /// 2 · precision · recall / (precision + recall), or 0.
    pub f1: Estimate,
    /// Area under the ROC curve of the probability of this class. `None` if all texts are of this class, or none is.
    pub roc_auc: Option<Estimate>,
    /// Mean precision over the steps of recall, by the probability of this class; 0 without a text of this class.
    pub average_precision: Estimate,
}

/// Figures of a classifier on labelled texts. The intervals of `accuracy`, precision and recall are Wilson's; the others are of a bootstrap of
/// `resamples` draws.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Number of texts.
    pub texts: usize,
    /// Share of right answers.
    pub accuracy: Estimate,
    /// Mean recall of the classes that occur among the labels.
    pub balanced_accuracy: Estimate,
    /// Mean F1 of the classes that occur among labels or answers.
    pub macro_f1: Estimate,
    /// Mean F1, weighted by the texts of each class.
    pub weighted_f1: Estimate,
    /// Matthews' correlation, in [-1, 1].
    pub matthews: Estimate,
    /// Area under the ROC curve: of two classes, that of the second one; of more, the mean over the classes. `None` if it is not defined for a class.
    pub roc_auc: Option<Estimate>,
    /// Average precision, of the same classes as `roc_auc`.
    pub average_precision: Estimate,
    /// Expected calibration error over [`BINS`] bins.
    pub calibration_error: Estimate,
    /// Each class, in the model's order: `[C]`.
    pub classes: Vec<ClassMetrics>,
    /// The bins of the probability of the answer that have texts.
    pub reliability: Vec<ReliabilityBin>,
    /// Number of draws of the bootstrap.
    pub resamples: usize,
}

/// Texts, prepared for figures of any draw of them.
pub(super) struct Sample<'a> {
    labels: &'a [u32],
    answers: Vec<usize>,
    /// Probability of the answer, and its bin.
    confidence: Vec<(f64, usize)>,
    /// One ranking for each class.
    rankings: Vec<Ranking>,
}

/// Figures of all classes, in the order of [`Sample::figures`]; three more follow for each class.
pub(super) const OVERALL: usize = 8;

impl<'a> Sample<'a> {
    /// Of class probabilities `[N][C]` and labels `[N]`.
    ///
    /// # Errors
    /// If there are no texts, a probability is not finite, or a label is not a class.
    pub fn new(probabilities: &[Vec<f64>], labels: &'a [u32]) -> Result<Sample<'a>> {
        let classes = check(probabilities, labels)?;
        let answers: Vec<usize> = probabilities.iter().map(|p| argmax(p)).collect();
        let confidence = probabilities.iter().zip(&answers).map(|(p, &answer)| (p[answer], bin(p[answer]))).collect();
        let ranking = |c: usize| {
            let scores: Vec<f64> = probabilities.iter().map(|p| p[c]).collect();
            Ranking::new(&scores, labels.iter().map(|&label| label as usize == c).collect())
        };
        Ok(Sample { labels, answers, confidence, rankings: (0..classes).map(ranking).collect() })
    }

    /// Number of times that each text counts in the sample itself.
    pub fn once(&self) -> Vec<u32> {
        vec![1; self.labels.len()]
    }

    fn confusion(&self, times: &[u32]) -> Confusion {
        let pairs = self.labels.iter().zip(&self.answers).zip(times);
        Confusion::new(self.rankings.len(), pairs.map(|((&label, &answer), &n)| (label as usize, answer, f64::from(n))))
    }

    fn bins(&self, times: &[u32]) -> Bins {
        let mut bins = [(0.0, 0.0, 0.0); BINS];
        for (i, &(confidence, bin)) in self.confidence.iter().enumerate() {
            let n = f64::from(times[i]);
            let right = if self.answers[i] == self.labels[i] as usize { n } else { 0.0 };
            bins[bin] = (bins[bin].0 + n, bins[bin].1 + n * confidence, bins[bin].2 + right);
        }
        bins
    }

    /// Accuracy, balanced accuracy, macro F1, weighted F1, Matthews, area, average precision and calibration error; then F1, area and average
    /// precision of each class. Text i counts `times[i]` times. NaN where a figure is not defined.
    pub fn figures(&self, times: &[u32]) -> Vec<f64> {
        let confusion = self.confusion(times);
        let ranked: Vec<(f64, f64)> = self.rankings.iter().map(|ranking| ranking.figures(times)).collect();
        let (area, precision) = match ranked[..] {
            [_, second] => second,
            _ => (mean(ranked.iter().map(|r| r.0)), mean(ranked.iter().map(|r| r.1))),
        };
        let right: f64 = (0..ranked.len()).map(|c| confusion.right(c)).sum();
        let mut all = vec![
            share(right, confusion.support.iter().sum()),
            confusion.balanced_accuracy(),
            confusion.macro_f1(),
            confusion.weighted_f1(),
            confusion.matthews(),
            area,
            precision,
            calibration_error(&self.bins(times)),
        ];
        all.extend(ranked.iter().enumerate().flat_map(|(c, &(area, precision))| [confusion.f1(c), area, precision]));
        all
    }
}

impl Metrics {
    /// The figures of class probabilities `[N][C]` for labels `[N]`. The answer is the most probable class.
    ///
    /// # Errors
    /// If there are no texts, a probability is not finite, or a label is not a class.
    pub fn new(probabilities: &[Vec<f64>], labels: &[u32]) -> Result<Metrics> {
        let sample = Sample::new(probabilities, labels)?;
        let (texts, classes, once) = (labels.len(), sample.rankings.len(), sample.once());
        let (values, resamples) = (sample.figures(&once), resamples(texts, classes));
        let intervals = intervals(texts, resamples, |times| sample.figures(times));
        let estimate = |k: usize| Estimate { value: values[k], interval: intervals[k] };
        let defined = |k: usize| (!values[k].is_nan()).then(|| estimate(k));
        let (confusion, bins) = (sample.confusion(&once), sample.bins(&once));
        let proportion = |part: f64, whole: f64| Estimate { value: share(part, whole), interval: wilson(part as usize, whole as usize) };
        let class = |c: usize| ClassMetrics {
            support: confusion.support[c] as usize,
            precision: proportion(confusion.right(c), confusion.answered[c]),
            recall: proportion(confusion.right(c), confusion.support[c]),
            f1: estimate(OVERALL + 3 * c),
            roc_auc: defined(OVERALL + 3 * c + 1),
            average_precision: estimate(OVERALL + 3 * c + 2),
        };
        Ok(Metrics {
            texts,
            accuracy: proportion((0..classes).map(|c| confusion.right(c)).sum(), texts as f64),
            balanced_accuracy: estimate(1),
            macro_f1: estimate(2),
            weighted_f1: estimate(3),
            matthews: estimate(4),
            roc_auc: defined(5),
            average_precision: estimate(6),
            calibration_error: estimate(7),
            classes: (0..classes).map(class).collect(),
            reliability: reliability(&bins),
            resamples,
        })
    }
}
