//! Launches of `magnitude.cu`: DoRA's scaling by m / n, and the row norms n.

use super::{cast, launch, or_null, rows_of_warps, size, tiles};
use crate::Result;
use crate::cuda::Device;
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// y = x ∘ m / norms + b. x, y `[T, d]`; m, norms, b `[d]`.
pub(crate) fn magnitude(device: &Arc<Device>, x: &Tensor, m: &Tensor, norms: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (y, m) = (Tensor::empty_on(device, x.dtype(), x.shape())?, cast(device, m, DType::F32)?);
    let b = b.map(|b| cast(device, b, DType::F32)).transpose()?;
    let mut arguments = vec![x.argument()?, m.argument()?, norms.argument()?, or_null(b.as_ref())?, y.argument()?];
    let (rows, cols) = (x.shape().rows(), x.shape().cols());
    arguments.extend([size(rows), size(cols)]);
    launch(device, "magnitude", "magnitude", x.dtype(), tiles(rows, cols), &arguments)?;
    Ok(y)
}

/// ‖W + s B A‖ of each row: `[out]` f32.
///
/// # Errors
/// If a tensor is not on the device, or the shapes do not fit.
pub fn row_norms(device: &Arc<Device>, w: &Tensor, a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor> {
    let mut sum = cast(device, w, DType::F32)?;
    sum.own_on(device)?;
    let [a, b] = [cast(device, a, DType::F32)?, cast(device, b, DType::F32)?];
    device.gemm(scale as f32, b.matrix()?, a.matrix()?, 1.0, sum.matrix()?)?;
    let (rows, cols) = (sum.shape().rows(), sum.shape().cols());
    let norms = Tensor::empty_on(device, DType::F32, [rows])?;
    let arguments = [sum.argument()?, norms.argument()?, size(rows), size(cols)];
    device.launch("row_norms", rows_of_warps(rows), 256, 0, &arguments)?;
    Ok(norms)
}
