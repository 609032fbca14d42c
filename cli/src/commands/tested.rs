//! The measurement at the end of a training run, with the temperature that the held-out texts give.

use super::figures::{Figures, outputs};
use super::notes::note;
use lowrank::Result;
use lowrank::data::Tokenized;
use lowrank::metrics::{temperature, thresholds};
use lowrank::nn::Outputs;
use lowrank::train::scores;

/// The model at the end of a run, measured.
pub struct Tested {
    /// On the test texts.
    pub test: Figures,
    /// Scores of the test texts: probabilities of classes or labels, or numbers: `[N][C]`.
    pub probabilities: Vec<Vec<f64>>,
    /// On the held-out texts.
    pub held_out: Option<Figures>,
    /// What the logits were divided by for all these figures, if the held-out texts gave such a number.
    pub temperature: Option<f64>,
    /// The threshold of each label, if the held-out texts gave them.
    pub thresholds: Option<Vec<f64>>,
}

/// Fewest held-out texts from which a temperature or thresholds are taken: fewer say little about probabilities.
const FEWEST: usize = 50;

impl Tested {
    /// Finds the temperature or the thresholds by the held-out texts, if there are enough, and measures on these and on the test texts. Of both: logits
    /// `[N][C]` and the texts.
    ///
    /// # Errors
    /// If a logit is not finite, or a label is not a class.
    pub fn new(held_out: Option<(&[Vec<f64>], &Tokenized)>, (logits, data): (&[Vec<f64>], &Tokenized)) -> Result<Tested> {
        let (mut measured, mut found, mut cuts) = (None, None, None);
        if let Some((logits, data)) = held_out {
            let (enough, outputs) = (data.len() >= FEWEST, outputs(data));
            if enough && outputs == Outputs::Classes {
                found = temperature(logits, &data.labels)?;
            }
            if enough && outputs == Outputs::Labels {
                cuts = Some(thresholds(&all_scores(data, logits, 1.0), &data.wanted())?);
            }
            let at = |t, cuts: Option<&[f64]>| Figures::of(data, &all_scores(data, logits, t), cuts);
            let result = at(found.unwrap_or(1.0), cuts.as_deref())?;
            if let Some(t) = found {
                let losses = format!("their loss falls from {:.4} to {:.4}", at(1.0, None)?.loss(), result.loss());
                note!("temperature {t:.3} for true probabilities, from {} held-out texts: {losses}, and no answer changes", data.len());
            }
            if let Some(cuts) = &cuts {
                let each: Vec<String> = data.label_names.iter().zip(cuts).map(|(name, t)| format!("{name} {t:.3}")).collect();
                note!("thresholds with the highest F1, from {} held-out texts: {}", data.len(), each.join(", "));
            }
            measured = Some(result);
        }
        let probabilities = all_scores(data, logits, found.unwrap_or(1.0));
        let test = Figures::of(data, &probabilities, cuts.as_deref())?;
        Ok(Tested { test, probabilities, held_out: measured, temperature: found, thresholds: cuts })
    }
}

/// The scores of rows of logits, at a temperature.
pub fn all_scores(data: &Tokenized, logits: &[Vec<f64>], temperature: f64) -> Vec<Vec<f64>> {
    let outputs = outputs(data);
    logits.iter().map(|row| scores(outputs, row, temperature)).collect()
}
