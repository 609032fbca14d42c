//! The optimizer's update on a GPU: `kernels/adamw.cu`. No op, as nothing differentiates it; it stands here beside the other launches.

use crate::Result;
use crate::cuda::{Argument, Device};
use crate::tensor::Tensor;
use std::sync::Arc;

/// The constants of a step, as `kernels/adamw.cu` names them.
#[derive(Clone, Copy)]
#[allow(missing_docs)] // Letters of the formula.
pub struct AdamWStep {
    pub clip: f32,
    pub b1: f32,
    pub b2: f32,
    pub c1: f32,
    pub c2: f32,
    pub shrink: f32,
    pub rate: f32,
    pub root: f32,
    pub eps: f32,
}

/// Updates a parameter and its moments in place: nothing else may read them.
///
/// # Errors
/// If a tensor is not on the device.
pub fn adamw(device: &Arc<Device>, [value, m, v, g]: [&Tensor; 4], s: &AdamWStep) -> Result<()> {
    let n = value.shape().len();
    let mut arguments = [value, m, v, g].iter().map(|t| t.argument()).collect::<Result<Vec<_>>>()?;
    arguments.push(Argument::U64(n as u64));
    arguments.extend([s.clip, s.b1, s.b2, s.c1, s.c2, s.shrink, s.rate, s.root, s.eps].map(Argument::F32));
    device.launch("adamw", [n.div_ceil(256), 1, 1], 256, 0, &arguments)
}
