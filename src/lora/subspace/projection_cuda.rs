//! The random matrix P of a subspace on a GPU: a dense P is multiplied by cuBLAS, a Fastfood P by the kernels of `subspace.cu`.

use crate::cuda::launch::{cast, column_sums, count, of_either, size};
use crate::cuda::{Argument, Buffer, Device};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// The random numbers of P.
pub(super) enum OnDevice {
    /// P `[n, d]`.
    Dense(Tensor),
    Fastfood {
        /// n and d.
        dims: [usize; 2],
        /// 1/√(S n).
        scale: f32,
        /// The diagonal of B, the permutation Π, and the diagonal of G.
        draws: [Buffer; 3],
    },
}

impl OnDevice {
    /// `draws` are the bytes of the diagonal of B, i8, of Π, u16, and of the diagonal of G, f32.
    pub fn fastfood(device: &Arc<Device>, dims: [usize; 2], scale: f64, [signs, permutation, gauss]: [&[u8]; 3]) -> Result<OnDevice> {
        let upload = |bytes| Buffer::upload(device, bytes);
        Ok(OnDevice::Fastfood { dims, scale: scale as f32, draws: [upload(signs)?, upload(permutation)?, upload(gauss)?] })
    }

    /// origin + P z, f32.
    pub fn image(&self, device: &Arc<Device>, origin: &Tensor, z: &Tensor) -> Result<Tensor> {
        let origin = if origin.dtype() == DType::BF16 { origin.clone() } else { origin.to_dtype(DType::F32)? };
        let origin = &origin.to_device(device)?;
        match self {
            OnDevice::Dense(p) => {
                let mut y = cast(device, origin, DType::F32)?;
                y.own_on(device)?;
                let (n, d) = (p.shape().rows(), p.shape().cols());
                device.gemm(1.0, p.matrix()?, z.reshape([d, 1])?.matrix()?, 1.0, y.reshape([n, 1])?.matrix()?)?;
                Ok(y)
            }
            OnDevice::Fastfood { dims, scale, draws } => {
                let y = Tensor::empty_on(device, DType::F32, origin.shape())?;
                let [origin, is_bf16] = of_either("subspace", Some(origin))?;
                transform(device, "subspace_image", &[f32_of(z)?, origin, is_bf16, y.argument()?], *dims, *scale, draws)?;
                Ok(y)
            }
        }
    }

    /// Pᵀ g, f32.
    pub fn transposed(&self, device: &Arc<Device>, g: &Tensor) -> Result<Tensor> {
        match self {
            OnDevice::Dense(p) => {
                let (n, d) = (p.shape().rows(), p.shape().cols());
                let z = Tensor::empty_on(device, DType::F32, [d])?;
                device.gemm(1.0, p.matrix()?.t(), g.reshape([n, 1])?.matrix()?, 0.0, z.reshape([d, 1])?.matrix()?)?;
                Ok(z)
            }
            OnDevice::Fastfood { dims, scale, draws } => {
                let parts = Tensor::empty_on(device, DType::F32, [blocks(*dims), dims[1]])?;
                transform(device, "subspace_transposed", &[f32_of(g)?, parts.argument()?], *dims, *scale, draws)?;
                column_sums(device, &parts, None, None)
            }
        }
    }
}

/// Number of blocks of a Fastfood P.
fn blocks([n, d]: [usize; 2]) -> usize {
    n.div_ceil(d.next_power_of_two())
}

/// Runs a kernel that computes one block of P in each group of threads.
fn transform(
    device: &Arc<Device>,
    kernel: &'static str,
    tensors: &[Argument],
    dims: [usize; 2],
    scale: f32,
    draws: &[Buffer; 3],
) -> Result<()> {
    let ([n, d], blocks) = (dims, blocks(dims));
    let block = d.next_power_of_two();
    let scratch = Tensor::empty_on(device, DType::F32, [blocks, 2, block])?;
    let mut arguments = tensors.to_vec();
    arguments.extend(draws.iter().map(|buffer| Argument::Address(buffer.address())));
    arguments.extend([scratch.argument()?, count(n), size(d), size(block), Argument::F32(scale)]);
    device.launch(kernel, [blocks, 1, 1], 256, 0, &arguments)
}

/// A tensor that the kernels read as f32.
fn f32_of(tensor: &Tensor) -> Result<Argument> {
    match tensor.dtype() {
        DType::F32 => tensor.argument(),
        other => Err(Error::dtype("subspace", "f32 on a GPU", &[other])),
    }
}
