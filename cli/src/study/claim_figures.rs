//! The plots that the report shows with the claims.

use super::Latency;
use super::evidence::Evidence;
use super::figure::{Bar, Figure, Plot, Point, Series};
use super::rows::{DIMENSIONS, PARTS};
use super::statistics::accuracy;

/// Figures for a report that does not judge the claims.
pub fn figures(evidence: &Evidence) -> Vec<Figure> {
    [spectra(evidence), latencies(evidence)].into_iter().flatten().collect()
}

/// Accuracies of rows over a logarithmic x axis.
fn accuracy_figure(title: &str, caption: &str, x: &str, series: Vec<Series>) -> Option<Figure> {
    Some(Figure::linear(title, caption, [x, "test accuracy (%)"], Plot::Lines(series)).log_x())
}

/// The accuracies of the rows at `points`, pairs of x and key, with the intervals of the review sample.
fn curve(e: &Evidence, name: &str, points: impl IntoIterator<Item = (f64, String)>) -> Series {
    let point = |(x, key): (f64, String)| {
        let of = e.of(&key);
        let (y, interval) = accuracy(&of);
        (!of.is_empty()).then_some(Point { x, y, interval: Some(interval) })
    };
    Series { name: name.to_string(), points: points.into_iter().filter_map(point).collect() }
}

pub fn rank_curve(e: &Evidence) -> Option<Figure> {
    let series = curve(e, "Q+V", [1, 2, 4, 8, 16].map(|r| (f64::from(r), format!("qv{r}"))));
    let caption = "Low-rank terms on Q and V. Bars: 95 % intervals of the sample of reviews.";
    accuracy_figure("Accuracy against rank", caption, "rank r", vec![series])
}

pub fn sample_curve(e: &Evidence) -> Option<Figure> {
    let curve = |key: &str, name: &str| {
        let parts = PARTS.iter().map(|part| (1.0 / *part as f64, format!("{key}-1of{part}")));
        curve(e, name, parts.chain([(1.0, key.to_string())]))
    };
    let caption = "The same epochs over a part of the training reviews. Bars: 95 % intervals of the sample of test reviews.";
    let series = vec![curve("qv8", "Q+V r=8"), curve("full", "full fine-tuning")];
    accuracy_figure("Accuracy against the number of reviews", caption, "share of the training reviews", series)
}

/// `None` unless every subspace was measured.
pub fn dimension_curve(e: &Evidence) -> Option<Figure> {
    let series = curve(e, "random subspace", DIMENSIONS.map(|d| (d as f64, format!("intrinsic{d}"))));
    let measured = series.points.len() == DIMENSIONS.len();
    let title = "Accuracy against the dimension of a random subspace";
    let caption = "The layers train in a random subspace of d dimensions, and the head trains in full. Bars: 95 % intervals of the sample of test reviews.";
    accuracy_figure(title, caption, "dimension d", vec![series]).filter(|_| measured)
}

/// Times of inference as bars.
pub fn latencies(e: &Evidence) -> Option<Figure> {
    let bar = |l: &Latency| {
        let [value, low, high] = l.seconds.map(|s| 1e3 * s);
        Bar { name: l.method.clone(), value, interval: Some((low, high)), mark: None }
    };
    let caption = "Medians with 95 % intervals; the methods take turns, in another order each round.";
    let bars = Plot::Bars(e.latency.iter().map(bar).collect());
    (!e.latency.is_empty()).then(|| Figure::linear("Latency of one text", caption, ["time (ms)", "method"], bars))
}

/// Singular values of the change by full fine-tuning and by LoRA, for one matrix in the middle of the model.
pub fn spectra(e: &Evidence) -> Option<Figure> {
    let middle = |spectra: &[(String, Vec<f64>)], of: &str| {
        let (name, values) = spectra.get(spectra.len() / 2)?;
        let largest = values.first().copied().unwrap_or(1.0);
        let point = |(i, s): (usize, &f64)| Point { x: (i + 1) as f64, y: s / largest, interval: None };
        // Values this small are rounding errors of 0.
        let kept = values.iter().enumerate().filter(|(_, s)| **s > 1e-6 * largest);
        Some(Series { name: format!("{of} {name}"), points: kept.map(point).collect() })
    };
    let series: Vec<Series> = [middle(&e.spectra[0], "full"), middle(&e.spectra[1], "B A of rank 8,")].into_iter().flatten().collect();
    let caption = "Of one matrix in the middle of the model, each divided by its largest.";
    let labels = ["number of the singular value", "singular value / largest"];
    let empty = series.is_empty();
    (!empty).then(|| Figure::linear("Singular values of ΔW", caption, labels, Plot::Lines(series)).log_x().log_y())
}
