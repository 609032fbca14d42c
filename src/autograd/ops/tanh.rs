//! Hyperbolic tangent.

use super::elementwise::Elementwise;
use crate::Result;
use crate::autograd::{Tape, Var};
use crate::tensor::Accum;

/// y = tanh x, any shape. dy/dx = 1 − y².
pub struct Tanh;

impl Elementwise for Tanh {
    const NAME: &'static str = "tanh";
    const KEEPS_Y: bool = true;
    const KERNELS: Option<[&'static str; 2]> = Some(["tanh_forward", "tanh_backward"]);

    fn f(&self, x: f64) -> f64 {
        x.tanh()
    }

    fn df(&self, y: f64) -> f64 {
        1.0 - y * y
    }

    #[inline(always)]
    fn f_fast<T: Accum>(&self, x: T, _fma: bool) -> T {
        x.tanh()
    }

    #[inline(always)]
    fn dx_fast<T: Accum>(&self, y: T, dy: T, _fma: bool) -> T {
        dy * (T::ONE - y * y)
    }
}

impl Tape<'_> {
    /// y = tanh x; see [`Tanh`].
    ///
    /// # Errors
    /// If `x` is not a float.
    pub fn tanh(&mut self, x: &Var) -> Result<Var> {
        self.apply(Tanh, &[x])
    }
}
