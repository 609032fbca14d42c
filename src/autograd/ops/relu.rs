//! Rectified linear unit.

use super::elementwise;
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::{Accum, Tensor};
use crate::{Result, dispatch};
use std::cmp::Ordering;
use std::rc::Rc;
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// y = max(x, 0), any shape. dx = dy where y > 0, else 0. Where x is NaN, so are y and dx: the maximum of IEEE 754 would give 0.
pub struct Relu;

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let y = dispatch!("relu", inputs[0].dtype(), T => elementwise::map::<T>(inputs[0], |x, _| if x <= Accum::ZERO { Accum::ZERO } else { x }))?;
        saved.keep_if(needs[0], "y", &y);
        Ok(y)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let y = saved.take("y")?;
        dispatch!("relu", dy.dtype(), T => Ok(vec![Some(elementwise::zip_in_place::<T>(&y, dy, backward)?)]))
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let y = launch::elementwise(device, "relu", ["relu_forward_f32", "relu_forward_bf16"], inputs)?;
        saved.keep_if(needs[0], "y", &y);
        Ok(y)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let y = saved.take("y")?;
        let dx = launch::elementwise(device, "relu", ["relu_backward_f32", "relu_backward_bf16"], &[&y, &dy])?;
        Ok(vec![Some(dx)])
    }
}

/// dy where y > 0, else 0; y itself if it is NaN.
#[inline(always)]
fn backward<T: Accum>(y: T, dy: T, _fma: bool) -> T {
    match y.partial_cmp(&T::ZERO) {
        Some(Ordering::Greater) => dy,
        Some(_) => T::ZERO,
        None => y,
    }
}

impl Tape<'_> {
    /// y = max(x, 0), any shape; see [`Relu`].
    ///
    /// # Errors
    /// If `x` is not a float.
    pub fn relu(&mut self, x: &Var) -> Result<Var> {
        self.apply(Relu, &[x])
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "Relu",
        tolerance: 1e-8,
        case: |random| {
            let dims = [random_size(random, 5), random_size(random, 7)];
            // Away from the kink by more than the steps of the difference.
            let away = |x: &f64| x + 0.1 * x.signum();
            let x: Vec<f64> = random_tensor(random, &dims)?.host::<f64>()?.iter().map(away).collect();
            Ok(Case { op: Rc::new(Relu), inputs: vec![Tensor::new(x, dims)?] })
        },
    }
}
