//! [`Subspace`](super::Subspace) on a GPU: a dense P by cuBLAS, a Fastfood one by a kernel.

use super::subspace::{Form, Projection};
use crate::cuda::launch::{cast, column_sums, count, of_either, size};
use crate::cuda::{Argument, Buffer, Device};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// What a projection draws, on a device.
pub(super) enum OnDevice {
    Dense(Tensor),
    Fastfood { signs: Buffer, permutation: Buffer, gauss: Buffer },
}

impl Projection {
    /// Its draws on a device, copied there when first asked for.
    fn on(&self, device: &Arc<Device>) -> Result<&OnDevice> {
        if let Some(found) = self.on_device.get() {
            return Ok(found);
        }
        let new = match &self.form {
            Form::Dense { d, elements } => OnDevice::Dense(Tensor::new(elements.clone(), [elements.len() / d, *d])?.to_device(device)?),
            Form::Fastfood { signs, permutation, gauss, .. } => OnDevice::Fastfood {
                signs: Buffer::upload(device, signs.as_bytes())?,
                permutation: Buffer::upload(device, permutation.as_bytes())?,
                gauss: Buffer::upload(device, gauss.as_bytes())?,
            },
        };
        Ok(self.on_device.get_or_init(|| new))
    }

    /// origin + P z, f32.
    pub(super) fn image_on(&self, device: &Arc<Device>, origin: &Tensor, z: &Tensor) -> Result<Tensor> {
        match self.on(device)? {
            OnDevice::Dense(p) => {
                let mut y = cast(device, origin, DType::F32)?;
                y.own_on(device)?;
                let [n, d] = self.dims();
                device.gemm(1.0, p.matrix()?, z.reshape([d, 1])?.matrix()?, 1.0, y.reshape([n, 1])?.matrix()?)?;
                Ok(y)
            }
            OnDevice::Fastfood { signs, permutation, gauss } => {
                let y = Tensor::empty_on(device, DType::F32, origin.shape())?;
                let [origin, is_bf16] = of_either("subspace", Some(origin))?;
                self.transform(device, "subspace_image", &[f32_of(z)?, origin, is_bf16, y.argument()?], [signs, permutation, gauss])?;
                Ok(y)
            }
        }
    }

    /// Pᵀ g, f32.
    pub(super) fn transposed_on(&self, device: &Arc<Device>, g: &Tensor) -> Result<Tensor> {
        let [n, d] = self.dims();
        match self.on(device)? {
            OnDevice::Dense(p) => {
                let z = Tensor::empty_on(device, DType::F32, [d])?;
                device.gemm(1.0, p.matrix()?.t(), g.reshape([n, 1])?.matrix()?, 0.0, z.reshape([d, 1])?.matrix()?)?;
                Ok(z)
            }
            OnDevice::Fastfood { signs, permutation, gauss } => {
                let parts = Tensor::empty_on(device, DType::F32, [self.blocks(), d])?;
                self.transform(device, "subspace_transposed", &[f32_of(g)?, parts.argument()?], [signs, permutation, gauss])?;
                column_sums(device, &parts, None, None)
            }
        }
    }

    /// Blocks of a Fastfood P.
    fn blocks(&self) -> usize {
        let [n, d] = self.dims();
        n.div_ceil(d.next_power_of_two())
    }

    fn transform(&self, device: &Arc<Device>, kernel: &'static str, first: &[Argument], draws: [&Buffer; 3]) -> Result<()> {
        let [n, d] = self.dims();
        let block = d.next_power_of_two();
        let scratch = Tensor::empty_on(device, DType::F32, [self.blocks(), 2, block])?;
        let mut arguments = first.to_vec();
        arguments.extend(draws.map(|buffer| Argument::Address(buffer.address())));
        arguments.extend([scratch.argument()?, count(n), size(d), size(block), Argument::F32(self.scale() as f32)]);
        device.launch(kernel, [self.blocks(), 1, 1], 256, 0, &arguments)
    }
}

/// A tensor that the kernels read as f32.
fn f32_of(tensor: &Tensor) -> Result<Argument> {
    match tensor.dtype() {
        DType::F32 => tensor.argument(),
        other => Err(Error::dtype("subspace", "f32 on a GPU", &[other])),
    }
}
