//! Figures of a ranking by scores: one class against the rest. Equal scores are one step of the ranking, so that their order does not matter.

/// Texts sorted from the highest score down, in groups of equal scores.
pub(super) struct Ranking {
    order: Vec<u32>,
    /// End of each group in `order`.
    ends: Vec<u32>,
    positive: Vec<bool>,
}

impl Ranking {
    /// Of one score for each text, and whether the text is of the class.
    pub fn new(scores: &[f64], positive: Vec<bool>) -> Ranking {
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        let score = |i: u32| scores[i as usize];
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        let last = |&i: &usize| i + 1 == order.len() || score(order[i]) != score(order[i + 1]);
        let ends = (0..order.len()).filter(last).map(|i| i as u32 + 1).collect();
        Ranking { order, ends, positive }
    }

    /// Area under the ROC curve, and average precision, if text i counts `times[i]` times.
    ///
    /// - Area: the probability that a text of the class has a higher score than one of the rest; equal scores count as half. NaN if either is
    ///   missing. Fawcett 2006, <https://doi.org/10.1016/j.patrec.2005.10.010>, section 7.
    /// - Average precision: Σ (Rₙ − Rₙ₋₁) Pₙ over the steps, with recall R and precision P, as scikit-learn has it. 0 without a text of the class.
    pub fn figures(&self, times: &[u32]) -> (f64, f64) {
        let (mut hits, mut misses, mut pairs, mut precisions) = (0.0, 0.0, 0.0, 0.0);
        let mut start = 0;
        for &end in &self.ends {
            let (mut here, mut rest) = (0.0, 0.0);
            for &i in &self.order[start..end as usize] {
                let n = f64::from(times[i as usize]);
                if self.positive[i as usize] { here += n } else { rest += n }
            }
            start = end as usize;
            // Each text of the rest in this step is below all earlier hits.
            pairs += rest * (hits + here / 2.0);
            (hits, misses) = (hits + here, misses + rest);
            if here > 0.0 {
                precisions += here * (hits / (hits + misses));
            }
        }
        let precision = if hits > 0.0 { precisions / hits } else { 0.0 };
        (pairs / (hits * misses), precision)
    }
}
