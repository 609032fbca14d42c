//! Labelled texts whose labels are still as in the file.

use super::dataset::Dataset;
use super::labels::Labels;
#[cfg(feature = "data")]
use super::stream;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Texts, or `T`s made from them, with their labels as in the file.
#[derive(Default)]
pub(super) struct Rows<T = String> {
    texts: Vec<T>,
    /// Origin of each text, for messages: a file name or a line.
    names: Vec<String>,
    /// Label of each text, an index into `found`.
    labels: Vec<usize>,
    /// The different labels, in the order of their first rows.
    found: Vec<String>,
    index: HashMap<String, usize>,
    lossy: usize,
}

#[cfg(feature = "data")]
impl Rows {
    /// Applies a function to each text, on all threads. `make` returns the function; every thread gets its own.
    pub fn map<T: Send, F: FnMut(String) -> T>(mut self, make: impl Fn() -> F + Sync + Send) -> Rows<T> {
        let texts = stream::map_chunks(self.texts.chunks_mut(stream::CHUNK), || {
            let mut f = make();
            move |text: &mut String| f(std::mem::take(text))
        });
        let Rows { names, labels, found, index, lossy, .. } = self;
        Rows { texts, names, labels, found, index, lossy }
    }

    /// The texts alone.
    pub fn into_texts(self) -> Vec<String> {
        self.texts
    }
}

impl<T> Rows<T> {
    /// Adds a text with its origin. `lossy`: some of its bytes could not be decoded.
    pub fn push(&mut self, name: String, text: T, label: &str, lossy: bool) {
        let known = self.index.get(label).copied();
        let label = known.unwrap_or_else(|| {
            self.found.push(label.to_string());
            self.index.insert(label.to_string(), self.found.len() - 1);
            self.found.len() - 1
        });
        self.lossy += usize::from(lossy);
        self.texts.push(text);
        self.labels.push(label);
        self.names.push(name);
    }

    /// Whether a text has this label.
    #[cfg(feature = "data")]
    pub fn has_label(&self, label: &str) -> bool {
        self.index.contains_key(label)
    }

    /// Maps the labels to classes. `path` names the source in messages.
    ///
    /// # Errors
    /// If there is no text, or a label is none of the classes.
    pub fn into_dataset(self, path: &Path, labels: &Labels) -> Result<Dataset<T>> {
        if self.texts.is_empty() {
            return Err(Error::file(path, "data set", "holds no text"));
        }
        let mut counts = vec![0; self.found.len()];
        self.labels.iter().for_each(|&label| counts[label] += 1);
        let first = |label: usize| {
            let row = self.labels.iter().position(|&l| l == label);
            row.map_or(String::new(), |row| self.names[row].clone())
        };
        let (label_names, classes) = labels.classes(&self.found, &counts, path, &first)?;
        let labels = self.labels.iter().map(|&label| classes[label] as u32).collect();
        Ok(Dataset { texts: self.texts, labels, label_names, lossy: self.lossy, names: self.names })
    }
}

impl Dataset {
    /// A data set from pairs of a text and its label. The classes are the different labels, sorted (by value if all are numbers). Labels that
    /// differ in case alone are one class.
    ///
    /// # Errors
    /// If there is no pair, or a label cannot be a class: it is -1, or the labels are a quantity.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (impl Into<String>, impl AsRef<str>)>) -> Result<Dataset> {
        let mut rows = Rows::default();
        for (i, (text, label)) in pairs.into_iter().enumerate() {
            rows.push(format!("pair {}", i + 1), text.into(), label.as_ref(), false);
        }
        rows.into_dataset(Path::new("pairs"), &Labels::default())
    }
}
