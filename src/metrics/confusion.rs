//! Figures of a confusion matrix: `[label][answer]`, the number of texts.

/// A confusion matrix `[C][C]` with its sums.
pub(super) struct Confusion {
    cells: Vec<Vec<f64>>,
    /// Texts of each class.
    pub support: Vec<f64>,
    /// Answers of each class.
    pub answered: Vec<f64>,
}

impl Confusion {
    /// Of pairs of label and answer, each `times` times. Both are below `classes`.
    pub fn new(classes: usize, pairs: impl Iterator<Item = (usize, usize, f64)>) -> Confusion {
        let (mut cells, mut support, mut answered) = (vec![vec![0.0; classes]; classes], vec![0.0; classes], vec![0.0; classes]);
        for (label, answer, times) in pairs {
            cells[label][answer] += times;
            support[label] += times;
            answered[answer] += times;
        }
        Confusion { cells, support, answered }
    }

    /// Texts of class `c` that are answered with it.
    pub fn right(&self, c: usize) -> f64 {
        self.cells[c][c]
    }

    fn classes(&self) -> std::ops::Range<usize> {
        0..self.support.len()
    }

    /// F1 of class c: 2 · right / (support + answered), the harmonic mean of precision and recall. 0 for a class that does not occur.
    pub fn f1(&self, c: usize) -> f64 {
        share(2.0 * self.right(c), self.support[c] + self.answered[c])
    }

    /// Mean F1 of the classes that occur among labels or answers, as scikit-learn's `f1_score(average="macro")`.
    pub fn macro_f1(&self) -> f64 {
        mean(self.classes().filter(|&c| self.support[c] + self.answered[c] > 0.0).map(|c| self.f1(c)))
    }

    /// Mean F1, weighted by the texts of each class.
    pub fn weighted_f1(&self) -> f64 {
        share(self.classes().map(|c| self.support[c] * self.f1(c)).sum(), self.support.iter().sum())
    }

    /// Mean recall of the classes that occur among the labels.
    pub fn balanced_accuracy(&self) -> f64 {
        mean(self.classes().filter(|&c| self.support[c] > 0.0).map(|c| self.right(c) / self.support[c]))
    }

    /// Matthews' correlation of labels and answers, in [-1, 1]: (n · right − Σ sₖ aₖ) / √((n² − Σ aₖ²) (n² − Σ sₖ²)), for support s and answers a. 0 if
    /// all labels or all answers are of one class. Gorodkin 2004, <https://doi.org/10.1016/j.compbiolchem.2004.09.006>.
    pub fn matthews(&self) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (n, right): (f64, f64) = (self.support.iter().sum(), self.classes().map(|c| self.right(c)).sum());
        let covariance = n * right - dot(&self.support, &self.answered);
        let product = (n * n - dot(&self.answered, &self.answered)) * (n * n - dot(&self.support, &self.support));
        share(covariance, product.sqrt())
    }
}

/// part / whole, or 0 of nothing: scikit-learn's `zero_division=0`.
pub(super) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The mean; NaN of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}
