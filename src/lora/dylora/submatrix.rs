//! The op of DyLoRA: the top left block of a matrix.

use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Tensor, alloc, on_device, zeroed};
use crate::{Error, Result, dispatch};
use std::rc::Rc;

/// y = x[..m, ..n]. x `[rows, cols]`, y `[m, n]`. dx `[rows, cols]` is dy in that block and 0 elsewhere.
pub struct Submatrix {
    /// `[m, n]`.
    pub dims: [usize; 2],
}

impl Op for Submatrix {
    fn name(&self) -> &'static str {
        "submatrix"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let (x, [m, n]) = (inputs[0], self.dims);
        if x.dims().len() != 2 || m > x.shape().rows() || n > x.shape().cols() {
            return Err(Error::shape("submatrix", "a block no larger than the matrix", &[x.shape(), &self.dims.into()]));
        }
        // Backward needs its shape only.
        saved.keep_if(needs[0], "x", x);
        on_device!(
            x,
            |device| launch::submatrix(device, x, self.dims),
            dispatch!("submatrix", x.dtype(), T => {
                let mut y = alloc::<T>(m * n);
                for (y, x) in y.chunks_exact_mut(n).zip(x.host::<T>()?.chunks_exact(x.shape().cols())) {
                    y.copy_from_slice(&x[..n]);
                }
                Tensor::new(y, self.dims)
            })
        )
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let x = saved.take("x")?;
        let dx = on_device!(
            dy,
            |device| launch::submatrix_backward(device, &x, &dy),
            dispatch!("submatrix", dy.dtype(), T => {
                let mut dx = zeroed::<T>(x.shape().len());
                for (dx, dy) in dx.chunks_exact_mut(x.shape().cols()).zip(dy.host::<T>()?.chunks_exact(self.dims[1])) {
                    dx[..self.dims[1]].copy_from_slice(dy);
                }
                Tensor::new(dx, x.shape())
            })
        )?;
        Ok(vec![Some(dx)])
    }
}

pub(in crate::lora) fn suite() -> Suite {
    Suite {
        op: "Submatrix",
        tolerance: 1e-8,
        case: |random| {
            let [rows, cols] = [random_size(random, 5), random_size(random, 5)];
            let dims = [1 + random.below(rows), 1 + random.below(cols)];
            Ok(Case { op: Rc::new(Submatrix { dims }), inputs: vec![random_tensor(random, &[rows, cols])?] })
        },
    }
}
