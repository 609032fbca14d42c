//! The one error type of the crate.

use crate::tensor::{DType, Shape};
use std::fmt;
use std::path::{Path, PathBuf};

/// `Result` with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong. Messages are lower case and read `{layer}: {op}: expected {rule}, got {shapes}` or
/// `{file}: {place}: {problem}`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Operand shapes do not fit the rule of an op.
    #[error("{op}: expected {rule}, got {}", Listed(got))]
    Shape {
        /// Name of the op.
        op: &'static str,
        /// What must hold.
        rule: &'static str,
        /// The shapes that were passed.
        got: Vec<Shape>,
    },
    /// Operand data types do not fit the rule of an op.
    #[error("{op}: expected {rule}, got {}", Listed(got))]
    DType {
        /// Name of the op.
        op: &'static str,
        /// What must hold.
        rule: &'static str,
        /// The types that were passed.
        got: Vec<DType>,
    },
    /// `source`, raised while running the named layer.
    #[error("{layer}: {source}")]
    At {
        /// Name of the layer, as in the checkpoint.
        layer: String,
        /// What went wrong there.
        source: Box<Error>,
    },
    /// The operating system refused a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {place}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Where in it: a line, a key, an offset.
        place: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// An argument or a setting is out of its range.
    #[error("{0}")]
    Invalid(String),
    /// Training cannot go on.
    #[error("training stopped at step {step}: {problem}")]
    Training {
        /// The optimizer step, counted from 1.
        step: usize,
        /// What happened and what was kept.
        problem: String,
    },
}

impl Error {
    /// A shape error of `op`: `rule` says what must hold, `got` what was passed.
    pub fn shape(op: &'static str, rule: &'static str, got: &[&Shape]) -> Self {
        Error::Shape { op, rule, got: got.iter().map(|&s| s.clone()).collect() }
    }

    /// A data type error of `op`.
    pub fn dtype(op: &'static str, rule: &'static str, got: &[DType]) -> Self {
        Error::DType { op, rule, got: got.to_vec() }
    }

    /// What the system said of `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// `problem` at `place` in the file `path`.
    pub fn file(path: impl AsRef<Path>, place: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Error::File { path: path.as_ref().to_path_buf(), place: place.to_string(), problem: problem.to_string() }
    }

    /// An argument or setting out of its range.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Error::Invalid(message.to_string())
    }
}

/// Names the layer in which an error was raised.
pub trait AtLayer<T> {
    /// Prefixes the error with `layer`.
    fn at(self, layer: impl FnOnce() -> String) -> Result<T>;
}

impl<T> AtLayer<T> for Result<T> {
    fn at(self, layer: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::At { layer: layer(), source: Box::new(e) })
    }
}

/// Joins displayed items with "and".
struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, x)| write!(f, "{}{x}", if i == 0 { "" } else { " and " }))
    }
}
