//! What the labels of a part mean: classes, several labels, or numbers. Training refuses a label that means nothing; here it is a finding.

use super::super::labels::{Labels, excerpt};
use super::super::numbered::numbered;
use super::super::rows::Distinct;
use super::super::targets::each_target;
use super::finding::{Finding, FindingKind};
use super::part::Part;
use super::{ClassCount, Spread};
use crate::outputs::Outputs;

/// What the labels of the rows of a part mean.
pub(super) struct Meanings {
    /// Names of the classes or labels: `[C]`.
    pub names: Vec<String>,
    /// A number for what the label of each row means, the same for labels that mean the same. `None` if a row has no label or a wrong one: `[N]`.
    pub of: Vec<Option<usize>>,
    /// What each of these numbers stands for: `[M][C]`. Empty for classes, whose numbers are those of the classes.
    targets: Vec<Vec<f64>>,
    outputs: Outputs,
    /// What is wrong with the labels.
    pub findings: Vec<Finding>,
}

/// Finds what the labels of the rows of `part` mean. If they cannot be read together and have no given names, each different label is a class.
pub(super) fn meanings(part: &Part, labels: &Labels, most: usize) -> Meanings {
    let (mut found, mut label_of) = (Distinct::default(), Vec::with_capacity(part.rows.len()));
    for row in &part.rows {
        label_of.push((!row.label.is_empty()).then(|| found.add(row.label.clone(), &row.name)));
    }
    let read = match labels.outputs {
        Outputs::Classes => labels.each_class(&found.labels, &part.path).map(|(names, of)| (names, of, Vec::new())),
        _ => each_target(labels, &found.labels, &part.path).map(|(names, rows)| {
            let (numbers, targets) = numbered(rows.into_iter().map(Result::ok));
            (names, numbers, targets)
        }),
    };
    let mut findings = vec![part.finding(FindingKind::NoLabel, (0..part.rows.len()).filter(|&i| label_of[i].is_none()), most)];
    let (names, meaning_of, targets) = read.unwrap_or_else(|e| {
        findings.push(part.about(FindingKind::NoClasses, &e.to_string()));
        (found.labels.iter().map(|label| label.text.clone()).collect(), (0..found.labels.len()).map(Some).collect(), Vec::new())
    });
    let of: Vec<Option<usize>> = label_of.iter().map(|label| label.and_then(|label| meaning_of[label])).collect();
    let wrong = (0..part.rows.len()).filter(|&i| label_of[i].is_some() && of[i].is_none());
    findings.push(match labels.outputs {
        Outputs::Numbers => part.finding(FindingKind::NotANumber, wrong, most),
        _ => {
            let found = part.finding(FindingKind::OtherLabel, wrong, most);
            Finding { problem: (found.rows > 0).then(|| excerpt(names.iter())), ..found }
        }
    });
    let mut all = Meanings { names, of, targets, outputs: labels.outputs, findings };
    all.findings.extend(all.one_sided(part, labels.names.is_none()));
    all
}

impl Meanings {
    /// The number of rows of each class, or with each label. None for numbers.
    pub fn counts(&self) -> Vec<ClassCount> {
        let mut counts = vec![0; if self.outputs == Outputs::Numbers { 0 } else { self.names.len() }];
        for &meaning in self.of.iter().flatten() {
            match self.targets.get(meaning) {
                Some(row) => counts.iter_mut().zip(row).for_each(|(count, y)| *count += usize::from(*y >= 0.5)),
                None => counts[meaning] += 1,
            }
        }
        self.names.iter().zip(counts).map(|(name, rows)| ClassCount { name: name.clone(), rows }).collect()
    }

    /// The number of rows that have none of several labels.
    pub fn none(&self) -> Option<usize> {
        let is_none = |meaning: &&usize| self.targets.get(**meaning).is_some_and(|row| row.iter().all(|y| *y < 0.5));
        (self.outputs == Outputs::Labels).then(|| self.of.iter().flatten().filter(is_none).count())
    }

    /// The numbers, if there are some.
    pub fn numbers(&self) -> Option<Spread> {
        let numbers = || self.of.iter().flatten().map(|&meaning| self.targets[meaning][0]).collect();
        if self.outputs == Outputs::Numbers { Spread::of(numbers()) } else { None }
    }

    /// Labels that no row or every row has. A part to learn from needs both, other parts the first alone.
    fn one_sided(&self, part: &Part, learned: bool) -> Vec<Finding> {
        let (mut found, known) = (Vec::new(), self.of.iter().flatten().count());
        let one_class = self.outputs == Outputs::Classes && self.names.len() == 1;
        for ClassCount { name, rows } in self.counts() {
            match rows {
                0 => found.push(part.about(FindingKind::MissingClass, &name)),
                n if n == known && (learned || one_class) => found.push(part.about(FindingKind::OneClass, &name)),
                _ => {}
            }
        }
        if let (Outputs::Numbers, [row], true) = (self.outputs, &self.targets[..], learned) {
            found.push(part.about(FindingKind::OneClass, &row[0].to_string()));
        }
        found
    }
}
