//! Cross-entropy.

use super::size;
use crate::cuda::{Argument, Device};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// Cross-entropy of logits `[B, C]` f32, and its gradient if `dloss` is given.
pub(crate) fn cross_entropy(device: &Arc<Device>, z: &Tensor, labels: &Tensor, divisor: usize, dloss: Option<&Tensor>) -> Result<Tensor> {
    let labels = labels.to_device(device)?;
    let sizes = [size(z.shape().rows()), size(z.shape().cols()), Argument::F32(divisor as f32)];
    if z.dtype() != DType::F32 {
        return Err(Error::dtype("cross_entropy", "f32 logits on a GPU", &[z.dtype()]));
    }
    let (name, y, mut arguments) = match dloss {
        None => ("cross_entropy_forward", Tensor::empty_on(device, DType::F32, [1])?, vec![z.argument()?, labels.argument()?]),
        Some(d) => {
            let arguments = vec![z.argument()?, labels.argument()?, d.argument()?];
            ("cross_entropy_backward", Tensor::empty_on(device, DType::F32, z.shape())?, arguments)
        }
    };
    arguments.push(y.argument()?);
    arguments.extend(sizes);
    device.launch(name, [1, 1, 1], 256, 0, &arguments)?;
    Ok(y)
}
