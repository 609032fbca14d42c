//! Rows with the same text, in one part or in several.

use super::super::dataset::text_key;
use super::finding::{Example, Finding, FindingKind};
use super::part::Part;
use std::collections::{HashMap, HashSet};

/// A row with its part and its class.
#[derive(Clone, Copy)]
struct Seen {
    part: usize,
    row: usize,
    class: Option<usize>,
    /// [`text_key`] of the text as it is.
    exact: u64,
}

/// The rows of each text, in the order of their first rows. Rows without text are left out.
pub(super) struct Texts<'a> {
    parts: &'a [Part],
    groups: Vec<Vec<Seen>>,
}

/// What texts that differ only in case and white space have in common.
fn folded(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl<'a> Texts<'a> {
    /// Groups the rows of `parts` by their texts; `classes` are the classes of the rows of each part.
    pub fn new(parts: &'a [Part], classes: &[Vec<Option<usize>>]) -> Texts<'a> {
        let (mut index, mut groups): (HashMap<u64, usize>, Vec<Vec<Seen>>) = (HashMap::new(), Vec::new());
        for (part, classes) in classes.iter().enumerate() {
            for (row, &class) in classes.iter().enumerate() {
                let text = parts[part].rows[row].whole_text();
                if text.trim().is_empty() {
                    continue;
                }
                let group = *index.entry(text_key(&folded(&text))).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                });
                groups[group].push(Seen { part, row, class, exact: text_key(&text) });
            }
        }
        Texts { parts, groups }
    }

    fn example(&self, rows: &[Seen], most: usize) -> Option<Example> {
        let mut example = rows.first().map(|first| self.parts[first.part].example(first.row))?;
        example.places = rows.iter().take(most.max(2)).map(|seen| self.parts[seen.part].place(seen.row)).collect();
        Some(example)
    }

    /// Texts with several classes, in all parts together.
    pub fn contradictions(&self, most: usize) -> Finding {
        let mut found = Finding::new(FindingKind::Contradiction, &[]);
        for group in &self.groups {
            // The first row of each class comes first, so that the example shows the contradiction.
            let mut known = HashSet::new();
            let (mut first, further): (Vec<Seen>, Vec<Seen>) =
                group.iter().filter(|seen| seen.class.is_some()).partition(|seen| known.insert(seen.class));
            if first.len() > 1 {
                first.extend(further);
                found.rows += first.len();
                found.add(|| self.example(&first, most), most);
            }
        }
        found
    }

    /// Rows that repeat text and label of an earlier row of the part.
    pub fn duplicates(&self, part: usize, most: usize) -> Finding {
        let mut found = Finding::new(FindingKind::Duplicate, &[&self.parts[part].name]);
        let mut identical = 0;
        for group in &self.groups {
            let (mut by_class, mut index): (Vec<Vec<Seen>>, HashMap<Option<usize>, usize>) = (Vec::new(), HashMap::new());
            for seen in group.iter().filter(|seen| seen.part == part) {
                let place = *index.entry(seen.class).or_insert_with(|| {
                    by_class.push(Vec::new());
                    by_class.len() - 1
                });
                by_class[place].push(*seen);
            }
            for rows in by_class.iter().filter(|rows| rows.len() > 1) {
                found.rows += rows.len() - 1;
                identical += rows.len() - rows.iter().map(|seen| seen.exact).collect::<HashSet<_>>().len();
                found.add(|| self.example(rows, most), most);
            }
        }
        found.identical = Some(identical);
        found
    }

    /// Rows of the part `later` whose text is in the part `earlier`, too.
    pub fn leaks(&self, earlier: usize, later: usize, most: usize) -> Finding {
        let mut found = Finding::new(FindingKind::Leak, &[&self.parts[earlier].name, &self.parts[later].name]);
        let mut identical = 0;
        for group in &self.groups {
            let of = |part| group.iter().filter(move |seen| seen.part == part);
            let Some(first) = of(earlier).next() else { continue };
            let leaked: Vec<Seen> = of(later).copied().collect();
            if leaked.is_empty() {
                continue;
            }
            found.rows += leaked.len();
            let known: HashSet<u64> = of(earlier).map(|seen| seen.exact).collect();
            identical += leaked.iter().filter(|seen| known.contains(&seen.exact)).count();
            found.add(|| self.example(&[&[*first], &leaked[..]].concat(), most), most);
        }
        found.identical = Some(identical);
        found
    }
}
