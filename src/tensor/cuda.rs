//! Tensors on a GPU.

use super::{DType, Element, Sequences, Shape, Storage, Tensor};
use crate::cuda::{Argument, Buffer, DataType, Device, Matrix};
use crate::{Error, Result};
use half::{bf16, f16};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// Device memory of one element type.
#[derive(Debug)]
pub struct OnDevice {
    pub(super) buffer: Buffer,
    pub(super) dtype: DType,
}

impl Tensor {
    /// A device tensor of `dtype`, not filled.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn empty_on(device: &Arc<Device>, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let buffer = Buffer::take(device, shape.len() * dtype.size())?;
        Ok(Tensor { shape, storage: Arc::new(Storage::Cuda(OnDevice { buffer, dtype })), offset: 0 })
    }

    /// A device tensor of zeros.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn zeros_on(device: &Arc<Device>, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let buffer = Buffer::zeroed(device, shape.len() * dtype.size())?;
        Ok(Tensor { shape, storage: Arc::new(Storage::Cuda(OnDevice { buffer, dtype })), offset: 0 })
    }

    /// The device it is on, if it is not on the host.
    pub fn device(&self) -> Option<&Arc<Device>> {
        match &*self.storage {
            Storage::Cuda(c) => Some(c.buffer.device()),
            _ => None,
        }
    }

    /// The same elements on a device. Without a copy if they are there.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn to_device(&self, device: &Arc<Device>) -> Result<Tensor> {
        if self.device().is_some_and(|own| own.ordinal() == device.ordinal()) {
            return Ok(self.clone());
        }
        let host = self.to_host()?;
        let bytes = match self.dtype() {
            DType::F32 => host.host::<f32>()?.as_bytes(),
            DType::F64 => host.host::<f64>()?.as_bytes(),
            DType::BF16 => host.host::<bf16>()?.as_bytes(),
            DType::F16 => host.host::<f16>()?.as_bytes(),
            DType::U32 => host.host::<u32>()?.as_bytes(),
        };
        let buffer = Buffer::upload(device, bytes)?;
        Ok(Tensor { shape: self.shape.clone(), storage: Arc::new(Storage::Cuda(OnDevice { buffer, dtype: self.dtype() })), offset: 0 })
    }

    /// Moves it to memory on a device that nothing else shares, to be changed in place. It is what it was if that fails.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub(crate) fn own_on(&mut self, device: &Arc<Device>) -> Result<()> {
        *self = self.to_device(device)?;
        let Storage::Cuda(c) = &*self.storage else { return Err(Error::invalid(format!("{self:?} is not on the GPU"))) };
        if Arc::strong_count(&self.storage) > 1 {
            let buffer = Buffer::copy(&c.buffer, self.offset * c.dtype.size(), self.shape.len() * c.dtype.size())?;
            let storage = Arc::new(Storage::Cuda(OnDevice { buffer, dtype: c.dtype }));
            (self.storage, self.offset) = (storage, 0);
        }
        Ok(())
    }

    /// The same elements on the host; waits for the device.
    pub(super) fn download(&self) -> Result<Tensor> {
        let Storage::Cuda(c) = &*self.storage else { return Ok(self.clone()) };
        fn read<T: Element + zerocopy::IntoBytes>(c: &OnDevice, offset: usize, shape: &Shape) -> Result<Tensor> {
            let mut values = super::alloc::<T>(shape.len());
            c.buffer.device().download(&c.buffer, offset * size_of::<T>(), values.as_mut_bytes())?;
            Tensor::new(values, shape)
        }
        match c.dtype {
            DType::F32 => read::<f32>(c, self.offset, &self.shape),
            DType::F64 => read::<f64>(c, self.offset, &self.shape),
            DType::BF16 => read::<bf16>(c, self.offset, &self.shape),
            DType::F16 => read::<f16>(c, self.offset, &self.shape),
            DType::U32 => read::<u32>(c, self.offset, &self.shape),
        }
    }

    /// Its first element as a kernel's argument.
    ///
    /// # Errors
    /// If it is on the host.
    pub fn argument(&self) -> Result<Argument> {
        Ok(Argument::Address(self.address()?))
    }

    /// Where its first element lies on the device.
    ///
    /// # Errors
    /// If it is on the host.
    pub fn address(&self) -> Result<u64> {
        match &*self.storage {
            Storage::Cuda(c) => Ok(c.buffer.address() + (self.offset * c.dtype.size()) as u64),
            _ => Err(Error::invalid(format!("{self:?} is on the host, and a GPU should read it"))),
        }
    }

    /// Its rows as a matrix for cuBLAS.
    ///
    /// # Errors
    /// If it is on the host, or neither f32 nor bf16.
    pub fn matrix(&self) -> Result<Matrix> {
        let dtype = match self.dtype() {
            DType::F32 => DataType::F32,
            DType::BF16 => DataType::BF16,
            other => return Err(Error::dtype("matrix on a GPU", "f32 or bf16", &[other])),
        };
        let dims = [self.shape.rows(), self.shape.cols()];
        Ok(Matrix { address: self.address()?, dtype, dims, stride: dims[1], transposed: false })
    }
}

/// Arrays of u32 that are copied to a device at once: `[n]` each.
///
/// # Errors
/// If the device has no more memory.
pub fn upload_together<const N: usize>(device: &Arc<Device>, arrays: [&[u32]; N]) -> Result<[Tensor; N]> {
    let whole = Tensor::new(arrays.concat(), [arrays.iter().map(|a| a.len()).sum::<usize>()])?.to_device(device)?;
    let mut offset = 0;
    Ok(arrays.map(|array| {
        let part = Tensor { shape: [array.len()].into(), storage: whole.storage.clone(), offset };
        offset += array.len();
        part
    }))
}

/// How the sequences of a batch lie, for kernels.
#[derive(Debug)]
pub struct DeviceSequences {
    /// First row of each sequence, and T: `[B + 1]` u32.
    pub offsets: Tensor,
    /// The sequence of each row: `[T]` u32.
    pub row_sequence: Tensor,
    /// The ordinal of each sequence in the run: `[B]` u32.
    pub examples: Tensor,
}

impl Sequences {
    /// Its arrays on a device, copied there when first asked for.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn on(&self, device: &Arc<Device>) -> Result<&DeviceSequences> {
        if let Some(found) = self.on_device.get() {
            return Ok(found);
        }
        let offsets: Vec<u32> = self.offsets().iter().map(|&o| o as u32).collect();
        let rows: Vec<u32> = (0..self.count()).flat_map(|b| std::iter::repeat_n(b as u32, self.length(b))).collect();
        let [offsets, row_sequence, examples] = upload_together(device, [&offsets, &rows, self.example_ids()])?;
        let arrays = DeviceSequences { offsets, row_sequence, examples };
        Ok(self.on_device.get_or_init(|| arrays))
    }
}
