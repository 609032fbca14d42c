//! Device memory that goes back to the pool of its device when it is dropped.

use super::Device;
use crate::Result;
use std::sync::Arc;

/// Bytes on a device.
pub struct Buffer {
    device: Arc<Device>,
    address: u64,
    bytes: usize,
    /// The size of the part that the pool gave: at least `bytes`.
    capacity: usize,
}

impl Buffer {
    /// `bytes` bytes with arbitrary values.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn take(device: &Arc<Device>, bytes: usize) -> Result<Buffer> {
        let (address, capacity) = device.take_memory(bytes)?;
        Ok(Buffer { device: device.clone(), address, bytes, capacity })
    }

    /// `bytes` zero bytes.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn zeroed(device: &Arc<Device>, bytes: usize) -> Result<Buffer> {
        let buffer = Buffer::take(device, bytes)?;
        device.clear(&buffer)?;
        Ok(buffer)
    }

    /// A copy of host memory.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn upload(device: &Arc<Device>, bytes: &[u8]) -> Result<Buffer> {
        let buffer = Buffer::take(device, bytes.len())?;
        device.upload(bytes, &buffer)?;
        Ok(buffer)
    }

    /// A copy of `bytes` bytes of another buffer, from byte `offset` on.
    ///
    /// # Errors
    /// If the other buffer is too short, or the device has no more memory.
    pub fn copy(from: &Buffer, offset: usize, bytes: usize) -> Result<Buffer> {
        let buffer = Buffer::take(&from.device, bytes)?;
        from.device.copy(from, offset, &buffer)?;
        Ok(buffer)
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The address on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.device.give_memory(self.address, self.capacity);
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Buffer({} bytes on {})", self.bytes, self.device.name())
    }
}
