//! How true the probabilities are, and how to make them truer. Guo et al. 2017, <https://arxiv.org/abs/1706.04599>.

use super::{argmax, check, softmax, wilson};
use crate::Result;
use crate::outputs::TEMPERATURES;
use serde::Serialize;

/// Number of bins of equal width for the probability of the answer, as in the paper.
pub const BINS: usize = 15;

/// The texts whose answer has a probability in one bin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// Ends of the bin: the probability p of the answer is in (low, high], and in the first bin also 0.
    pub bounds: (f64, f64),
    /// Number of texts.
    pub texts: usize,
    /// Mean probability of the answer.
    pub confidence: f64,
    /// Share of right answers. It equals `confidence` if the probabilities are true.
    pub accuracy: f64,
    /// 95 % interval of `accuracy`: Wilson's.
    pub interval: (f64, f64),
}

/// The bin of the probability p.
pub(super) fn bin(p: f64) -> usize {
    let ends = (1..BINS).map(|i| i as f64 / BINS as f64);
    ends.take_while(|end| *end < p).count()
}

/// Texts, sum of confidences and right answers of each bin.
pub(super) type Bins = [(f64, f64, f64); BINS];

/// Expected calibration error: Σ (n_b / n) |accuracy_b − confidence_b| over the bins b. Equation 3 of the paper.
pub(super) fn calibration_error(bins: &Bins) -> f64 {
    let n: f64 = bins.iter().map(|(texts, ..)| texts).sum();
    bins.iter().map(|(_, confidence, right)| (right - confidence).abs()).sum::<f64>() / n
}

/// The reliability table: the bins that have texts.
pub(super) fn reliability(bins: &Bins) -> Vec<ReliabilityBin> {
    let end = |i: usize| i as f64 / BINS as f64;
    let bin = |(i, &(texts, confidence, right)): (usize, &(f64, f64, f64))| ReliabilityBin {
        bounds: (end(i), end(i + 1)),
        texts: texts as usize,
        confidence: confidence / texts,
        accuracy: right / texts,
        interval: wilson(right as usize, texts as usize),
    };
    bins.iter().enumerate().filter(|(_, (texts, ..))| *texts > 0.0).map(bin).collect()
}

/// Most steps of the search for the temperature. Each is one of Newton's or halves the interval, so fewer suffice.
const STEPS: usize = 200;

/// The temperature T that minimises the mean cross-entropy of softmax(z / T), for logits z `[N][C]` and their labels `[N]`. Section 4.2 of the paper.
/// `None` if there is none: if all answers are right, the smallest T is the best, and if the logits are no better than chance, the largest.
///
/// The cross-entropy is convex in β = 1 / T, so its derivative `Σᵢ (Σⱼ pᵢⱼ zᵢⱼ − zᵢ[label])` has one root: found by Newton's method inside an interval that
/// is halved where a step would leave it.
///
/// # Errors
/// If a logit is not finite, or a label is not a class.
pub fn temperature(logits: &[Vec<f64>], labels: &[u32]) -> Result<Option<f64>> {
    check(logits, labels)?;
    // First and second derivative of the cross-entropy by β.
    let derivatives = |beta: f64| {
        let mut sums = (0.0, 0.0);
        for (z, &label) in logits.iter().zip(labels) {
            let p = softmax(&z.iter().map(|z| z * beta).collect::<Vec<_>>());
            let mean: f64 = p.iter().zip(z).map(|(p, z)| p * z).sum();
            sums.0 += mean - z[label as usize];
            sums.1 += p.iter().zip(z).map(|(p, z)| p * (z - mean) * (z - mean)).sum::<f64>();
        }
        sums
    };
    let all_right = logits.iter().zip(labels).all(|(z, &label)| z[label as usize] == z[argmax(z)]);
    if all_right || derivatives(0.0).0 >= 0.0 {
        return Ok(None);
    }
    let (mut low, mut high) = (0.0, 1.0);
    while derivatives(high).0 < 0.0 {
        (low, high) = (high, 2.0 * high);
        // The logits of the wrong answers differ from the best ones by rounding alone.
        if high > 1e9 {
            return Ok(None);
        }
    }
    let mut beta = 0.5 * (low + high);
    for _ in 0..STEPS {
        let (slope, curvature) = derivatives(beta);
        if slope < 0.0 {
            low = beta
        } else {
            high = beta
        }
        let newton = beta - slope / curvature;
        let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
        let done = (next - beta).abs() <= 1e-14 * beta;
        beta = next;
        if done {
            break;
        }
    }
    Ok(Some((1.0 / beta).min(*TEMPERATURES.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_closed_above() {
        for (p, wanted) in [(0.0, 0), (1.0 / 15.0, 0), (1.0 / 15.0 + 1e-9, 1), (0.5, 7), (8.0 / 15.0, 7), (1.0, 14)] {
            assert_eq!(bin(p), wanted, "{p}");
        }
    }

    #[test]
    fn a_temperature_makes_true_probabilities_of_logits_that_are_too_large() {
        // Logits ln(p / (1 − p)) · 3 of texts that are right in the share p: T is 3.
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        for tenths in [6, 7, 9] {
            let p = f64::from(tenths) / 10.0;
            for i in 0..10 {
                logits.push(vec![0.0, 3.0 * (p / (1.0 - p)).ln()]);
                labels.push(u32::from(i < tenths));
            }
        }
        let found = temperature(&logits, &labels).unwrap().unwrap();
        assert!((found - 3.0).abs() < 1e-10, "{found}");
        // All right, all of one kind and wrong, and no better than chance: there is no minimum.
        assert_eq!(temperature(&[vec![0.0, 1.0], vec![2.0, 1.0]], &[1, 0]).unwrap(), None);
        assert_eq!(temperature(&[vec![0.0, 1.0]], &[0]).unwrap(), None);
        assert_eq!(temperature(&[vec![0.0, 1.0], vec![0.0, 1.0]], &[0, 1]).unwrap(), None);
        assert!(temperature(&[vec![0.0, f64::NAN]], &[0]).is_err() && temperature(&[vec![0.0, 1.0]], &[2]).is_err());
    }
}
