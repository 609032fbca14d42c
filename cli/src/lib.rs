//! The program `lowrank`, which uses the engine of the same name. [`commands`] parses arguments and prints; [`study`] runs the
//! configurations of the IMDB study and reports on them; [`step`] explains one training step; `serve` answers over HTTP; [`hub`] downloads
//! models and data; `onnx` writes a model for other programs; [`table`] reads tables and writes them with answers; [`folder`] writes
//! folders of results; [`lost`] watches mapped files.
//!
//! ```text
//! lowrank (the engine) ─► lost ─► folder ─► hub · onnx · study · step · table ─► serve ─► commands        ("is used by"; nothing points back)
//! ```

pub mod commands;
pub mod folder;
pub mod hub;
pub mod lost;
#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg(feature = "serve")]
pub mod serve;
pub mod step;
pub mod study;
pub mod table;
