//! Figures of a regression.

use super::bootstrap::{intervals, resamples};
use super::figures::Estimate;
use super::labels::check;
use crate::Result;
use serde::Serialize;

/// Figures of predicted numbers ŷ against y. The intervals are those of a bootstrap of `resamples` draws of the texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumberMetrics {
    /// Number of texts.
    pub texts: usize,
    /// Mean of (ŷ − y)².
    pub mean_squared_error: Estimate,
    /// Mean of |ŷ − y|.
    pub mean_absolute_error: Estimate,
    /// Pearson's correlation, in [-1, 1]. `None` if all ŷ or all y are equal.
    pub pearson: Option<Estimate>,
    /// Spearman's rank correlation: Pearson's of the ranks, where equal numbers have the mean of their ranks.
    pub spearman: Option<Estimate>,
    /// Coefficient of determination, 1 − Σ (ŷ − y)² / Σ (y − ȳ)². `None` if all y are equal.
    pub r2: Option<Estimate>,
    /// Number of draws of the bootstrap.
    pub resamples: usize,
}

/// Numbers in the order of their values: which one is at each place, and where each run of equal ones ends.
struct Ranks {
    order: Vec<usize>,
    ends: Vec<usize>,
}

impl Ranks {
    fn new(x: &[f64]) -> Ranks {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
        let ends = (1..=x.len()).filter(|&i| i == x.len() || x[order[i - 1]] != x[order[i]]).collect();
        Ranks { order, ends }
    }

    /// The rank of each number, where number i is there `times[i]` times.
    fn of(&self, times: &[u32]) -> Vec<f64> {
        let (mut ranks, mut below, mut start) = (vec![0.0; self.order.len()], 0.0, 0);
        for &end in &self.ends {
            let here: f64 = self.order[start..end].iter().map(|&i| f64::from(times[i])).sum();
            self.order[start..end].iter().for_each(|&i| ranks[i] = below + (here + 1.0) / 2.0);
            (below, start) = (below + here, end);
        }
        ranks
    }
}

/// Σ n x / Σ n.
fn mean(x: &[f64], times: &[u32]) -> f64 {
    let n: u32 = times.iter().sum();
    x.iter().zip(times).map(|(x, &n)| f64::from(n) * x).sum::<f64>() / f64::from(n)
}

/// Pearson's correlation; NaN if all numbers of one side are equal.
fn correlation(x: &[f64], y: &[f64], times: &[u32]) -> f64 {
    let (mx, my) = (mean(x, times), mean(y, times));
    let products = |a: &[f64], ma: f64, b: &[f64], mb: f64| -> f64 {
        a.iter().zip(b).zip(times).map(|((a, b), &n)| f64::from(n) * (a - ma) * (b - mb)).sum()
    };
    let (xx, yy, xy) = (products(x, mx, x, mx), products(y, my, y, my), products(x, mx, y, my));
    if xx > 0.0 && yy > 0.0 { (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0) } else { f64::NAN }
}

/// Mean squared and absolute error, Pearson, Spearman and r² of any draw of the texts, of which text i is there `times[i]` times. NaN where one is not defined.
fn figures(found: &[Vec<f64>], wanted: &[Vec<f64>]) -> Result<impl Fn(&[u32]) -> Vec<f64> + Sync + Send> {
    check(found, wanted, 1)?;
    let (x, y) = (found.concat(), wanted.concat());
    let (rank_x, rank_y) = (Ranks::new(&x), Ranks::new(&y));
    let errors: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
    let [squares, sizes] = [|e: &f64| e * e, |e: &f64| e.abs()].map(|f| errors.iter().map(f).collect::<Vec<f64>>());
    Ok(move |times: &[u32]| {
        let (middle, mse) = (mean(&y, times), mean(&squares, times));
        let spread = mean(&y.iter().map(|y| (y - middle).powi(2)).collect::<Vec<_>>(), times);
        let r2 = if spread > 0.0 { 1.0 - mse / spread } else { f64::NAN };
        vec![mse, mean(&sizes, times), correlation(&x, &y, times), correlation(&rank_x.of(times), &rank_y.of(times), times), r2]
    })
}

/// These figures of the texts themselves.
pub(super) fn number_figures(found: &[Vec<f64>], wanted: &[Vec<f64>]) -> Result<Vec<f64>> {
    Ok(figures(found, wanted)?(&vec![1; found.len()]))
}

impl NumberMetrics {
    /// The figures of one number for each text, `found` `[N][1]`, for `wanted` `[N][1]`.
    ///
    /// # Errors
    /// If there are no texts, a row has another length, or a number is not finite.
    pub fn new(found: &[Vec<f64>], wanted: &[Vec<f64>]) -> Result<NumberMetrics> {
        let (figures, n) = (figures(found, wanted)?, found.len());
        let resamples = resamples(n, 1);
        let (values, intervals) = (figures(&vec![1; n]), intervals(n, resamples, &figures));
        let estimate = |k: usize| Estimate { value: values[k], interval: intervals[k] };
        let defined = |k: usize| (!values[k].is_nan()).then(|| estimate(k));
        Ok(NumberMetrics {
            texts: n,
            mean_squared_error: estimate(0),
            mean_absolute_error: estimate(1),
            pearson: defined(2),
            spearman: defined(3),
            r2: defined(4),
            resamples,
        })
    }
}
