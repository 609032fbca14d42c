//! The labels of a part as classes. Training refuses a label that is no class; here it is a finding.

use super::super::labels::{Labels, excerpt};
use super::super::rows::Distinct;
use super::finding::{Finding, FindingKind};
use super::part::Part;

/// The classes of the rows of a part.
pub(super) struct Classes {
    /// Names of the classes: `[C]`.
    pub names: Vec<String>,
    /// Class of each row; `None` if it has no label or another one: `[N]`.
    pub of: Vec<Option<usize>>,
    /// What is wrong with the labels.
    pub findings: Vec<Finding>,
}

/// Finds the classes of the rows of `part`. If no names are given and the labels cannot be classes, each different label is one.
pub(super) fn classes(part: &Part, labels: &Labels, most: usize) -> Classes {
    let (mut found, mut label_of) = (Distinct::default(), Vec::with_capacity(part.rows.len()));
    for row in &part.rows {
        label_of.push((!row.label.is_empty()).then(|| found.add(row.label.clone(), &row.name)));
    }
    let rows = 0..part.rows.len();
    let about = |kind, problem: &str| Finding { problem: Some(problem.to_string()), ..Finding::new(kind, &[&part.name]) };
    let mut findings = vec![part.finding(FindingKind::NoLabel, rows.clone().filter(|&i| label_of[i].is_none()), most)];
    let (names, class_of): (Vec<String>, Vec<Option<usize>>) = match (labels.classes(&found.labels, &part.path), &labels.names) {
        (Ok((names, of)), _) => (names, of.into_iter().map(Some).collect()),
        (Err(_), Some(names)) => {
            let class = |label| labels.classes(std::slice::from_ref(label), &part.path).ok().map(|(_, of)| of[0]);
            (names.clone(), found.labels.iter().map(class).collect())
        }
        (Err(e), None) => {
            findings.push(about(FindingKind::NoClasses, &e.to_string()));
            (found.labels.iter().map(|label| label.text.clone()).collect(), (0..found.labels.len()).map(Some).collect())
        }
    };
    let of: Vec<Option<usize>> = label_of.iter().map(|label| label.and_then(|label| class_of[label])).collect();
    let no_class = part.finding(FindingKind::OtherLabel, rows.filter(|&i| label_of[i].is_some() && of[i].is_none()), most);
    findings.push(Finding { problem: (no_class.rows > 0).then(|| excerpt(names.iter())), ..no_class });
    for (_, name) in names.iter().enumerate().filter(|(class, _)| !class_of.contains(&Some(*class))) {
        findings.push(about(FindingKind::MissingClass, name));
    }
    if let [one] = &names[..] {
        findings.push(about(FindingKind::OneClass, one));
    }
    Classes { names, of, findings }
}
