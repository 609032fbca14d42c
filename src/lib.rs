//! lowrank
pub mod autograd;
pub mod error;
pub mod tensor;
pub use error::{AtLayer, Error, Result};
