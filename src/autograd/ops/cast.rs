//! Change of data type.

use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{DType, Tensor, on_device};
use crate::{Error, Result};

/// y = x rounded to another type, any shape. dx = dy rounded to the type of x.
pub struct Cast {
    /// Type of y.
    pub dtype: DType,
}

fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    on_device!(x, |device| launch::cast(device, x, dtype), x.to_dtype(dtype))
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let [x] = inputs else { return Err(Error::invalid("cast: takes one input")) };
        // For its type alone.
        saved.keep_if(needs[0], "x", x);
        cast(x, self.dtype)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(cast(&dy, saved.take("x")?.dtype())?)])
    }
}

impl Tape<'_> {
    /// `x` in type `dtype`; x itself if it has that type already.
    ///
    /// # Errors
    /// If one of the two types is an integer.
    pub fn cast(&mut self, x: &Var, dtype: DType) -> Result<Var> {
        if x.value().dtype() == dtype { Ok(x.clone()) } else { self.apply(Cast { dtype }, &[x]) }
    }
}
