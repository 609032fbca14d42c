//! Kernels over the rows of a packed batch: dropout, and the first row of each sequence.

use super::{dropped, launch, rows_of_warps, size};
use crate::Result;
use crate::cuda::Device;
use crate::tensor::{Mask, Sequences, Tensor};
use std::sync::Arc;

/// f ⊙ x of packed rows, f the factors of dropout.
pub(crate) fn mask_rows(device: &Arc<Device>, mask: &Mask, sequences: &Sequences, x: &Tensor) -> Result<Tensor> {
    let (rows, cols) = (x.shape().rows(), x.shape().cols());
    let y = Tensor::empty_on(device, x.dtype(), x.shape())?;
    let mut arguments = vec![x.argument()?, y.argument()?];
    arguments.extend(dropped(device, Some((mask, sequences)), &[rows, cols])?);
    launch(device, "dropout", "dropout", x.dtype(), rows_of_warps(rows), &arguments)?;
    Ok(y)
}

/// `y[b] = x[offsets[b]]`, the first row of each sequence.
pub(crate) fn first_row(device: &Arc<Device>, x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    let (b, cols) = (sequences.count(), x.shape().cols());
    let y = Tensor::empty_on(device, x.dtype(), [b, cols])?;
    let arguments = [x.argument()?, y.argument()?, sequences.on(device)?.offsets.argument()?, size(cols)];
    launch(device, "first_row", "first_row_forward", x.dtype(), [b, 1, 1], &arguments)?;
    Ok(y)
}

/// Its gradient: dy in those rows, 0 elsewhere.
pub(crate) fn first_row_backward(device: &Arc<Device>, dy: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    let cols = dy.shape().cols();
    let dx = Tensor::zeros_on(device, dy.dtype(), [sequences.tokens(), cols])?;
    let arguments = [dy.argument()?, dx.argument()?, sequences.on(device)?.offsets.argument()?, size(cols)];
    launch(device, "first_row", "first_row_backward", dy.dtype(), [sequences.count(), 1, 1], &arguments)?;
    Ok(dx)
}
