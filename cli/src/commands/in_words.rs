//! Figures of a classifier in words.

use lowrank::metrics::{ClassMetrics, Estimate, Metrics};
use lowrank::text::thousands;

/// `86.20 % (84.62–87.64)`.
pub fn percent(estimate: &Estimate) -> String {
    let [value, low, high] = [estimate.value, estimate.interval.0, estimate.interval.1].map(|x| 100.0 * x);
    format!("{value:.2} % ({low:.2}–{high:.2})")
}

/// `0.724 (0.692–0.756)`, and with `to` if the interval begins below 0.
pub fn plain(estimate: &Estimate) -> String {
    let (low, high) = estimate.interval;
    let to = if low < 0.0 { " to " } else { "–" };
    format!("{:.3} ({low:.3}{to}{high:.3})", estimate.value)
}

/// [`plain`], or that there is no such figure.
pub fn perhaps(estimate: &Option<Estimate>) -> String {
    estimate.as_ref().map_or("not defined".to_string(), plain)
}

/// Names and values of the figures of all classes together.
pub fn overall(metrics: &Metrics) -> Vec<(&'static str, String)> {
    vec![
        ("accuracy", percent(&metrics.accuracy)),
        ("balanced accuracy", percent(&metrics.balanced_accuracy)),
        ("macro F1", percent(&metrics.macro_f1)),
        ("weighted F1", percent(&metrics.weighted_f1)),
        ("Matthews", plain(&metrics.matthews)),
        ("ROC-AUC", perhaps(&metrics.roc_auc)),
        ("average precision", plain(&metrics.average_precision)),
        ("calibration error", percent(&metrics.calibration_error)),
    ]
}

/// Names and values of the figures of one class.
pub fn of_class(class: &ClassMetrics) -> Vec<(&'static str, String)> {
    vec![
        ("texts", thousands(class.support)),
        ("precision", percent(&class.precision)),
        ("recall", percent(&class.recall)),
        ("F1", percent(&class.f1)),
        ("ROC-AUC", perhaps(&class.roc_auc)),
        ("average precision", plain(&class.average_precision)),
    ]
}

/// How the intervals were computed.
pub fn of_intervals(metrics: &Metrics) -> String {
    format!(
        "Intervals are 95 %: Wilson's for accuracy, precision and recall, else of a bootstrap with {} resamples of the texts.",
        thousands(metrics.resamples)
    )
}
