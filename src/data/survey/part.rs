//! A part of labelled data as it stands in its files.

use super::super::rows::Row;
use super::finding::{Example, Finding, FindingKind, Place};
use std::path::PathBuf;

/// A part of a data set, such as its training texts.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Its name: train, validation or test.
    pub name: String,
    /// The file or folder that it was read from.
    pub path: PathBuf,
    /// The rows, from [`load_rows`](crate::data::load_rows): `[N]`.
    pub rows: Vec<Row>,
}

impl Part {
    /// The place of row `i`.
    pub(super) fn place(&self, i: usize) -> Place {
        let row = &self.rows[i];
        Place { part: self.name.clone(), place: row.name.clone(), label: row.label.clone() }
    }

    /// Row `i` as an example.
    pub(super) fn example(&self, i: usize) -> Example {
        Example { text: self.rows[i].whole_text().into_owned(), places: vec![self.place(i)] }
    }

    /// A finding about the part as a whole.
    pub(super) fn about(&self, kind: FindingKind, problem: &str) -> Finding {
        Finding { problem: Some(problem.to_string()), ..Finding::new(kind, &[&self.name]) }
    }

    /// A finding about the rows `which`.
    pub(super) fn finding(&self, kind: FindingKind, which: impl Iterator<Item = usize>, most: usize) -> Finding {
        let mut found = Finding::new(kind, &[&self.name]);
        for i in which {
            found.rows += 1;
            found.add(|| Some(self.example(i)), most);
        }
        found
    }
}
