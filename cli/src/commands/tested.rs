//! The measurement at the end of a training run, with the temperature that the held-out texts give.

use super::notes::note;
use lowrank::Result;
use lowrank::metrics::temperature;
use lowrank::nn::Outputs;
use lowrank::train::{Evaluation, measure, scores};

/// The model at the end of a run, measured.
pub struct Tested {
    /// On the test texts.
    pub test: Evaluation,
    /// Class probabilities of the test texts: `[N][C]`.
    pub probabilities: Vec<Vec<f64>>,
    /// On the held-out texts.
    pub held_out: Option<Evaluation>,
    /// What the logits were divided by for all these figures, if the held-out texts gave such a number.
    pub temperature: Option<f64>,
}

/// Fewest held-out texts from which a temperature is taken: fewer say little about probabilities.
const FEWEST: usize = 50;

impl Tested {
    /// Finds the temperature by the held-out texts, if there are enough, and measures on these and on the test texts. Of both: logits `[N][C]` and
    /// labels `[N]`.
    ///
    /// # Errors
    /// If a logit is not finite, or a label is not a class.
    pub fn new(held_out: Option<(&[Vec<f64>], &[u32])>, (logits, labels): (&[Vec<f64>], &[u32])) -> Result<Tested> {
        let (mut measured, mut found) = (None, None);
        if let Some((logits, labels)) = held_out {
            found = if labels.len() < FEWEST { None } else { temperature(logits, labels)? };
            let at = |t| measure(&probabilities(logits, t), labels).map(|(result, _)| result);
            let result = at(found.unwrap_or(1.0))?;
            if let Some(t) = found {
                let losses = format!("their loss falls from {:.4} to {:.4}", at(1.0)?.loss, result.loss);
                note!("temperature {t:.3} for true probabilities, from {} held-out texts: {losses}, and no answer changes", labels.len());
            }
            measured = Some(result);
        }
        let probabilities = probabilities(logits, found.unwrap_or(1.0));
        let (test, _) = measure(&probabilities, labels)?;
        Ok(Tested { test, probabilities, held_out: measured, temperature: found })
    }
}

/// Class probabilities of rows of logits, at a temperature.
pub fn probabilities(logits: &[Vec<f64>], temperature: f64) -> Vec<Vec<f64>> {
    logits.iter().map(|row| scores(Outputs::Classes, row, temperature)).collect()
}
