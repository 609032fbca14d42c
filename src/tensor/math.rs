//! exp and erf in f32 without branches or calls, and sums and maxima in lanes, so that loops over them become vector code.
//!
//! `fma` says whether fused multiply-add is one fast instruction: where such a loop is compiled it is a constant.

use super::Accum;

/// Partial results that are kept side by side.
const LANES: usize = 16;

/// f(0, x₀), folded with `f` over each of 16 lanes, and the lanes folded with `join`.
#[inline(always)]
fn fold<T: Copy, S: Accum>(x: &[T], zero: S, f: impl Fn(S, T) -> S, join: impl Fn(S, S) -> S) -> S {
    let mut lanes = [zero; LANES];
    let (pieces, rest) = x.as_chunks::<LANES>();
    for piece in pieces {
        for j in 0..LANES {
            lanes[j] = f(lanes[j], piece[j]);
        }
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, &x)| *lane = f(*lane, x));
    lanes.into_iter().fold(zero, join)
}

/// Σ f(x).
#[inline(always)]
pub fn sum<T: Copy, S: Accum>(x: &[T], f: impl Fn(T) -> S) -> S {
    fold(x, S::ZERO, |sum, x| sum + f(x), |a, b| a + b)
}

/// Σ f(x, y) over the length of `x`.
#[inline(always)]
pub fn sum2<T: Copy, U: Copy, S: Accum>(x: &[T], y: &[U], f: impl Fn(T, U) -> S) -> S {
    sum3(x, y, x, |x, y, _| f(x, y))
}

/// Σ f(x, y, z) over the length of `x`.
#[inline(always)]
pub fn sum3<T: Copy, U: Copy, V: Copy, S: Accum>(x: &[T], y: &[U], z: &[V], f: impl Fn(T, U, V) -> S) -> S {
    let mut lanes = [S::ZERO; LANES];
    let (xs, ys, zs) = (x.as_chunks::<LANES>(), y[..x.len()].as_chunks::<LANES>(), z[..x.len()].as_chunks::<LANES>());
    for ((x, y), z) in xs.0.iter().zip(ys.0).zip(zs.0) {
        for j in 0..LANES {
            lanes[j] += f(x[j], y[j], z[j]);
        }
    }
    let rest = xs.1.iter().zip(ys.1).zip(zs.1);
    lanes.iter_mut().zip(rest).for_each(|(lane, ((&x, &y), &z))| *lane += f(x, y, z));
    lanes.into_iter().fold(S::ZERO, |a, b| a + b)
}

/// The largest number of `x`. A NaN need not win: where this is subtracted before an [`exp`], that of the NaN is still NaN.
#[inline(always)]
pub fn max<S: Accum>(x: &[S]) -> S {
    let first = x.first().copied().unwrap_or(S::ZERO);
    fold(x, first, |a, b| if b > a { b } else { a }, |a, b| if b > a { b } else { a })
}

/// The largest of numbers that are not negative, 0 if there are none; NaN if one is NaN, which `f64::max` would leave out.
pub fn largest(x: impl IntoIterator<Item = f64>) -> f64 {
    x.into_iter().fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most })
}

/// e^x. Relative error below 2e-7 in [-87, 88]; 0 below, infinite above, from 88.4 on for sure; NaN of NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2, and e^r by its Taylor series to r⁷: the rest is below 6e-9.
#[inline(always)]
pub fn exp(x: f32, fma: bool) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4; // 12 bits: n times it is exact
    const LN2_LOW: f32 = (std::f64::consts::LN_2 - LN2_HIGH as f64) as f32;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves an integer in the low bits
    let clamped = if x < -87.0 { -87.0 } else { x };
    // At 89, n is 128, and the power below infinity.
    let clamped = if clamped > 89.0 { 89.0 } else { clamped };
    let shifted = mul_add(clamped, std::f32::consts::LOG2_E, ROUND, fma);
    let n = shifted - ROUND;
    let r = mul_add(n, -LN2_LOW, mul_add(n, -LN2_HIGH, clamped, fma), fma);
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let series = series.iter().fold(1.0 / 5040.0, |sum, &c| mul_add(sum, r, c, fma));
    let power = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
    if x < -87.0 { 0.0 } else { series * power }
}

/// erf(x), and e^(−x²), each with an absolute error below 6e-7.
///
/// Abramowitz & Stegun 1964, 7.1.26: 1 − (a₁t + … + a₅t⁵) e^(−x²), t = 1 / (1 + p|x|), within 1.5e-7 before rounding.
#[inline(always)]
pub fn erf(x: f32, fma: bool) -> (f32, f32) {
    let t = 1.0 / mul_add(0.327_591_1, x.abs(), 1.0, fma);
    let series = [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6_f32];
    let series = series.iter().fold(1.061_405_4, |sum, &a| mul_add(sum, t, a, fma)) * t;
    let gauss = exp(-x * x, fma);
    (mul_add(-series, gauss, 1.0, fma).copysign(x), gauss)
}

/// a b + c.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32, fma: bool) -> f32 {
    if fma { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_largest_is_nan_if_one_is() {
        assert_eq!((super::largest([]), super::largest([1.0, 3.0, 2.0])), (0.0, 3.0));
        for at in 0..3 {
            let mut x = [1.0, 3.0, 2.0];
            x[at] = f64::NAN;
            assert!(super::largest(x).is_nan());
        }
    }

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
