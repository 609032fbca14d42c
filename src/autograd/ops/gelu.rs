//! Gaussian error linear unit. Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>. DistilBERT uses this form, with the error
//! function; others use an approximation with tanh.

use super::elementwise::Elementwise;
use crate::Result;
use crate::autograd::{Tape, Var};
use crate::tensor::Accum;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI, SQRT_2};

/// y = x Φ(x), any shape. dy/dx = Φ(x) + x φ(x).
///
/// Φ is the distribution function of a standard normal number, and φ its density.
pub struct Gelu;

impl Elementwise for Gelu {
    const NAME: &'static str = "gelu";
    const KERNELS: Option<[&'static str; 2]> = Some(["gelu_forward", "gelu_backward"]);

    fn f(&self, x: f64) -> f64 {
        x * distribution(x)
    }

    fn df(&self, x: f64) -> f64 {
        distribution(x) + x * density(x)
    }

    // The fast forms get erf(x / √2) and e^(−x²/2) in one call: the f32 form of erf computes both.
    #[inline(always)]
    fn f_fast<T: Accum>(&self, x: T, fma: bool) -> T {
        let (erf, _) = (x * T::of(FRAC_1_SQRT_2)).erf(fma);
        T::of(0.5) * x * (T::ONE + erf)
    }

    #[inline(always)]
    fn dx_fast<T: Accum>(&self, x: T, dy: T, fma: bool) -> T {
        let (erf, gauss) = (x * T::of(FRAC_1_SQRT_2)).erf(fma);
        dy * (T::of(0.5) * (T::ONE + erf) + x * T::of(FRAC_1_SQRT_2PI) * gauss)
    }
}

/// 1/√(2π) = (1/2) · (1/√2) · (2/√π).
const FRAC_1_SQRT_2PI: f64 = 0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI;

/// Φ(x) = (1 + erf(x / √2)) / 2.
fn distribution(x: f64) -> f64 {
    (1.0 + libm::erf(x / SQRT_2)) / 2.0
}

/// φ(x) = e^(−x²/2) / √(2π).
fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * PI).sqrt()
}

impl Tape<'_> {
    /// y = x Φ(x); see [`Gelu`].
    ///
    /// # Errors
    /// If `x` is not a float.
    pub fn gelu(&mut self, x: &Var) -> Result<Var> {
        self.apply(Gelu, &[x])
    }
}
