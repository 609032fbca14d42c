//! The one error type of the crate. This file uses no other room: shapes and types arrive as text.

use std::fmt;
use std::path::{Path, PathBuf};

/// `Result` with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong. Messages are lower case and read `{layer}: {op}: expected {rule}, got {shapes}` or
/// `{file}: {place}: {problem}`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shapes of the operands break the rule of an op.
    #[error("{op}: expected {rule}, got {}", got.join(" and "))]
    Shape {
        /// Name of the op.
        op: &'static str,
        /// What must hold.
        rule: &'static str,
        /// The shapes that were passed.
        got: Vec<String>,
    },
    /// The data types of the operands break the rule of an op.
    #[error("{op}: expected {rule}, got {}", got.join(" and "))]
    DType {
        /// Name of the op.
        op: &'static str,
        /// What must hold.
        rule: &'static str,
        /// The types that were passed.
        got: Vec<String>,
    },
    /// `source` was raised while the named layer ran.
    #[error("{layer}: {source}")]
    At {
        /// Name of the layer, as in the checkpoint.
        layer: String,
        /// The error inside the layer.
        source: Box<Error>,
    },
    /// The operating system refused access to a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The content of a file is wrong.
    #[error("{}: {place}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The place in the file: a line, a key or an offset.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Elements that are on a GPU were read as if they were on the host.
    #[error("host: the tensor is on a GPU")]
    OnGpu,
    /// An argument or a setting is out of its range.
    #[error("{0}")]
    Invalid(String),
    /// Training cannot continue.
    #[error("training stopped at step {step}: {problem}")]
    Training {
        /// The optimizer step, counted from 1.
        step: usize,
        /// What happened, and what was saved.
        problem: String,
    },
    /// Another rank of this run failed.
    #[error("rank {rank}: {cause}")]
    Rank {
        /// The number of that rank, from 0.
        rank: usize,
        /// Its error.
        cause: String,
    },
}

impl Error {
    /// An error of `op`: its operands have the shapes `got`, which break `rule`.
    pub fn shape<T: fmt::Debug>(op: &'static str, rule: &'static str, got: &[&T]) -> Self {
        Error::Shape { op, rule, got: got.iter().map(|x| format!("{x:?}")).collect() }
    }

    /// An error of `op`: its operands have the data types `got`, which break `rule`.
    pub fn dtype<T: fmt::Debug>(op: &'static str, rule: &'static str, got: &[T]) -> Self {
        Error::DType { op, rule, got: got.iter().map(|x| format!("{x:?}")).collect() }
    }

    /// The system's error `source` for the file `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// `problem` at `place` in the file `path`.
    pub fn file(path: impl AsRef<Path>, place: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Error::File { path: path.as_ref().to_path_buf(), place: place.to_string(), problem: problem.to_string() }
    }

    /// An argument or a setting that is out of its range.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Error::Invalid(message.to_string())
    }
}

/// Adds the name of a layer to an error.
pub trait AtLayer<T> {
    /// Puts `layer` before the message of the error.
    fn at(self, layer: impl FnOnce() -> String) -> Result<T>;
}

impl<T> AtLayer<T> for Result<T> {
    fn at(self, layer: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::At { layer: layer(), source: Box::new(e) })
    }
}

/// The `n` names that are nearest to `wanted` by edit distance. Messages suggest them in place of an unknown name.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, n: usize) -> Vec<&'a str> {
    let mut by_distance: Vec<(usize, &str)> = names.map(|name| (distance(wanted, name), name)).collect();
    by_distance.sort();
    by_distance.into_iter().take(n).map(|(_, name)| name).collect()
}

/// The number of insertions, deletions and substitutions that turn `a` into `b`. Levenshtein 1966.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // row[j]: the distance of the part of `a` read so far to the first j characters of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
