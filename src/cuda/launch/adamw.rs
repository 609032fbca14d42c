//! The optimizer's update on a GPU: `kernels/adamw.cu`.

use crate::cuda::{Argument, Buffer, Device};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// Elements of a block, as the kernels have it.
const CHUNK: usize = 4096;

/// A parameter, its moments and its gradient, all f32 on the device, and what its group makes of the learning rate.
pub struct Update {
    /// θ, m and v, which are changed in place: nothing else may read them.
    pub state: [Tensor; 3],
    /// The gradient.
    pub grad: Tensor,
    /// 1 − lr · decay.
    pub shrink: f64,
    /// lr / (1 − β₁ᵗ).
    pub rate: f64,
}

/// Updates all parameters, with gradients clipped to a global norm of `most`; returns that norm before clipping: `[1]` f64 on the device. `clip`
/// `[1]` f32 keeps the factor, or NaN once a norm was not finite: nothing is changed then. The constants are β₁, β₂, 1 − β₁, 1 − β₂, root and eps, as
/// `kernels/adamw.cu` names them.
///
/// # Errors
/// If a tensor is not f32 on the device, or the device has no more memory.
pub fn adamw(device: &Arc<Device>, updates: &[Update], clip: &Tensor, most: f64, constants: [f64; 6]) -> Result<Tensor> {
    let mut table: Vec<u64> = Vec::new();
    let mut blocks = 0;
    for Update { state: [value, m, v], grad, shrink, rate } in updates {
        for t in [value, m, v, grad] {
            if t.dtype() != DType::F32 {
                return Err(Error::dtype("adamw", "f32 on a GPU", &[t.dtype()]));
            }
            if t.shape() != value.shape() {
                return Err(Error::shape("adamw", "a gradient and moments of the parameter's shape", &[value.shape(), t.shape()]));
            }
            table.push(t.address()?);
        }
        let n = value.shape().len();
        let [shrink, rate] = [shrink, rate].map(|x| u64::from((*x as f32).to_bits()));
        table.extend([n as u64, blocks as u64, shrink | rate << 32]);
        blocks += n.div_ceil(CHUNK);
    }
    let entries = Buffer::upload(device, table.as_bytes())?;
    let (table, count) = (Argument::Address(entries.address()), Argument::U32(updates.len() as u32));
    let partial = Tensor::empty_on(device, DType::F64, [blocks])?;
    let norm = Tensor::empty_on(device, DType::F64, [1])?;
    device.launch("adamw_squares", [blocks, 1, 1], 256, 0, &[table, partial.argument()?, count])?;
    let arguments = [partial.argument()?, norm.argument()?, clip.argument()?, Argument::U32(blocks as u32), Argument::F32(most as f32)];
    device.launch("adamw_norm", [1, 1, 1], 256, 0, &arguments)?;
    let mut arguments = vec![table, clip.argument()?, count];
    arguments.extend(constants.map(|c| Argument::F32(c as f32)));
    device.launch("adamw_update", [blocks, 1, 1], 256, 0, &arguments)?;
    Ok(norm)
}
