//! Gauss–Legendre quadrature: an integral as a weighted sum of few values. Abramowitz & Stegun 1964, 25.4.29 and 25.4.30.

use std::f64::consts::PI;

/// The n points in (0, 1) and their weights, with ∫₀¹ f(α) dα ≈ Σ wᵢ f(αᵢ). Exact for polynomials of degree up to 2n − 1. The points are the roots of
/// the Legendre polynomial Pₙ, moved from (−1, 1) to (0, 1).
pub fn gauss_legendre(n: usize) -> Vec<(f64, f64)> {
    let point = |i: usize| {
        // Newton's method, from a start that lies near root i alone.
        let mut x = (PI * (i as f64 + 0.75) / (n as f64 + 0.5)).cos();
        for _ in 0..100 {
            let (p, dp) = legendre(n, x);
            x -= p / dp;
            if (p / dp).abs() < 1e-15 {
                break;
            }
        }
        let (_, dp) = legendre(n, x);
        // The weight on (−1, 1) is 2 / ((1 − x²) P′ₙ(x)²), and the interval is half as long.
        ((1.0 + x) / 2.0, 1.0 / ((1.0 - x * x) * dp * dp))
    };
    (0..n).rev().map(point).collect()
}

/// Pₙ(x) and its derivative: k Pₖ = (2k − 1) x Pₖ₋₁ − (k − 1) Pₖ₋₂.
fn legendre(n: usize, x: f64) -> (f64, f64) {
    let (mut before, mut p) = (0.0, 1.0);
    for k in 1..=n {
        let k = k as f64;
        (before, p) = (p, ((2.0 * k - 1.0) * x * p - (k - 1.0) * before) / k);
    }
    (p, n as f64 * (x * p - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_integrated_exactly() {
        for n in [1, 2, 3, 8, 50, 256] {
            let points = gauss_legendre(n);
            assert_eq!(points.len(), n);
            assert!(points.is_sorted_by(|a, b| a.0 < b.0) && points.iter().all(|&(x, w)| x > 0.0 && x < 1.0 && w > 0.0));
            for degree in [0, 1, 2 * n - 1] {
                let sum: f64 = points.iter().map(|&(x, w)| w * x.powi(degree as i32)).sum();
                assert!((sum - 1.0 / (degree as f64 + 1.0)).abs() < 1e-14, "{n} points, degree {degree}: {sum}");
            }
        }
        // One degree more is not exact.
        let square: f64 = gauss_legendre(1).iter().map(|&(x, w)| w * x * x).sum();
        assert!((square - 0.25).abs() < 1e-15);
    }
}
