//! The confidence interval of a share.

/// Half the width of a 95 % interval of a normal distribution, in standard deviations.
pub const Z95: f64 = 1.959_963_984_540_054;

/// The 95 % interval of a probability, estimated from `right` hits in `n` trials. Wilson 1927,
/// <https://doi.org/10.1080/01621459.1927.10502953>.
pub fn wilson(right: usize, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, p, z) = (n as f64, right as f64 / n as f64, Z95);
    let centre = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_wilsons() {
        // 15 of 20, worked out from the formula by hand to four digits.
        let (low, high) = wilson(15, 20);
        assert!((low - 0.5313).abs() < 1e-4 && (high - 0.8881).abs() < 1e-4, "{low} {high}");
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert!(wilson(10, 10).1 > 0.999_999 && wilson(10, 10).0 > 0.6);
    }
}
