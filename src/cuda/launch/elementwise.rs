//! Kernels that compute each element from the elements at the same place.

use super::{addresses, count, launch, octets};
use crate::cuda::{Argument, Device};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// y = kernel(inputs), all of one shape and type.
pub(crate) fn elementwise(device: &Arc<Device>, op: &'static str, kernel: &str, inputs: &[&Tensor]) -> Result<Tensor> {
    let x = inputs[0];
    if let Some(other) = inputs.iter().find(|t| t.shape() != x.shape() || t.dtype() != x.dtype()) {
        return Err(Error::shape(op, "equal shapes and types", &[x.shape(), other.shape()]));
    }
    each(device, op, kernel, inputs, &[])
}

/// c·x.
pub(crate) fn scaled(device: &Arc<Device>, x: &Tensor, c: f64) -> Result<Tensor> {
    each(device, "scale", "scale", &[x], &[Argument::F32(c as f32)])
}

/// y = kernel(inputs, settings).
fn each(device: &Arc<Device>, op: &'static str, kernel: &str, inputs: &[&Tensor], settings: &[Argument]) -> Result<Tensor> {
    let (x, n) = (inputs[0], inputs[0].shape().len());
    let y = Tensor::empty_on(device, x.dtype(), x.shape())?;
    let arguments = [&addresses(inputs)?[..], &[y.argument()?], settings, &[count(n)]].concat();
    launch(device, op, kernel, x.dtype(), octets(n), &arguments)?;
    Ok(y)
}

/// x in `dtype`; x itself if that is its type.
pub(crate) fn cast(device: &Arc<Device>, x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    let y = Tensor::empty_on(device, dtype, x.shape())?;
    cast_to(device, x, &y)?;
    Ok(y)
}

/// Writes x, converted to y's type, to y.
pub(crate) fn cast_to(device: &Arc<Device>, x: &Tensor, y: &Tensor) -> Result<()> {
    let n = x.shape().len();
    let name = match (x.dtype(), y.dtype()) {
        (DType::F32, DType::BF16) => "cast_f32_bf16",
        (DType::BF16, DType::F32) => "cast_bf16_f32",
        (from, to) => return Err(Error::dtype("cast", "f32 and bf16 on a GPU", &[from, to])),
    };
    device.launch(name, octets(n), 256, 0, &[x.argument()?, y.argument()?, count(n)])
}
