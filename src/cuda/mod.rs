//! NVIDIA GPUs: a device with its memory, its kernels, cuBLAS and cuBLASLt. All but `launch` knows buffers, not tensors.
//!
//! Nothing is linked. The driver and NVIDIA's libraries are loaded when a device is opened, and an error says what is missing. All work goes to
//! one stream and runs in order, so freed memory can be used again at once.

mod buffer;
mod context;
mod cublas_lt;
mod device;
mod gemm;
mod kernels;
pub mod launch;
mod memory;
mod nvrtc;
mod pool;
mod staging;

pub use buffer::Buffer;
pub use cublas_sys::DataType;
pub use device::Device;
pub use gemm::Matrix;
pub use kernels::Argument;
