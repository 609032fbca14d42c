//! Rectified linear unit.

use super::elementwise::Elementwise;
use crate::Result;
use crate::autograd::{Tape, Var};
use crate::tensor::Accum;

/// y = max(x, 0), any shape. dy/dx = 1 where y > 0, else 0. A NaN stays NaN in y and in dx, unlike in the maximum of IEEE 754.
pub struct Relu;

impl Elementwise for Relu {
    const NAME: &'static str = "relu";
    const KEEPS_Y: bool = true;
    const KERNELS: Option<[&'static str; 2]> = Some(["relu_forward", "relu_backward"]);

    fn f(&self, x: f64) -> f64 {
        if x <= 0.0 { 0.0 } else { x }
    }

    fn df(&self, y: f64) -> f64 {
        if y.is_nan() { y } else { f64::from(u8::from(y > 0.0)) }
    }

    /// Without a product: where y = 0, dx is 0 whatever dy is.
    #[inline(always)]
    fn dx_fast<T: Accum>(&self, y: T, dy: T, _fma: bool) -> T {
        match y.partial_cmp(&T::ZERO) {
            Some(std::cmp::Ordering::Greater) => dy,
            Some(_) => T::ZERO,
            None => y,
        }
    }
}

impl Tape<'_> {
    /// y = max(x, 0); see [`Relu`].
    ///
    /// # Errors
    /// If `x` is not a float.
    pub fn relu(&mut self, x: &Var) -> Result<Var> {
        self.apply(Relu, &[x])
    }
}
