//! Change of data type.

use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::rc::Rc;
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// y = x rounded to another type; any shape. dx = dy rounded to x's type.
pub struct Cast {
    /// Type of y.
    pub dtype: DType,
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let [x] = inputs else { return Err(Error::invalid("cast: takes one input")) };
        // For its type alone.
        saved.keep_if(needs[0], "x", x);
        x.to_dtype(self.dtype)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(dy.to_dtype(saved.take("x")?.dtype())?)])
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        saved.keep_if(needs[0], "x", inputs[0]);
        launch::cast(device, inputs[0], self.dtype)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(launch::cast(device, &dy, saved.take("x")?.dtype())?)])
    }
}

impl Tape<'_> {
    /// `x` in type `dtype`; x itself if that is its type already.
    ///
    /// # Errors
    /// If one of the two types is an integer.
    pub fn cast(&mut self, x: &Var, dtype: DType) -> Result<Var> {
        if x.value().dtype() == dtype { Ok(x.clone()) } else { self.apply(Cast { dtype }, &[x]) }
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "Cast",
        tolerance: 1e-8,
        case: |random| {
            let dims = [random_size(random, 5), random_size(random, 7)];
            Ok(Case { op: Rc::new(Cast { dtype: DType::F64 }), inputs: vec![random_tensor(random, &dims)?] })
        },
    }
}
