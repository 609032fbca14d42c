//! Intervals of figures without a formula: the bootstrap. The texts are drawn anew, as many as there are, with replacement; the figure is computed of
//! each draw; the interval has the middle 95 % of the results. Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.

use crate::tensor::philox::Stream;
use crate::tensor::rows;

/// Number of draws.
const RESAMPLES: usize = 1000;
/// Number of draws if each looks at more than [`LARGE`] numbers.
const RESAMPLES_OF_LARGE: usize = 200;
/// Most numbers of a draw for [`RESAMPLES`] draws: texts times classes.
const LARGE: usize = 1_000_000;

/// The number of draws for `texts` of `classes` classes.
pub(super) fn resamples(texts: usize, classes: usize) -> usize {
    if texts.saturating_mul(classes) > LARGE { RESAMPLES_OF_LARGE } else { RESAMPLES }
}

/// The 95 % intervals of the figures that `figures` computes of a draw, in which text i counts `times[i]` times. If a figure is not defined in a
/// draw (NaN), its interval leaves this draw out. The random numbers are fixed: equal texts give equal intervals, whatever the number of threads.
pub(super) fn intervals(texts: usize, resamples: usize, figures: impl Fn(&[u32]) -> Vec<f64> + Sync + Send) -> Vec<(f64, f64)> {
    let draw = |i: usize| {
        let mut random = Stream::new(i as u64, "bootstrap");
        let mut times = vec![0; texts];
        (0..texts).for_each(|_| times[random.below(texts)] += 1);
        figures(&times)
    };
    let drawn: Vec<Vec<f64>> = rows::map((0..resamples).collect(), draw);
    let of = |k: usize| {
        let mut values: Vec<f64> = drawn.iter().map(|figures| figures[k]).filter(|value| !value.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        (quantile(&values, 0.025), quantile(&values, 0.975))
    };
    (0..drawn.first().map_or(0, Vec::len)).map(of).collect()
}

/// The quantile `q` of sorted values, interpolated: numpy's default. NaN of nothing.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let below = sorted[at as usize];
    below + (sorted[(at as usize + 1).min(last)] - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_that_of_its_distribution() {
        // 400 texts, a quarter of which count: a standard deviation of √(0.25 · 0.75 / 400).
        let mean = |times: &[u32]| vec![f64::from(times.iter().step_by(4).sum::<u32>()) / 400.0, f64::NAN];
        let found = intervals(400, 1000, mean);
        let half = 1.96 * (0.25 * 0.75 / 400.0_f64).sqrt();
        assert!((found[0].0 - 0.25 + half).abs() < 0.006 && (found[0].1 - 0.25 - half).abs() < 0.006, "{found:?}");
        assert!(found[1].0.is_nan());
        assert_eq!(found[0], intervals(400, 1000, mean)[0]);
        assert_eq!([0.0, 0.25, 1.0].map(|q| quantile(&[1.0, 2.0, 4.0], q)), [1.0, 1.5, 4.0]);
    }
}
