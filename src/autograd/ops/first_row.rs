//! The first row of each sequence of a packed batch.

use super::dropout::{check_rows, random_sequences};
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::{Sequences, Tensor, alloc, zeroed};
use crate::{Result, dispatch};
use std::rc::Rc;
use std::sync::Arc;

/// `y[b] = x[first row of sequence b]`: the `[CLS]` rows. x `[T, d]`, y `[B, d]`. dx is dy in those rows, 0 elsewhere.
pub struct FirstRow {
    /// Sequence boundaries of the packed batch.
    pub sequences: Arc<Sequences>,
}

impl Op for FirstRow {
    fn name(&self) -> &'static str {
        "first_row"
    }

    fn forward(&self, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        let (x, d, batch) = (inputs[0], inputs[0].shape().cols(), self.sequences.count());
        check_rows("first_row", x, &self.sequences)?;
        dispatch!("first_row", x.dtype(), T => {
            let from = x.host::<T>()?;
            let mut y = alloc::<T>(batch * d);
            for (y, &first) in y.chunks_exact_mut(d).zip(self.sequences.offsets()) {
                y.copy_from_slice(&from[first * d..][..d]);
            }
            Tensor::new(y, [batch, d])
        })
    }

    fn backward(&self, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let d = dy.shape().cols();
        dispatch!("first_row", dy.dtype(), T => {
            let mut dx = zeroed::<T>(self.sequences.tokens() * d);
            for (dy, &first) in dy.host::<T>()?.chunks_exact(d).zip(self.sequences.offsets()) {
                dx[first * d..][..d].copy_from_slice(dy);
            }
            Ok(vec![Some(Tensor::new(dx, [self.sequences.tokens(), d])?)])
        })
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        check_rows("first_row", inputs[0], &self.sequences)?;
        launch::first_row(device, inputs[0], &self.sequences)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(launch::first_row_backward(device, &dy, &self.sequences)?)])
    }
}

impl Tape<'_> {
    /// The first row of each sequence; see [`FirstRow`].
    ///
    /// # Errors
    /// If x does not have one row per token.
    pub fn first_row(&mut self, x: &Var, sequences: &Arc<Sequences>) -> Result<Var> {
        self.apply(FirstRow { sequences: sequences.clone() }, &[x])
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "FirstRow",
        tolerance: 1e-8,
        case: |random| {
            let (sequences, d) = (random_sequences(random, 4)?, random_size(random, 5));
            let x = random_tensor(random, &[sequences.tokens(), d])?;
            Ok(Case { op: Rc::new(FirstRow { sequences }), inputs: vec![x] })
        },
    }
}
