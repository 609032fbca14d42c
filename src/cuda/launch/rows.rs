//! Kernels over the rows of a packed batch: dropout, and the first row of each sequence.

use super::{blocks, dropped, named, size};
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
    device.launch(named("dropout", x.dtype(), ["dropout_f32", "dropout_bf16"])?, blocks(rows * cols.div_ceil(4)), 256, 0, &arguments)?;
    Ok(y)
}

/// `y[b] = x[offsets[b]]`, the first row of each sequence.
pub(crate) fn first_row(device: &Arc<Device>, x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    let (b, cols) = (sequences.count(), x.shape().cols());
    let y = Tensor::empty_on(device, x.dtype(), [b, cols])?;
    let arguments = [x.argument()?, y.argument()?, sequences.on(device)?.offsets.argument()?, size(cols)];
    let name = named("first_row", x.dtype(), ["first_row_forward_f32", "first_row_forward_bf16"])?;
    device.launch(name, [b, 1, 1], 256, 0, &arguments)?;
    Ok(y)
}

/// Its gradient: dy in those rows, 0 elsewhere.
pub(crate) fn first_row_backward(device: &Arc<Device>, dy: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    let cols = dy.shape().cols();
    let dx = Tensor::zeros_on(device, dy.dtype(), [sequences.tokens(), cols])?;
    let arguments = [dy.argument()?, dx.argument()?, sequences.on(device)?.offsets.argument()?, size(cols)];
    let name = named("first_row", dy.dtype(), ["first_row_backward_f32", "first_row_backward_bf16"])?;
    device.launch(name, [sequences.count(), 1, 1], 256, 0, &arguments)?;
    Ok(dx)
}
