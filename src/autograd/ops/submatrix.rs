//! The leading block of a matrix.

use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::{Tensor, alloc, zeroed};
use crate::{Error, Result, dispatch};
use std::rc::Rc;
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// y = x[..m, ..n]. x `[rows, cols]`, y `[m, n]`. dx is dy there, 0 elsewhere.
pub struct Submatrix {
    /// `[m, n]`.
    pub dims: [usize; 2],
}

impl Submatrix {
    fn check(&self, x: &Tensor) -> Result<()> {
        let [m, n] = self.dims;
        match x.dims().len() == 2 && m <= x.shape().rows() && n <= x.shape().cols() {
            true => Ok(()),
            false => Err(Error::shape("submatrix", "a block no larger than the matrix", &[x.shape(), &self.dims.into()])),
        }
    }
}

impl Op for Submatrix {
    fn name(&self) -> &'static str {
        "submatrix"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let (x, [m, n]) = (inputs[0], self.dims);
        self.check(x)?;
        // For its shape alone.
        saved.keep_if(needs[0], "x", x);
        dispatch!("submatrix", x.dtype(), T => {
            let mut y = alloc::<T>(m * n);
            for (y, x) in y.chunks_exact_mut(n).zip(x.host::<T>()?.chunks_exact(x.shape().cols())) {
                y.copy_from_slice(&x[..n]);
            }
            Tensor::new(y, self.dims)
        })
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let x = saved.take("x")?;
        dispatch!("submatrix", dy.dtype(), T => {
            let mut dx = zeroed::<T>(x.shape().len());
            for (dx, dy) in dx.chunks_exact_mut(x.shape().cols()).zip(dy.host::<T>()?.chunks_exact(self.dims[1])) {
                dx[..self.dims[1]].copy_from_slice(dy);
            }
            Ok(vec![Some(Tensor::new(dx, x.shape())?)])
        })
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let x = inputs[0];
        self.check(x)?;
        saved.keep_if(needs[0], "x", x);
        launch::submatrix(device, x, self.dims)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(launch::submatrix_backward(device, &saved.take("x")?, &dy)?)])
    }
}

impl Tape<'_> {
    /// The first rows and columns of a matrix; see [`Submatrix`].
    ///
    /// # Errors
    /// If the matrix has fewer.
    pub fn submatrix(&mut self, x: &Var, dims: [usize; 2]) -> Result<Var> {
        self.apply(Submatrix { dims }, &[x])
    }
}

pub(super) fn suite() -> Suite {
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
