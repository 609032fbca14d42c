//! Measuring a model on tokenised texts.

use crate::study::figure::thousands;
use lowrank::Result;
use lowrank::data::Tokenized;
use lowrank::nn::DistilBert;
use lowrank::train::{Evaluation, evaluate};

/// The token ids of each text.
pub fn sequences(data: &Tokenized) -> Vec<&[u32]> {
    (0..data.len()).map(|i| data.sequence(i)).collect()
}

/// Accuracy and loss on tokenised texts, in batches of `batch` texts.
pub fn evaluate_on(model: &DistilBert, data: &Tokenized, batch: usize) -> Result<Evaluation> {
    evaluate(model, &sequences(data), &data.labels, batch)
}

/// `accuracy 86.20 % (84.62–87.64) on 2,000 reviews, loss 0.3312`.
pub fn describe(e: &Evaluation) -> String {
    let [accuracy, low, high] = [e.accuracy, e.interval.0, e.interval.1].map(|x| 100.0 * x);
    format!("accuracy {accuracy:.2} % ({low:.2}–{high:.2}) on {} reviews, loss {:.4}", thousands(e.examples), e.loss)
}
