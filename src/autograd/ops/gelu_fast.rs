//! Gelu in the accumulator's type. One call gives erf(x / √2) and e^(−x²/2): the f32 form of erf computes both.

use crate::tensor::Accum;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// 1/√(2π) = (1/2) · (1/√2) · (2/√π).
const FRAC_1_SQRT_2PI: f64 = 0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI;

/// x Φ(x) = x (1 + erf(x / √2)) / 2.
#[inline(always)]
pub fn f<T: Accum>(x: T, fma: bool) -> T {
    let (erf, _) = (x * T::of(FRAC_1_SQRT_2)).erf(fma);
    T::of(0.5) * x * (T::ONE + erf)
}

/// dy (Φ(x) + x φ(x)).
#[inline(always)]
pub fn dx<T: Accum>(x: T, dy: T, fma: bool) -> T {
    let (erf, gauss) = (x * T::of(FRAC_1_SQRT_2)).erf(fma);
    dy * (T::of(0.5) * (T::ONE + erf) + x * T::of(FRAC_1_SQRT_2PI) * gauss)
}
