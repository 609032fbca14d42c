//! Parquet files: <https://parquet.apache.org/docs/file-format/>. The feature `parquet` brings the crate of that name.

mod read;
mod write;

pub use read::Table;
pub use write::sink;

use lowrank::Error;
use parquet::errors::ParquetError;
use std::path::Path;

/// An error of the crate.
fn damaged(path: &Path, e: ParquetError) -> Error {
    Error::file(path, "parquet", e)
}
