//! The learning-rate schedule.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// What the learning rate does after the warm-up: the schedules of Hugging Face transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It falls to 0 in a straight line: `get_linear_schedule_with_warmup`.
    #[default]
    Linear,
    /// It falls to 0 as half a cosine: `get_cosine_schedule_with_warmup`. Loshchilov & Hutter 2017, <https://arxiv.org/abs/1608.03983>.
    Cosine,
    /// It stays: `get_constant_schedule_with_warmup`.
    Constant,
}

impl Schedule {
    /// Factor of the learning rate at step `t` of `total`, from 0. The first `warmup` steps rise in a straight line: t / warmup. With
    /// warm-up, the factor of step 0 is 0: that step changes AdamW's moments alone.
    pub fn factor(self, t: usize, warmup: usize, total: usize) -> f64 {
        if t < warmup {
            return t as f64 / warmup as f64;
        }
        let rest = total.saturating_sub(t) as f64 / (total - warmup.min(total)).max(1) as f64;
        match self {
            Schedule::Linear => rest,
            Schedule::Cosine => 0.5 * (1.0 + (PI * (1.0 - rest)).cos()),
            Schedule::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn the_ends_and_the_top_are_where_they_should() {
        let linear = |t| Schedule::Linear.factor(t, 3, 20);
        assert_eq!([0, 3, 20, 30].map(linear), [0.0, 1.0, 0.0, 0.0]);
        assert!((linear(1) - 1.0 / 3.0).abs() < 1e-15 && (linear(10) - 10.0 / 17.0).abs() < 1e-15);
        assert_eq!(Schedule::Linear.factor(0, 0, 1), 1.0);
        let cosine = |t| Schedule::Cosine.factor(t, 4, 20);
        assert_eq!([0, 2, 4, 20].map(cosine), [0.0, 0.5, 1.0, 0.0]);
        assert!((cosine(12) - 0.5).abs() < 1e-15 && cosine(8) > 0.75);
        assert_eq!([0, 2, 4, 19].map(|t| Schedule::Constant.factor(t, 4, 20)), [0.0, 0.5, 1.0, 1.0]);
    }
}
