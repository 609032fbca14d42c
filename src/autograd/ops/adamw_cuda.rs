//! The optimizer's update on a GPU: `kernels/adamw.cu`. No op, as nothing differentiates it; it stands here beside the other launches.

use crate::Result;
use crate::cuda::{Argument, Device};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Updates a parameter and its moments in place: nothing else may read them. The constants are clip, β₁, β₂, 1 − β₁, 1 − β₂, shrink, rate, root and
/// eps, as `kernels/adamw.cu` names them.
///
/// # Errors
/// If a tensor is not on the device.
pub fn adamw(device: &Arc<Device>, [value, m, v, g]: [&Tensor; 4], constants: [f64; 9]) -> Result<()> {
    let n = value.shape().len();
    let mut arguments = [value, m, v, g].iter().map(|t| t.argument()).collect::<Result<Vec<_>>>()?;
    arguments.push(Argument::U64(n as u64));
    arguments.extend(constants.map(|c| Argument::F32(c as f32)));
    device.launch("adamw", [n.div_ceil(256), 1, 1], 256, 0, &arguments)
}
