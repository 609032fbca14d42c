//! A measurement in words.

use lowrank::text::thousands;
use lowrank::train::Evaluation;

/// `accuracy 86.20 % (84.62–87.64) on 2,000 reviews, loss 0.3312`.
pub fn describe(e: &Evaluation) -> String {
    let [accuracy, low, high] = [e.accuracy, e.interval.0, e.interval.1].map(|x| 100.0 * x);
    format!("accuracy {accuracy:.2} % ({low:.2}–{high:.2}) on {} reviews, loss {:.4}", thousands(e.examples), e.loss)
}
