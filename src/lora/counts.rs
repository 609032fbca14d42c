//! Counts the numbers that train.

use crate::nn::DistilBert;
use crate::text::thousands;

/// How many numbers a model has, and how many of them train.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Numbers that train, those that a method added included.
    pub trainable: usize,
    /// Numbers of the checkpoint, its head included.
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

    /// The line that PEFT prints. It counts a trained head twice, as PEFT does: the original, and the copy that trains.
    pub fn peft_line(&self) -> String {
        let all = self.base + self.trainable;
        let percent = 100.0 * self.trainable as f64 / all as f64;
        format!("trainable params: {} || all params: {} || trainable%: {percent:.4}", thousands(self.trainable), thousands(all))
    }

    /// 100 · trainable / base.
    pub fn percent(&self) -> f64 {
        100.0 * self.trainable as f64 / self.base as f64
    }
}
