//! The first row of each sequence of a packed batch.

use super::dropout::{check_rows, random_packing};
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::Device;
use crate::tensor::{Packing, Tensor, take, zeroed};
use crate::{Result, dispatch};
use std::rc::Rc;
use std::sync::Arc;

/// `y[b] = x[first row of sequence b]`: the `[CLS]` rows. x `[T, d]`, y `[B, d]`. dx is dy in those rows, 0 elsewhere.
pub struct SelectRows {
    /// How the rows lie.
    pub packing: Arc<Packing>,
}

impl Op for SelectRows {
    fn name(&self) -> &'static str {
        "select_rows"
    }

    fn forward(&self, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        let (x, d, batch) = (inputs[0], inputs[0].shape().cols(), self.packing.sequences());
        check_rows("select_rows", x, &self.packing)?;
        dispatch!("select_rows", x.dtype(), T => {
            let from = x.host::<T>()?;
            let mut y = take::<T>(batch * d);
            for (y, &first) in y.chunks_exact_mut(d).zip(self.packing.offsets()) {
                y.copy_from_slice(&from[first * d..][..d]);
            }
            Tensor::new(y, [batch, d])
        })
    }

    fn backward(&self, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let d = dy.shape().cols();
        dispatch!("select_rows", dy.dtype(), T => {
            let mut dx = zeroed::<T>(self.packing.tokens() * d);
            for (dy, &first) in dy.host::<T>()?.chunks_exact(d).zip(self.packing.offsets()) {
                dx[first * d..][..d].copy_from_slice(dy);
            }
            Ok(vec![Some(Tensor::new(dx, [self.packing.tokens(), d])?)])
        })
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        check_rows("select_rows", inputs[0], &self.packing)?;
        super::cuda::select_rows(device, inputs[0], &self.packing)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(super::cuda::select_rows_backward(device, &dy, &self.packing)?)])
    }
}

impl Tape<'_> {
    /// The first row of each sequence; see [`SelectRows`].
    ///
    /// # Errors
    /// If x does not have one row per token.
    pub fn select_rows(&mut self, x: &Var, packing: &Arc<Packing>) -> Result<Var> {
        self.apply(SelectRows { packing: packing.clone() }, &[x])
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "SelectRows",
        tolerance: 1e-8,
        case: |random| {
            let (packing, d) = (random_packing(random, 4)?, random_size(random, 5));
            let x = random_tensor(random, &[packing.tokens(), d])?;
            Ok(Case { op: Rc::new(SelectRows { packing }), inputs: vec![x] })
        },
    }
}
