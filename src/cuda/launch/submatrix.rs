//! Launches of `submatrix.cu`.

use super::{blocks, launch, size};
use crate::Result;
use crate::cuda::Device;
use crate::tensor::Tensor;
use std::sync::Arc;

/// The first m rows and n columns of x: `[m, n]`.
pub(crate) fn submatrix(device: &Arc<Device>, x: &Tensor, [m, n]: [usize; 2]) -> Result<Tensor> {
    let y = Tensor::empty_on(device, x.dtype(), [m, n])?;
    let arguments = [x.argument()?, y.argument()?, size(m), size(n), size(x.shape().cols())];
    launch(device, "submatrix", "submatrix_forward", x.dtype(), blocks(m * n), &arguments)?;
    Ok(y)
}

/// Its backward: dx, shaped like x.
pub(crate) fn submatrix_backward(device: &Arc<Device>, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (rows, cols) = (x.shape().rows(), x.shape().cols());
    let dx = Tensor::empty_on(device, dy.dtype(), x.shape())?;
    let arguments = [dy.argument()?, dx.argument()?, size(rows), size(cols), size(dy.shape().rows()), size(dy.shape().cols())];
    launch(device, "submatrix", "submatrix_backward", dy.dtype(), blocks(rows * cols), &arguments)?;
    Ok(dx)
}
