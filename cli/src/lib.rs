//! The program `lowrank`, which uses the engine of the same name. [`commands`] parses arguments and prints; [`study`] runs the configurations of
//! the IMDB study and reports on them; [`hub`] downloads models and data; `onnx` writes a model for other programs; [`folder`]
//! writes folders of results; [`lost`] watches mapped files.
//!
//! ```text
//! lowrank (the engine) ─► lost ─► folder ─► hub · onnx · study ─► commands        ("is used by"; nothing points back)
//! ```

pub mod commands;
pub mod folder;
pub mod hub;
pub mod lost;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod study;
