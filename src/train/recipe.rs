//! How to train: the numbers of a run, and their ranges.

use super::Schedule;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// How to train. Written to and read from JSON under these names. The last four are left out where they have their default, as in files of older versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Passes over the data, at least 1.
    pub epochs: usize,
    /// Sequences of a micro-batch, at least 1.
    pub batch: usize,
    /// Micro-batches of an optimizer step, at least 1. The loss is the mean over all their sequences.
    pub accumulate: usize,
    /// Highest learning rate.
    pub lr: f64,
    /// Decoupled weight decay of every trained tensor. It is a setting of the optimizer: give it to [`super::AdamW::of`] or
    /// [`super::AdamW::new`], as [`crate::classifier::TextClassifier`] does. [`super::fit`] takes an optimizer and does not read it.
    pub weight_decay: f64,
    /// Share of the steps that warm up, in [0, 1].
    pub warmup: f64,
    /// Largest global gradient norm, positive. Gradients of a larger norm are scaled down to it.
    pub clip: f64,
    /// Seed of the data's order and of dropout.
    pub seed: u64,
    /// Put sequences of similar length into a batch, instead of plain shuffling.
    pub group_by_length: bool,
    /// Compute each layer a second time in backward, instead of keeping its activations: the same bits, more time, less memory.
    pub recompute: bool,
    /// Compute the output of the trunk, the frozen layers below the first trained one, once instead of in every step. These layers are then without dropout.
    /// See [`super::FrozenFeatures`].
    pub cache_trunk: bool,
    /// In each step, use only the first ranks of every low-rank term. Their number is drawn evenly from 1 to this. The first ranks then work without the
    /// others. Valipour et al. 2022 (DyLoRA), <https://arxiv.org/abs/2210.07558>, algorithm 1, which updates all drawn ranks by default.
    pub nested_rank: Option<usize>,
    /// What the learning rate does after the warm-up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub schedule: Schedule,
    /// Weight of each class in the loss, positive: `[C]`. The loss of a step is the weighted mean. Empty: all are 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_weights: Vec<f64>,
    /// Label smoothing ε, in [0, 1): the target of a text is 1 − ε for its label, and ε shared evenly by all classes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub label_smoothing: f64,
    /// Biases and layer norms train without weight decay. As with `weight_decay`, the optimizer has to know: see [`super::AdamW::of`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_bias_decay: bool,
}

/// Whether a setting is left out of JSON.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for Recipe {
    /// The numbers of the LoRA study on IMDB that the program `lowrank` reproduces (`README.md`): 3 epochs, batches of 16, lr 3e-4. It does not state decay,
    /// warm-up and clipping; these are our choice.
    fn default() -> Recipe {
        Recipe {
            epochs: 3,
            batch: 16,
            accumulate: 1,
            lr: 3e-4,
            weight_decay: 0.01,
            warmup: 0.1,
            clip: 1.0,
            seed: 0,
            group_by_length: false,
            recompute: false,
            cache_trunk: false,
            nested_rank: None,
            schedule: Schedule::Linear,
            class_weights: Vec::new(),
            label_smoothing: 0.0,
            no_bias_decay: false,
        }
    }
}

/// Largest number of sequences of a micro-batch, of micro-batches of a step, of epochs, and of nested ranks.
const MOST: usize = 1 << 20;

/// The weights that a class may have. The loss times a larger one would leave f32's range.
const CLASS_WEIGHTS: RangeInclusive<f64> = 1e-9..=1e9;

impl Recipe {
    /// Optimizer steps of an epoch over `n` sequences.
    pub fn steps_per_epoch(&self, n: usize) -> usize {
        n.div_ceil(self.batch.saturating_mul(self.accumulate).max(1))
    }

    /// Optimizer steps of a run over `n` sequences.
    ///
    /// # Errors
    /// If `epochs` · `n` does not fit 31 bits: each sequence of each epoch has a 32-bit example number, and the optimizer counts steps in an `i32`.
    pub fn steps(&self, n: usize) -> Result<usize> {
        let most = (i32::MAX - 1) as usize / n.max(1);
        if self.epochs > most {
            let problem = format!("{} epochs of {n} sequences are more than can be counted: at most {most} epochs", self.epochs);
            return Err(Error::invalid(format!("recipe: {problem}")));
        }
        Ok(self.steps_per_epoch(n) * self.epochs)
    }

