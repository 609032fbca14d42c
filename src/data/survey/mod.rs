//! The truth about labelled data before a model sees them: classes, lengths, and rows that are missing something, repeat or contradict each other, leak
//! from one part into another, or were decoded wrongly.
//!
//! Two texts are the same here if they differ only in case and white space: an uncased tokenizer cannot tell them apart.

mod damage;
mod file_form;
mod finding;
mod lengths;
mod meanings;
mod part;
mod spread;
mod texts;

pub use file_form::{FileForm, file_form};
pub use finding::{Example, Finding, FindingKind, Place};
pub use lengths::{Lengths, token_lengths};
pub use part::Part;
pub use spread::Spread;

use super::labels::Labels;
use meanings::meanings;
use serde::Serialize;
use texts::Texts;

/// A class or label, and its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Its name.
    pub name: String,
    /// Number of its rows.
    pub rows: usize,
}

/// Facts about a part. They are neither good nor bad.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartFacts {
    /// Name of the part.
    pub name: String,
    /// Number of rows.
    pub rows: usize,
    /// The classes or labels of the first part, and how many rows of this part have each. A row with several labels counts for each of them. Empty if
    /// the labels are numbers.
    pub classes: Vec<ClassCount>,
    /// Number of rows that have none of several labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none: Option<usize>,
    /// The numbers, if the labels are numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Spread>,
    /// Lengths in words, which are separated by white space.
    pub words: Lengths,
    /// Lengths in Unicode characters.
    pub characters: Lengths,
}

/// Result of [`survey`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Survey {
    /// Each part.
    pub parts: Vec<PartFacts>,
    /// What is wrong with the rows.
    pub findings: Vec<Finding>,
}

/// Looks at the rows of all parts, the training texts first. `labels` say what the labels are, and have the
/// names of the classes if these are known; else they are those of the first part. Each
/// finding has at most `most` examples.
pub fn survey(parts: &[Part], labels: &Labels, most: usize) -> Survey {
    let (mut facts, mut findings, mut of) = (Vec::new(), Vec::new(), Vec::new());
    let mut known = labels.clone();
    for part in parts {
        let found = meanings(part, &known, most);
        facts.push(PartFacts {
            name: part.name.clone(),
            rows: part.rows.len(),
            classes: found.counts(),
            none: found.none(),
            numbers: found.numbers(),
            words: Lengths::of(part.rows.iter().map(|row| row.whole_text().split_whitespace().count()).collect()),
            characters: Lengths::of(part.rows.iter().map(|row| row.whole_text().chars().count()).collect()),
        });
        known.names.get_or_insert(found.names);
        findings.extend(found.findings);
        findings.extend(of_texts(part, most));
        of.push(found.of);
    }
    let texts = Texts::new(parts, &of);
    findings.push(texts.contradictions(most));
    for later in 0..parts.len() {
        findings.push(texts.duplicates(later, most));
        findings.extend((0..later).map(|earlier| texts.leaks(earlier, later, most)));
    }
    findings.retain(|finding| finding.rows > 0 || finding.problem.is_some());
    Survey { parts: facts, findings }
}

/// A sign that something is wrong with a text.
type Sign = (FindingKind, fn(&str) -> bool);

/// What is wrong with texts, one by one.
fn of_texts(part: &Part, most: usize) -> Vec<Finding> {
    let signs: [Sign; 4] = [
        (FindingKind::NoText, |text| text.trim().is_empty()),
        (FindingKind::ReplacementCharacter, |text| text.contains('\u{fffd}')),
        (FindingKind::Misread, damage::is_misread),
        (FindingKind::ControlCharacter, damage::has_control),
    ];
    let of = |(kind, is): Sign| {
        part.finding(kind, (0..part.rows.len()).filter(|&i| is(&part.rows[i].text) || part.rows[i].second.as_deref().is_some_and(is)), most)
    };
    signs.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests;
