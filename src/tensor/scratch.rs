//! Tensors that are too large for memory: written to a temporary file, then read through a memory map.

use super::{DType, MappedFile, Tensor};
use crate::files::temporary;
use crate::{Error, Result, dispatch};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// Rows of a tensor, in a file in the system's folder for temporary files.
pub struct Scratch {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: usize,
}

impl Scratch {
    /// Creates the file.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn new() -> Result<Scratch> {
        let path = temporary(&std::env::temp_dir().join("lowrank-scratch"))?;
        // A new file: neither a file nor a link that somebody else put there is opened.
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(|e| Error::io(&path, e))?;
        if cfg!(unix) {
            // Without a name it is out of reach of other programs, and goes away with this process, however that ends.
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
        Ok(Scratch { path, file: BufWriter::new(file), bytes: 0 })
    }

    /// Appends the elements of a tensor.
    ///
    /// # Errors
    /// If they cannot be written, for example because the disk is full.
    pub fn append(&mut self, tensor: &Tensor) -> Result<()> {
        self.bytes += tensor.bytes();
        dispatch!("scratch", tensor.dtype(), T => {
            self.file.write_all(tensor.host::<T>()?.as_bytes()).map_err(|e| Error::io(&self.path, e))
        })
    }

    /// All appended elements as a tensor `[rows, cols]` over the mapped file.
    ///
    /// # Errors
    /// If the file cannot be written or mapped, or the number of elements is not rows · cols.
    pub fn finish(mut self, dtype: DType, [rows, cols]: [usize; 2]) -> Result<Tensor> {
        let io = |e| Error::io(&self.path, e);
        self.file.flush().map_err(io)?;
        let map = MappedFile::new(self.file.get_ref().try_clone().map_err(io)?, &self.path)?;
        let shape = [rows, cols].into();
        Tensor::mapped(&Arc::new(map), 0..self.bytes, dtype, shape)
            .ok_or_else(|| Error::file(&self.path, "size", format!("{} bytes are not {rows} rows of {cols} {dtype}", self.bytes)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Some systems cannot remove a mapped file. It then stays until the system clears its temporary files.
        if !cfg!(unix) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
