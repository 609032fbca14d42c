//! The table, and whether two rows differ.

use super::{Row, RowResult};
use crate::lora::thousands;
use crate::train::wilson;

/// The table of the study in Markdown: rows that have results, over their seeds.
pub fn markdown(rows: &[Row], results: &[RowResult]) -> String {
    let mut out = String::from("| configuration | trainable | % | test accuracy (95 % interval) | the study's | minutes | peak memory |\n");
    out.push_str("|---|---|---|---|---|---|---|\n");
    for row in rows {
        let of: Vec<&RowResult> = results.iter().filter(|r| r.row == row.key).collect();
        let Some(first) = of.first() else { continue };
        let percent = |x: f64| format!("{:.2}", 100.0 * x);
        let accuracy = match of.len() {
            1 => format!("{} ({}–{})", percent(first.test.accuracy), percent(first.test.interval.0), percent(first.test.interval.1)),
            n => {
                // All answers of all seeds as one sample is too sure of itself, as the reviews are the same: the seeds' spread stands beside it.
                let accuracies: Vec<f64> = of.iter().map(|r| r.test.accuracy).collect();
                let (low, high) = accuracies.iter().fold((1.0, 0.0), |(low, high): (f64, f64), &a| (low.min(a), high.max(a)));
                let mean = accuracies.iter().sum::<f64>() / n as f64;
                let (from, to) = wilson((mean * first.test.examples as f64).round() as usize, first.test.examples);
                format!("{} ({}–{}), {n} seeds {}–{}", percent(mean), percent(from), percent(to), percent(low), percent(high))
            }
        };
        let minutes = of.iter().map(|r| r.seconds).sum::<f64>() / 60.0 / of.len() as f64;
        let memory = first.peak_memory.map_or("?".to_string(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
        out.push_str(&format!(
            "| {} | {} | {:.2} | {accuracy} | {:.2} | {minutes:.1} | {memory} |\n",
            row.name,
            thousands(first.trainable),
            100.0 * first.trainable as f64 / first.base as f64,
            row.stated,
        ));
    }
    out
}

/// Two-sided p of the null hypothesis that two rows are right equally often, from the reviews that one alone answers rightly: exact binomial. McNemar
/// 1947, <https://doi.org/10.1007/BF02295996>. Also how many each alone answers rightly.
pub fn mcnemar(a: &[u32], b: &[u32], labels: &[u32]) -> (usize, usize, f64) {
    let (mut only_a, mut only_b) = (0usize, 0usize);
    for ((a, b), label) in a.iter().zip(b).zip(labels) {
        only_a += usize::from(a == label && b != label);
        only_b += usize::from(b == label && a != label);
    }
    let n = only_a + only_b;
    // Σ C(n, k) / 2ⁿ for k up to the smaller count, in logarithms.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=only_a.min(only_b) {
        tail += log_term.exp();
        log_term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (only_a, only_b, (2.0 * tail).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
