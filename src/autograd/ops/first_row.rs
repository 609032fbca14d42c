//! The first row of each sequence of a packed batch.

use super::dropout::check_rows;
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Sequences, Tensor, alloc, on_device, zeroed};
use crate::{Result, dispatch};
use std::sync::Arc;

/// `y[b] = x[offsets[b]]`, the row of `[CLS]`; x `[T, d]`, packed, y `[B, d]`. `dx[offsets[b]] = dy[b]`, and dx is 0 in all other rows.
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
        on_device!(
            x,
            |device| launch::first_row(device, x, &self.sequences),
            dispatch!("first_row", x.dtype(), T => {
                let (x, mut y) = (x.host::<T>()?, alloc::<T>(batch * d));
                for b in 0..batch {
                    y[b * d..][..d].copy_from_slice(&x[self.sequences.offsets()[b] * d..][..d]);
                }
                Tensor::new(y, [batch, d])
            })
        )
    }

    fn backward(&self, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (d, batch, tokens) = (dy.shape().cols(), self.sequences.count(), self.sequences.tokens());
        let dx = on_device!(
            dy,
            |device| launch::first_row_backward(device, &dy, &self.sequences),
            dispatch!("first_row", dy.dtype(), T => {
                let (dy, mut dx) = (dy.host::<T>()?, zeroed::<T>(tokens * d));
                for b in 0..batch {
                    dx[self.sequences.offsets()[b] * d..][..d].copy_from_slice(&dy[b * d..][..d]);
                }
                Tensor::new(dx, [tokens, d])
            })
        )?;
        Ok(vec![Some(dx)])
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
