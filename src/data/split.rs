//! The splits of a data set.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

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

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Split> {
        let found = Split::ALL.into_iter().find(|split| split.names().contains(&name));
        found.ok_or_else(|| Error::invalid(format_args!("the split is train, validation or test, got {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        assert_eq!(("train".parse::<Split>().unwrap(), Split::Test.to_string()), (Split::Train, "test".to_string()));
        assert_eq!("dev".parse::<Split>().unwrap(), Split::Validation);
        assert!("all".parse::<Split>().is_err());
    }
}
