//! What a survey finds, and where.

use serde::Serialize;

/// What is wrong with some rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// Rows whose text is empty or white space.
    NoText,
    /// Rows whose label is empty.
    NoLabel,
    /// The labels cannot be classes, or cannot be read as several labels; `problem` says why.
    NoClasses,
    /// Rows whose label is none of the classes, or has one that is none of several labels.
    OtherLabel,
    /// Rows whose label is not a number.
    NotANumber,
    /// All rows have this label.
    OneClass,
    /// A class or label of the first part has no row in this part.
    MissingClass,
    /// Rows whose text also has another label.
    Contradiction,
    /// Rows that repeat the text and the label of an earlier row of their part.
    Duplicate,
    /// Rows whose text is also in an earlier part.
    Leak,
    /// Texts with the replacement character U+FFFD: bytes were lost when they were decoded.
    ReplacementCharacter,
    /// Texts that look like UTF-8 that was decoded as Windows-1252, such as `Ã¤` for `ä`.
    Misread,
    /// Texts with control characters besides line breaks and tabs.
    ControlCharacter,
    /// The lines of a file end in different ways.
    LineEnds,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Names of the parts: one; for a leak the earlier and the later; for a contradiction none, as it counts in all parts together.
    pub parts: Vec<String>,
    /// Number of rows that it concerns: for a leak those of the later part.
    pub rows: usize,
    /// Number of these rows that equal the other letter for letter, not only but for case and white space. For duplicates and leaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identical: Option<usize>,
    /// More about it: the name of the class, the classes that there are, the reader's message, or the ends of lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The first cases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
}

/// A text, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The text of the first place.
    pub text: String,
    /// One place, or all places of the text in order.
    pub places: Vec<Place>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Name of the part.
    pub part: String,
    /// The row in the part's file: a line, an object of a list, or the name of a text file.
    pub place: String,
    /// Its label as in the file.
    pub label: String,
}

impl Finding {
    /// Nothing yet.
    pub(super) fn new(kind: FindingKind, parts: &[&str]) -> Finding {
        let parts = parts.iter().map(|part| part.to_string()).collect();
        Finding { kind, parts, rows: 0, identical: None, problem: None, examples: Vec::new() }
    }

    /// Adds an example unless there are `most` already.
    pub(super) fn add(&mut self, example: impl FnOnce() -> Option<Example>, most: usize) {
        if self.examples.len() < most {
            self.examples.extend(example());
        }
    }
}
