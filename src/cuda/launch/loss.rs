//! Cross-entropy.

use super::size;
use crate::cuda::{Argument, Device};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// Cross-entropy of logits z `[B, C]` f32: one element. With dL, its gradient dz.
pub(crate) fn cross_entropy(device: &Arc<Device>, z: &Tensor, labels: &Tensor, divisor: f64, dloss: Option<&Tensor>) -> Result<Tensor> {
    if z.dtype() != DType::F32 {
        return Err(Error::dtype("cross_entropy", "f32 logits on a GPU", &[z.dtype()]));
    }
    let labels = labels.to_device(device)?;
    let mut arguments = vec![z.argument()?, labels.argument()?];
    let (name, shape) = match dloss {
        Some(dloss) => {
            arguments.push(dloss.argument()?);
            ("cross_entropy_backward", z.shape().clone())
        }
        None => ("cross_entropy_forward", [1].into()),
    };
    let y = Tensor::empty_on(device, DType::F32, shape)?;
    arguments.extend([y.argument()?, size(z.shape().rows()), size(z.shape().cols()), Argument::F32(divisor as f32)]);
    device.launch(name, [1, 1, 1], 256, 0, &arguments)?;
    Ok(y)
}
