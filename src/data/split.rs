//! The splits of a data set.

use std::fmt;

/// A part of a data set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Split {
    /// For training.
    Train,
    /// For measuring during training.
    Validation,
    /// For the final evaluation.
    Test,
}

impl Split {
    /// All splits.
    pub(super) const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    /// "train", "validation" or "test".
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// Names of the files and folders of the split.
    pub(super) fn names(self) -> &'static [&'static str] {
        match self {
            Split::Train => &["train"],
            Split::Validation => &["validation", "valid", "dev"],
            Split::Test => &["test"],
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}
