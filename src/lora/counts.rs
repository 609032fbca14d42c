//! How many numbers train.

use crate::nn::DistilBert;

/// How many numbers train.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Trained numbers.
    pub trainable: usize,
    /// Numbers of the checkpoint with its head.
    pub base: usize,
}

impl Counts {
    /// Counts a model.
    pub fn of(model: &DistilBert) -> Counts {
        Counts {
            trainable: model.parameters().iter().map(|p| p.value().shape().len()).sum(),
            base: model.weights().iter().map(|w| w.shape().len()).sum(),
        }
    }

    /// PEFT's line, which counts a trained head twice: the original and the copy that trains.
    pub fn peft_line(&self) -> String {
        let all = self.base + self.trainable;
        let percent = 100.0 * self.trainable as f64 / all as f64;
        format!("trainable params: {} || all params: {} || trainable%: {percent:.4}", thousands(self.trainable), thousands(all))
    }

    /// Percentage of the model's own numbers.
    pub fn percent(&self) -> f64 {
        100.0 * self.trainable as f64 / self.base as f64
    }
}

/// 1234567 as `1,234,567`.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
