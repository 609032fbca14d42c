//! How numbers are spread.

use serde::Serialize;

/// The spread of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest number.
    pub smallest: f64,
    /// The middle number, or the mean of the two in the middle.
    pub median: f64,
    /// The largest number.
    pub largest: f64,
    /// Their mean.
    pub mean: f64,
    /// The square root of the mean of (y − mean)².
    pub deviation: f64,
}

impl Spread {
    /// Of finite numbers. `None` if there are none.
    pub fn of(mut numbers: Vec<f64>) -> Option<Spread> {
        numbers.sort_by(f64::total_cmp);
        let (&smallest, &largest, n) = (numbers.first()?, numbers.last()?, numbers.len());
        let mean = numbers.iter().sum::<f64>() / n as f64;
        let deviation = (numbers.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
        Some(Spread { smallest, median: (numbers[(n - 1) / 2] + numbers[n / 2]) / 2.0, largest, mean, deviation })
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_spread_is_that_of_the_formulas() {
        let all = Spread::of(vec![4.0, 1.0, 9.0, 2.0]).unwrap();
        assert_eq!((all.smallest, all.median, all.largest, all.mean, all.deviation), (1.0, 3.0, 9.0, 4.0, 9.5_f64.sqrt()));
        assert_eq!(Spread::of(vec![3.0, -1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
