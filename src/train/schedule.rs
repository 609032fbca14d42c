//! The learning-rate schedule.

/// Linear warm-up from 0 to 1, then linear decay to 0: `get_linear_schedule_with_warmup` of Hugging Face transformers.
#[derive(Clone, Copy, Debug)]
pub struct LinearSchedule {
    /// Steps of warm-up.
    pub warmup: usize,
    /// Steps of the run, warm-up included.
    pub total: usize,
}

impl LinearSchedule {
    /// Factor of the learning rate at step `t`, from 0: t / warmup, then (total − t) / (total − warmup). With warm-up, the factor of step 0 is 0: that
    /// step changes AdamW's moments alone.
    pub fn factor(&self, t: usize) -> f64 {
        if t < self.warmup {
            t as f64 / self.warmup as f64
        } else {
            self.total.saturating_sub(t) as f64 / (self.total - self.warmup.min(self.total)).max(1) as f64
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_ends_and_the_top_are_where_they_should() {
        let s = super::LinearSchedule { warmup: 3, total: 20 };
        assert_eq!([0, 3, 20, 30].map(|t| s.factor(t)), [0.0, 1.0, 0.0, 0.0]);
        assert!((s.factor(1) - 1.0 / 3.0).abs() < 1e-15 && (s.factor(10) - 10.0 / 17.0).abs() < 1e-15);
        assert_eq!(super::LinearSchedule { warmup: 0, total: 1 }.factor(0), 1.0);
    }
}
