//! A model as an ONNX file, which other programs run. <https://github.com/onnx/onnx/blob/main/docs/IR.md>
//!
//! ```text
//! proto ──► graph ──► model
//! ```

mod graph;
mod model;
mod proto;
#[cfg(test)]
mod tests;

pub use model::encode;
