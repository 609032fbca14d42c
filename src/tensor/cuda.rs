//! Tensors in the memory of a GPU.

use super::device_sequences::DeviceSequences;
use super::{DType, Place, Sequences, Shape, Storage, Tensor, alloc, dispatch_any};
use crate::cuda::{Argument, Buffer, DataType, Device, Matrix};
use crate::{Error, Result};
use std::sync::Arc;
use zerocopy::IntoBytes;

impl Tensor {
    /// A tensor of all bytes of a buffer.
    fn of_buffer(buffer: Buffer, dtype: DType, shape: Shape) -> Tensor {
        Tensor::whole(Storage { dtype, bytes: buffer.bytes(), place: Place::Cuda(buffer) }, shape)
    }

    /// The buffer that contains the elements; `None` if they are on the host.
    fn buffer(&self) -> Option<&Buffer> {
        if let Place::Cuda(buffer) = &self.storage.place { Some(buffer) } else { None }
    }

    /// A tensor on a GPU whose elements have arbitrary values.
    ///
    /// # Errors
    /// If the GPU has no more memory.
    pub fn empty_on(device: &Arc<Device>, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        Ok(Tensor::of_buffer(Buffer::take(device, shape.len() * dtype.size())?, dtype, shape))
    }

    /// A tensor of zeros on a GPU.
    ///
    /// # Errors
    /// If the GPU has no more memory.
    pub fn zeros_on(device: &Arc<Device>, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        Ok(Tensor::of_buffer(Buffer::zeroed(device, shape.len() * dtype.size())?, dtype, shape))
    }

    /// The GPU that contains the elements; `None` if they are on the host.
    pub fn device(&self) -> Option<&Arc<Device>> {
        self.buffer().map(Buffer::device)
    }

    /// The same elements on a GPU. No copy is made if they are there.
    ///
    /// # Errors
    /// If the GPU has no more memory.
    pub fn to_device(&self, device: &Arc<Device>) -> Result<Tensor> {
        if self.device().is_some_and(|own| own.ordinal() == device.ordinal()) {
            return Ok(self.clone());
        }
        let host = self.to_host()?;
        let buffer = dispatch_any!(self.dtype(), T => Buffer::upload(device, host.host::<T>()?.as_bytes()))?;
        Ok(Tensor::of_buffer(buffer, self.dtype(), self.shape.clone()))
    }

    /// Moves the elements to memory of a GPU that no other tensor shares, so that a kernel may change them in place. On an error the tensor is
    /// unchanged.
    ///
    /// # Errors
    /// If the GPU has no more memory.
    pub(crate) fn own_on(&mut self, device: &Arc<Device>) -> Result<()> {
        *self = self.to_device(device)?;
        if let Some(buffer) = self.buffer().filter(|_| Arc::strong_count(&self.storage) > 1) {
            let own = buffer.copy(self.offset * self.dtype().size(), self.bytes())?;
            *self = Tensor::of_buffer(own, self.dtype(), self.shape.clone());
        }
        Ok(())
    }

    /// The same elements in host memory. Waits for the device.
    pub(super) fn download(&self) -> Result<Tensor> {
        let Some(buffer) = self.buffer() else { return Ok(self.clone()) };
        dispatch_any!(self.dtype(), T => {
            let mut values = alloc::<T>(self.shape.len());
            buffer.download(self.offset * size_of::<T>(), values.as_mut_bytes())?;
            Tensor::new(values, &self.shape)
        })
    }

    /// A copy of the elements of several tensors of one type on one GPU, one after another: `[n]`.
    ///
    /// # Errors
    /// If there is none, the types differ, one is not on a GPU, or that has no more memory.
    pub(crate) fn joined_on_device(tensors: &[Tensor]) -> Result<Tensor> {
        let dtypes: Vec<DType> = tensors.iter().map(Tensor::dtype).collect();
        let Some(&dtype) = dtypes.first().filter(|&first| dtypes.iter().all(|other| other == first)) else {
            return Err(Error::dtype("joined", "one type", &dtypes));
        };
        let parts: Vec<_> = tensors.iter().filter_map(|t| Some((t.buffer()?, t.offset * dtype.size(), t.bytes()))).collect();
        if parts.len() != tensors.len() {
            return Err(Error::invalid("joined: a tensor is on the host"));
        }
        Ok(Tensor::of_buffer(Buffer::joined(&parts)?, dtype, [tensors.iter().map(|t| t.shape().len()).sum::<usize>()].into()))
    }

    /// The address of the first element, as an argument of a kernel.
    ///
    /// # Errors
    /// If the tensor is on the host.
    pub fn argument(&self) -> Result<Argument> {
        Ok(Argument::Address(self.address()?))
    }

    /// The address of the first element on the GPU.
    ///
    /// # Errors
    /// If the tensor is on the host.
    pub fn address(&self) -> Result<u64> {
        let buffer = self.buffer().ok_or_else(|| Error::invalid(format!("{self:?} is on the host, and a GPU should read it")))?;
        Ok(buffer.address() + (self.offset * self.dtype().size()) as u64)
    }

    /// The tensor `[.., cols]` as a matrix for cuBLAS.
    ///
    /// # Errors
    /// If the tensor is on the host, or neither f32 nor bf16.
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

/// Copies several arrays of u32 to a GPU in one transfer. Each becomes a tensor `[n]`.
///
/// # Errors
/// If the GPU has no more memory.
pub fn upload_together<const N: usize>(device: &Arc<Device>, arrays: [&[u32]; N]) -> Result<[Tensor; N]> {
    let whole = Tensor::new(arrays.concat(), [arrays.iter().map(|a| a.len()).sum::<usize>()])?.to_device(device)?;
    let mut offset = 0;
    Ok(arrays.map(|array| {
        let part = Tensor { shape: [array.len()].into(), storage: whole.storage.clone(), offset };
        offset += array.len();
        part
    }))
}

impl Sequences {
    /// The arrays on a GPU. The first call copies them there.
    ///
    /// # Errors
    /// If the GPU has no more memory.
    pub fn on(&self, device: &Arc<Device>) -> Result<&DeviceSequences> {
        if let Some(found) = self.device_copy.get() {
            return Ok(found);
        }
        let offsets: Vec<u32> = self.offsets().iter().map(|&o| o as u32).collect();
        let rows: Vec<u32> = (0..self.count()).flat_map(|b| std::iter::repeat_n(b as u32, self.length(b))).collect();
        let [offsets, row_sequence, examples] = upload_together(device, [&offsets, &rows, self.example_ids()])?;
        let arrays = DeviceSequences { offsets, row_sequence, examples };
        Ok(self.device_copy.get_or_init(|| arrays))
    }
}
