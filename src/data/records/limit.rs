//! The largest row of a table.

use crate::Error;
use std::cell::Cell;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Largest size of a row in bytes. A longer one is a quote or a bracket that is never closed, or a hostile compressed file: a row is in memory as a whole.
pub(super) const LONGEST_ROW: u64 = 64 << 20;

/// The error for a row that is longer.
pub(super) fn too_long(path: &Path, line: u64) -> Error {
    let problem = format!(
        "the row that begins here has more than {} MiB, the limit: close its quote or bracket, or split its text",
        LONGEST_ROW >> 20
    );
    Error::file(path, format_args!("line {line}"), problem)
}

/// Where a [`Rows`] is.
#[derive(Default)]
pub(super) struct Place {
    /// Bytes of the row so far.
    read: Cell<u64>,
    /// Lines before the next byte, and before the row.
    lines: Cell<u64>,
    start: Cell<u64>,
}

impl Place {
    /// The next byte begins a row.
    pub fn next_row(&self) {
        self.read.set(0);
        self.start.set(self.lines.get());
    }
}

/// A stream that ends with an error in a row that is too long.
pub(super) struct Rows<R> {
    pub from: R,
    pub path: PathBuf,
    /// Lines before the stream.
    pub before: u64,
    pub place: Rc<Place>,
}

impl<R: Read> Read for Rows<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        let Place { read: all, lines, start } = &*self.place;
        all.set(all.get() + read as u64);
        lines.set(lines.get() + to[..read].iter().filter(|&&b| b == b'\n').count() as u64);
        match all.get() > LONGEST_ROW {
            true => Err(io::Error::other(too_long(&self.path, 1 + self.before + start.get()))),
            false => Ok(read),
        }
    }
}