    /// Checks every number.
    ///
    /// # Errors
    /// If a number is out of its range; the message names it.
    pub fn check(&self) -> Result<()> {
        let rank = self.nested_rank.unwrap_or(1);
        for (name, n) in [("epochs", self.epochs), ("batch", self.batch), ("accumulate", self.accumulate), ("the nested rank", rank)] {
            if !(1..=MOST).contains(&n) {
                return Err(Error::invalid(format!("recipe: {name} must be at least 1 and at most {MOST}, got {n}")));
            }
        }
        let finite = |x: f64| x >= 0.0 && x.is_finite();
        for (name, x, good, rule) in [
            ("the learning rate", self.lr, finite(self.lr), "be a finite number of at least 0"),
            ("the weight decay", self.weight_decay, finite(self.weight_decay), "be a finite number of at least 0"),
            ("the warm-up", self.warmup, (0.0..=1.0).contains(&self.warmup), "lie in [0, 1]"),
            ("the largest gradient norm (clip)", self.clip, self.clip > 0.0, "be positive"),
            ("the label smoothing", self.label_smoothing, (0.0..1.0).contains(&self.label_smoothing), "lie in [0, 1)"),
        ] {
            if !good {
                return Err(Error::invalid(format!("recipe: {name} must {rule}, got {x}")));
            }
        }
        let (least, most) = (CLASS_WEIGHTS.start(), CLASS_WEIGHTS.end());
        match self.class_weights.iter().find(|w| !CLASS_WEIGHTS.contains(w)) {
            Some(w) => Err(Error::invalid(format!("recipe: a class weight must be from {least:e} to {most:e}, got {w:e}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_out_of_its_range_is_named() {
        let changed = |change: fn(&mut Recipe)| {
            let mut recipe = Recipe::default();
            change(&mut recipe);
            recipe.check().map_err(|e| e.to_string())
        };
        for (change, says) in [
            ((|r| r.epochs = 0) as fn(&mut Recipe), "epochs must be at least 1 and at most 1048576, got 0"),
            (|r| r.batch = usize::MAX, "batch must be"),
            (|r| r.accumulate = (1 << 20) + 1, "accumulate must be"),
            (|r| r.nested_rank = Some(0), "nested rank must be"),
            (|r| r.lr = f64::NAN, "learning rate must be a finite number of at least 0, got NaN"),
            (|r| r.weight_decay = f64::INFINITY, "weight decay must be"),
            (|r| r.warmup = -0.1, "warm-up must lie in [0, 1], got -0.1"),
            (|r| r.clip = 0.0, "clip) must be positive, got 0"),
            (|r| r.label_smoothing = 1.0, "label smoothing must lie in [0, 1), got 1"),
            (|r| r.class_weights = vec![1.0, 0.0], "class weight must be from 1e-9 to 1e9, got 0"),
            (|r| r.class_weights = vec![1e300], "class weight must be from 1e-9 to 1e9, got 1e300"),
        ] {
            let said = changed(change).unwrap_err();
            assert!(said.contains(says), "{said} should say {says}");
        }
        changed(|r| (r.batch, r.accumulate, r.epochs, r.clip) = (1 << 20, 1 << 20, 1 << 20, f64::INFINITY)).unwrap();
        let text = serde_json::to_string(&Recipe::default()).unwrap();
        assert!(text.ends_with("\"nested_rank\":null}"), "older versions know all of it: {text}");
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), Recipe::default());
        let recipe = Recipe { epochs: 1 << 20, ..Recipe::default() };
        assert_eq!(recipe.steps(33).unwrap(), 3 << 20);
        assert!(recipe.steps(4096).is_err_and(|e| e.to_string().contains("at most 524287 epochs")));
        assert!(recipe.steps(usize::MAX).is_err());
    }
}
