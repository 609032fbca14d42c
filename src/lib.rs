//! lowrank
pub mod data;
pub mod error;
pub mod tensor;
#[cfg(test)]
mod testing;
pub use error::{AtLayer, Error, Result};
