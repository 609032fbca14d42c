//! Replays inputs of the fuzz targets (`fuzz/`): the seeds, and every input that once made a target panic.
#![cfg(feature = "data")]

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;
