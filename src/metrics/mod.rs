//! Figures of a classifier: how good its answers are ([`Metrics`]), and how true its probabilities ([`temperature`]).
//!
//! The figures are those of scikit-learn, to 1e-12 on recorded files (`tests/metrics.rs`). Each has a 95 % interval: Wilson's where it is a share
//! ([`wilson`]), else that of a bootstrap over the texts with a fixed seed (`bootstrap.rs`).

mod bootstrap;
mod calibration;
mod confusion;
mod figures;
mod interval;
mod labels;
mod numbers;
mod ranking;
mod selection;
mod suspects;

pub use calibration::{BINS, ReliabilityBin, temperature};
pub use figures::{ClassMetrics, Estimate, Metrics};
pub use interval::{Z95, wilson};
pub use labels::{LabelMetrics, thresholds};
pub use numbers::NumberMetrics;
pub use selection::Metric;
pub use suspects::{Suspect, suspects};

use crate::{Error, Result};

/// The class with the highest probability or logit. All must be finite.
pub fn argmax(probabilities: &[f64]) -> usize {
    probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i)
}

/// exp(zᵢ) / Σ exp(zⱼ).
pub(crate) fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = logits.iter().map(|z| (z - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|e| e / sum).collect()
}

/// Checks rows `[N][C]` of finite numbers and their labels `[N]`. Returns C.
///
/// # Errors
/// If there are no rows, a row has another length or a number that is not finite, or a label is not a class.
fn check(rows: &[Vec<f64>], labels: &[u32]) -> Result<usize> {
    let classes = rows.first().map_or(0, Vec::len);
    if classes == 0 || rows.len() != labels.len() {
        let problem =
            format!("metrics: expected rows [N][C] and labels [N], got {} rows of {classes} and {} labels", rows.len(), labels.len());
        return Err(Error::invalid(problem));
    }
    if let Some(i) = rows.iter().position(|row| row.len() != classes || row.iter().any(|x| !x.is_finite())) {
        return Err(Error::invalid(format!("metrics: text {}: {:?} are not {classes} finite numbers", i + 1, rows[i])));
    }
    match labels.iter().find(|&&label| label as usize >= classes) {
        Some(bad) => Err(Error::invalid(format!("label {bad} is not one of the model's {classes} classes"))),
        None => Ok(classes),
    }
}
