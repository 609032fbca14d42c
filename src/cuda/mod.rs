//! NVIDIA GPUs: a device with its memory pool, cuBLAS and cuBLASLt, and the one place that launches kernels. Knows buffers, not tensors.
//!
//! Nothing is linked: the driver and NVIDIA's libraries are found when a device is opened, and what is missing is said in a sentence. All work goes to one stream,
//! in order, so that memory given back can be used again at once.

mod buffer;
mod cublas_lt;
mod device;
mod gemm;
pub mod launch;
mod nvrtc;
mod pool;

pub use buffer::Buffer;
pub use cublas_sys::DataType;
pub use device::{Argument, Device};
pub use gemm::Matrix;
