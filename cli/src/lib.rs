//! The program `lowrank`, around the engine of the same name: [`commands`] parses arguments and prints, [`study`] runs the IMDB study's
//! configurations and reports on them, and [`hub`] downloads models and data.
//!
//! ```text
//! lowrank (the engine) ─► hub · study ─► commands        ("is used by"; nothing points back)
//! ```

pub mod commands;
pub mod hub;
pub mod study;
