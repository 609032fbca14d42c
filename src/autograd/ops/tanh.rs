//! Hyperbolic tangent.

use super::elementwise;
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
use crate::tensor::{Accum, Scalar, Tensor};
use crate::{Result, dispatch};
use std::rc::Rc;

/// y = tanh x, any shape. dx = dy (1 − y²).
pub struct Tanh;

impl Op for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let y = dispatch!("tanh", inputs[0].dtype(), T => elementwise::map::<T>(inputs[0], |x, _| x.tanh()))?;
        saved.keep_if(needs[0], "y", &y);
        Ok(y)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let y = saved.take("y")?;
        dispatch!("tanh", dy.dtype(), T => Ok(vec![Some(elementwise::zip_in_place::<T>(&y, dy, |y, dy, _| dy * (<T as Scalar>::Acc::ONE - y * y))?)]))
    }
}

impl Tape<'_> {
    /// y = tanh x, any shape; see [`Tanh`].
    ///
    /// # Errors
    /// If `x` is not a float.
    pub fn tanh(&mut self, x: &Var) -> Result<Var> {
        self.apply(Tanh, &[x])
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "Tanh",
        tolerance: 1e-8,
        case: |random| {
            let dims = [random_size(random, 5), random_size(random, 7)];
            Ok(Case { op: Rc::new(Tanh), inputs: vec![random_tensor(random, &dims)?] })
        },
    }
}
