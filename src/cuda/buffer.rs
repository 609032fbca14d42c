//! Device memory that goes back to its device's pool when dropped.

use super::Device;
use crate::Result;
use std::sync::Arc;

/// Bytes on a device.
pub struct Buffer {
    device: Arc<Device>,
    address: u64,
    bytes: usize,
    /// What the pool gave, at least `bytes`.
    capacity: usize,
}

impl Buffer {
    /// `bytes` with arbitrary values.
    ///
    /// # Errors
    /// If the device has no more memory.
    pub fn take(device: &Arc<Device>, bytes: usize) -> Result<Buffer> {
        let (address, capacity) = device.take_memory(bytes)?;
        Ok(Buffer { device: device.clone(), address, bytes, capacity })
    }

    /// `bytes` zeros.
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

    /// A copy of `bytes` of another buffer from byte `offset` on.
    ///
    /// # Errors
    /// If that buffer is too short, or the device has no more memory.
    pub fn copy(from: &Buffer, offset: usize, bytes: usize) -> Result<Buffer> {
        let buffer = Buffer::take(&from.device, bytes)?;
        from.device.copy(from, offset, &buffer)?;
        Ok(buffer)
    }

    /// The device it is on.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Its address there.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size.
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
