//! lowrank
pub mod autograd;
pub mod error;
pub mod lora;
pub mod nn;
pub mod tensor;
#[cfg(test)]
mod testing;
pub mod train;
pub use error::{AtLayer, Error, Result};
