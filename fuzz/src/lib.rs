//! Fuzz targets of the engine. `README.md` lists them.

pub mod targets;
