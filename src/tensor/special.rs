//! exp and erf in f32, without branches or calls, so that the compiler turns loops over them into vector code.
//!
//! `fma` says that fused multiply-add is one fast instruction. It is a constant where such a loop is compiled: see [`simd`](super::simd).

/// e^x. The relative error is below 2e-7 for x in [-87, 88]. Below -87 the result is 0. From 88.4 on it is infinite. NaN gives NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2, so e^x = 2ⁿ eʳ. eʳ is its Taylor series to r⁷, whose remainder is below 6e-9.
#[inline(always)]
pub fn exp(x: f32, fma: bool) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4; // 12 bits, so n times it is exact
    const LN2_LOW: f32 = (std::f64::consts::LN_2 - LN2_HIGH as f64) as f32;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: after adding it, the low bits are the nearest integer
    let clamped = if x < -87.0 { -87.0 } else { x };
    // At 89, n is 128, and the power 2ⁿ below is infinite.
    let clamped = if clamped > 89.0 { 89.0 } else { clamped };
    let shifted = mul_add(clamped, std::f32::consts::LOG2_E, ROUND, fma);
    let n = shifted - ROUND;
    let r = mul_add(n, -LN2_LOW, mul_add(n, -LN2_HIGH, clamped, fma), fma);
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let series = series.iter().fold(1.0 / 5040.0, |sum, &c| mul_add(sum, r, c, fma));
    let power = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
    if x < -87.0 { 0.0 } else { series * power }
}

/// The pair (erf(x), e^(−x²)). Each has an absolute error below 6e-7.
///
/// Abramowitz & Stegun 1964, 7.1.26: erf(x) = 1 − (a₁t + … + a₅t⁵) e^(−x²) for x ≥ 0, t = 1 / (1 + p x). Its error is below 1.5e-7 before rounding.
#[inline(always)]
pub fn erf(x: f32, fma: bool) -> (f32, f32) {
    let t = 1.0 / mul_add(0.327_591_1, x.abs(), 1.0, fma);
    let series = [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6_f32];
    let series = series.iter().fold(1.061_405_4, |sum, &a| mul_add(sum, t, a, fma)) * t;
    let gauss = exp(-x * x, fma);
    (mul_add(-series, gauss, 1.0, fma).copysign(x), gauss)
}

/// a b + c, rounded once if `fma`.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32, fma: bool) -> f32 {
    if fma { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(test)]
mod tests {
    #[test]
    fn errors_are_as_stated() {
        for fma in [false, true] {
            let (exp, erf) = (|x| super::exp(x, fma), |x| super::erf(x, fma));
            for i in -870_000..=880_000 {
                let x = i as f32 * 1e-4;
                let want = f64::from(x).exp();
                assert!((f64::from(exp(x)) - want).abs() <= 2e-7 * want, "exp({x})");
            }
            for i in -60_000..=60_000 {
                let x = i as f32 * 1e-4;
                let (erf, gauss) = erf(x);
                assert!((f64::from(erf) - libm::erf(f64::from(x))).abs() < 6e-7, "erf({x})");
                assert!((f64::from(gauss) - (-f64::from(x) * f64::from(x)).exp()).abs() < 6e-7, "e^-({x})²");
            }
            assert_eq!((exp(-1000.0), exp(f32::NEG_INFINITY), exp(0.0), erf(0.0).0.abs() < 6e-7), (0.0, 0.0, 1.0, true));
            assert!([88.4, 89.0, 1000.0, f32::INFINITY].iter().all(|&x| exp(x) == f32::INFINITY));
            for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7F80_0001), f32::from_bits(0xFFFF_FFFF)] {
                assert!(exp(nan).is_nan() && erf(nan).0.is_nan() && erf(nan).1.is_nan());
            }
            assert_eq!([f32::INFINITY, f32::NEG_INFINITY].map(erf), [(1.0, 0.0), (-1.0, 0.0)]);
        }
    }
}
