//! Labelled texts whose labels are still as in the file.

use super::dataset::{Dataset, whole};
use super::labels::{Label, Labels};
use super::targets::targets;
use crate::outputs::Outputs;
use crate::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// A text, or a `T` made from it, with its label as in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row<T = String> {
    /// Origin of the text, for messages: a file name or a line.
    pub name: String,
    /// The text.
    pub text: T,
    /// The second text of a pair.
    pub second: Option<T>,
    /// The label as in the file, without white space around it.
    pub label: String,
    /// Whether some bytes of the text could not be decoded.
    pub lossy: bool,
}

impl Row {
    /// The text, or both texts of a pair with an empty line between them.
    pub fn whole_text(&self) -> Cow<'_, str> {
        whole(&self.text, self.second.as_deref())
    }
}

/// What is read of a table.
#[cfg(feature = "data")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Texts alone. All labels are empty, and the table may have no column of labels.
    Texts,
    /// Texts with their labels. A row without a label is an error.
    Labelled,
    /// Texts with their labels. What is missing is empty.
    AsTheyAre,
}

/// The different labels of rows, in the order in which they occur.
#[derive(Default)]
pub(super) struct Distinct {
    pub labels: Vec<Label>,
    index: HashMap<String, usize>,
}

impl Distinct {
    /// Counts the label of a row, and returns its index in `labels`.
    pub fn add(&mut self, label: String, place: &str) -> usize {
        let i = *self.index.entry(label).or_insert_with_key(|label| {
            self.labels.push(Label { text: label.clone(), count: 0, place: place.to_string() });
            self.labels.len() - 1
        });
        self.labels[i].count += 1;
        i
    }
}

/// The data set of `rows`. `path` names the source in messages.
///
/// # Errors
/// If there is no row, or a label is none of the classes.
pub(super) fn dataset<T: Default>(rows: Vec<Row<T>>, path: &Path, labels: &Labels) -> Result<Dataset<T>> {
    if rows.is_empty() {
        return Err(Error::file(path, "data set", "holds no text"));
    }
    let (mut data, mut found) = (Dataset::default(), Distinct::default());
    for Row { name, text, second, label, lossy } in rows {
        data.labels.push(found.add(label, &name) as u32);
        data.lossy += usize::from(lossy);
        data.texts.push(text);
        data.seconds.extend(second);
        data.names.push(name);
    }
    if labels.outputs != Outputs::Classes {
        // `Tokenized::with_targets` reads them. Here a wrong one still has its place.
        targets(labels, &found.labels, path)?;
        return Ok(Dataset { label_names: found.labels.into_iter().map(|label| label.text).collect(), no_classes: true, ..data });
    }
    let (label_names, classes) = labels.classes(&found.labels, path)?;
    data.labels.iter_mut().for_each(|label| *label = classes[*label as usize] as u32);
    Ok(Dataset { label_names, ..data })
}

impl Dataset {
    /// A data set from pairs of a text and its label. The classes are the different labels, sorted (by value if all are numbers). Labels that
    /// differ in case alone are one class.
    ///
    /// # Errors
    /// If there is no pair, or a label cannot be a class: it is -1, or the labels are a quantity.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (impl Into<String>, impl AsRef<str>)>) -> Result<Dataset> {
        let mut rows = Vec::new();
        for (i, (text, label)) in pairs.into_iter().enumerate() {
            rows.push(Row {
                name: format!("pair {}", i + 1),
                text: text.into(),
                second: None,
                label: label.as_ref().to_string(),
                lossy: false,
            });
        }
        dataset(rows, Path::new("pairs"), &Labels::default())
    }
}
