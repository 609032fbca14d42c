//! Gaussian error linear unit. Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>; DistilBERT uses the erf form, not the tanh form.

use super::elementwise;
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Accum, Tensor, on_device};
use crate::{Result, dispatch};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use std::rc::Rc;

/// y = x Φ(x), with the exact error function; any shape. dx = dy (Φ(x) + x φ(x)).
pub struct Gelu;

impl Op for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let x = inputs[0];
        saved.keep_if(needs[0], "x", x);
        on_device!(
            x,
            |device| launch::elementwise(device, "gelu", ["gelu_forward_f32", "gelu_forward_bf16"], &[x]),
            dispatch!("gelu", x.dtype(), T => elementwise::map::<T>(x, gelu))
        )
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let x = saved.take("x")?;
        let dx = on_device!(
            x,
            |device| launch::elementwise(device, "gelu", ["gelu_backward_f32", "gelu_backward_bf16"], &[&x, &dy]),
            dispatch!("gelu", x.dtype(), T => elementwise::zip_in_place::<T>(&x, dy, backward))
        )?;
        Ok(vec![Some(dx)])
    }
}

/// x Φ(x) = x (1 + erf(x / √2)) / 2.
#[inline(always)]
fn gelu<T: Accum>(x: T, fma: bool) -> T {
    T::of(0.5) * x * (T::ONE + (x * T::of(FRAC_1_SQRT_2)).erf(fma).0)
}

/// dy (Φ(x) + x φ(x)), φ(x) = e^(−x²/2) / √(2π).
#[inline(always)]
fn backward<T: Accum>(x: T, dy: T, fma: bool) -> T {
    let (erf, gauss) = (x * T::of(FRAC_1_SQRT_2)).erf(fma);
    dy * (T::of(0.5) * (T::ONE + erf) + x * T::of(0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI) * gauss)
}

impl Tape<'_> {
    /// y = x Φ(x), with the exact error function; see [`Gelu`].
    ///
    /// # Errors
    /// If `x` is not a float.
    pub fn gelu(&mut self, x: &Var) -> Result<Var> {
        self.apply(Gelu, &[x])
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "Gelu",
        tolerance: 1e-8,
        case: |random| {
            let dims = [random_size(random, 5), random_size(random, 7)];
            Ok(Case { op: Rc::new(Gelu), inputs: vec![random_tensor(random, &dims)?] })
        },
    }
}
