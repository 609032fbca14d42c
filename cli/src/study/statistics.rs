//! Tests and intervals for the difference of two rows.

use super::{Row, RowResult};
use lowrank::metrics::{Z95, wilson};
use serde::Serialize;

/// McNemar's exact test: the number of reviews that only `a` classifies rightly, the number that only `b` does, and the two-sided p of the null
/// hypothesis that both numbers have the same expectation (binomial). McNemar 1947, <https://doi.org/10.1007/BF02295996>.
pub fn mcnemar(a: &[u32], b: &[u32], labels: &[u32]) -> (usize, usize, f64) {
    let (mut only_a, mut only_b) = (0usize, 0usize);
    for ((a, b), label) in a.iter().zip(b).zip(labels) {
        only_a += usize::from(a == label && b != label);
        only_b += usize::from(b == label && a != label);
    }
    let n = only_a + only_b;
    // Σ C(n, k) / 2ⁿ for k up to the smaller count; each term as its logarithm.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=only_a.min(only_b) {
        tail += log_term.exp();
        log_term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (only_a, only_b, (2.0 * tail).min(1.0))
}

/// McNemar's test of two rows with one seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct McNemar {
    /// Key of the first row.
    pub a: String,
    /// Key of the second row.
    pub b: String,
    /// Seed of both.
    pub seed: u64,
    /// Number of reviews on which only `a` is right.
    pub only_a: usize,
    /// Number of reviews on which only `b` is right.
    pub only_b: usize,
    /// Two-sided p.
    pub p: f64,
}

/// McNemar's test of each pair of neighbours in the table, for each seed.
pub fn neighbours(table: &[Row], results: &[RowResult], labels: &[u32]) -> Vec<McNemar> {
    let mut tests = Vec::new();
    for pair in table.windows(2) {
        for a in results.iter().filter(|r| r.row == pair[0].key) {
            let Some(b) = results.iter().find(|r| r.row == pair[1].key && r.seed == a.seed) else { continue };
            let (only_a, only_b, p) = mcnemar(&a.answers, &b.answers, labels);
            tests.push(McNemar { a: a.row.clone(), b: b.row.clone(), seed: a.seed, only_a, only_b, p });
        }
    }
    tests
}

/// Mean accuracy of one row over its seeds, in per cent, and the 95 % interval for the sample of reviews. Pooling the answers of all seeds would
/// make the interval too narrow, because the seeds share the same reviews.
pub fn accuracy(of: &[&RowResult]) -> (f64, (f64, f64)) {
    let examples = of.first().map_or(0, |r| r.test.examples);
    let mean = of.iter().map(|r| r.test.accuracy).sum::<f64>() / of.len().max(1) as f64;
    let (low, high) = wilson((mean * examples as f64).round() as usize, examples);
    (100.0 * mean, (100.0 * low, 100.0 * high))
}

/// Difference of two accuracies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// First accuracy minus second accuracy, in percentage points.
    pub points: f64,
    /// Its 95 % interval.
    pub interval: (f64, f64),
}

/// Difference of the accuracies of `a` and `b` on the same reviews; each is the results of one row with some seeds. The interval is the normal
/// interval of paired differences. Each review counts once, with the share of seeds that are right. `None` if there are no results.
pub fn difference(a: &[&RowResult], b: &[&RowResult], labels: &[u32]) -> Option<Difference> {
    if a.is_empty() || b.is_empty() || labels.is_empty() {
        return None;
    }
    let share = |of: &[&RowResult], i: usize| of.iter().filter(|r| r.answers[i] == labels[i]).count() as f64 / of.len() as f64;
    let differences: Vec<f64> = (0..labels.len()).map(|i| share(a, i) - share(b, i)).collect();
    let n = labels.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let half = Z95 * (variance / n).sqrt();
    Some(Difference { points: 100.0 * mean, interval: (100.0 * (mean - half), 100.0 * (mean + half)) })
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:+.2} points ({:+.2} to {:+.2})", self.points, self.interval.0, self.interval.1)
    }
}

/// `p = 0.243`, or `p < 0.001`.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "p < 0.001".to_string() } else { format!("p = {p:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_p_is_not_printed_as_zero() {
        assert_eq!([0.2431, 0.001, 0.0004].map(p_value), ["p = 0.243", "p = 0.001", "p < 0.001"]);
    }

    #[test]
    fn mcnemar_counts_what_one_alone_has_right() {
        let labels = [1; 10];
        let a = [1, 1, 1, 1, 1, 1, 0, 0, 1, 1];
        let b = [0, 0, 0, 0, 0, 0, 1, 0, 1, 1];
        // Six against one: 2 (C(7,0) + C(7,1)) / 2⁷ = 16/128.
        let (only_a, only_b, p) = mcnemar(&a, &b, &labels);
        assert_eq!((only_a, only_b), (6, 1));
        assert!((p - 0.125).abs() < 1e-12);
        assert_eq!(mcnemar(&a, &a, &labels), (0, 0, 1.0));
    }

    #[test]
    fn the_interval_of_a_difference_is_that_of_pairs() {
        let result = |answers: &[u32]| RowResult { answers: answers.to_vec(), ..RowResult::default() };
        let labels = [1; 8];
        let (a, b) = (result(&[1, 1, 1, 1, 1, 1, 0, 0]), result(&[1, 1, 1, 1, 0, 0, 1, 0]));
        let found = difference(&[&a], &[&b], &labels).unwrap();
        // Differences 0 0 0 0 1 1 −1 0: mean 1/8, variance (3 − 8/64) / 7, by hand.
        let half = 100.0 * 1.96 * ((3.0 - 0.125) / 7.0 / 8.0_f64).sqrt();
        assert!((found.points - 12.5).abs() < 1e-12 && (found.interval.1 - 12.5 - half).abs() < 0.01, "{found}");
        // Two seeds that differ from each other: half a review each.
        let two = difference(&[&a, &b], &[&b], &labels).unwrap();
        assert!((two.points - 6.25).abs() < 1e-12);
        assert_eq!(difference(&[], &[&b], &labels), None);
    }
}
