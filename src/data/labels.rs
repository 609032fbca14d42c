//! Maps the labels of a file to classes.

use crate::outputs::{MOST_CLASSES, Outputs};
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

/// Largest number of different labels with a fraction. A few may be classes, such as ratings in half stars; more are a quantity.
const MOST_FRACTIONS: usize = 10;

/// A label of a file: its text, the number of its rows, and the place of the first, for messages.
pub(super) struct Label {
    pub text: String,
    pub count: usize,
    pub place: String,
}

/// The classes that are known before the data are read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Names of the classes, in their order. `None`: the labels of the data are the classes.
    pub names: Option<Vec<String>>,
    /// Labels of the data, each with the class that it means.
    pub renamed: Vec<(String, String)>,
    /// What the labels are: one class of each text, several labels, or a number (`targets.rs`).
    pub outputs: Outputs,
}

/// Part of the key of cached tokens. For classes, it is the text that it was in older versions.
impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut fields = f.debug_struct("Labels");
        fields.field("names", &self.names).field("renamed", &self.renamed).field("verbatim", &(self.outputs != Outputs::Classes));
        if self.outputs != Outputs::Classes {
            fields.field("outputs", &self.outputs);
        }
        fields.finish()
    }
}

impl Labels {
    /// Classes with these names, in this order.
    pub fn named(names: &[String]) -> Labels {
        Labels { names: Some(names.to_vec()), ..Labels::default() }
    }

    /// The class of a label. `None` if it has none, or the classes have no names.
    pub fn class_of(&self, label: &str) -> Option<usize> {
        Finder::new(self.names.as_deref()?).class(label)
    }

    /// Parses `--labels`: names of the classes in their order (`negative,positive`), or pairs of a label in the data and the class that it
    /// means (`neg=negative,pos=positive`).
    ///
    /// # Errors
    /// If both kinds are mixed, an entry is empty, or one occurs twice.
    pub fn parse(entries: &[String]) -> Result<Labels> {
        let trimmed = |text: &str| text.trim().to_string();
        let pairs = entries.iter().filter_map(|entry| entry.rsplit_once('='));
        let pairs: Vec<(String, String)> = pairs.map(|(from, to)| (trimmed(from), trimmed(to))).collect();
        let bad = |problem: &str| Err(Error::invalid(format!("--labels {}: {problem}", entries.join(","))));
        if !pairs.is_empty() && pairs.len() != entries.len() {
            return bad("give either the names of all classes, or pairs LABEL=CLASS alone");
        }
        let names: Vec<String> = match pairs.is_empty() {
            true => entries.iter().map(|name| trimmed(name)).collect(),
            false => pairs.iter().map(|(from, _)| from.clone()).collect(),
        };
        if names.iter().chain(pairs.iter().map(|(_, to)| to)).any(String::is_empty) {
            return bad("a name is empty");
        }
        if names.iter().map(|name| folded(name)).collect::<HashSet<_>>().len() < names.len() {
            return bad("a name occurs twice (upper and lower case are the same)");
        }
        Ok(if pairs.is_empty() { Labels::named(&names) } else { Labels { renamed: pairs, ..Labels::default() } })
    }

    /// Names of the classes, and the class of each label of `found`, which are the labels of the file `path`.
    ///
    /// # Errors
    /// If a label is none of the classes.
    pub(super) fn classes(&self, found: &[Label], path: &Path) -> Result<(Vec<String>, Vec<usize>)> {
        let (names, each) = self.each_class(found, path)?;
        let class = |(class, label): (Option<usize>, &Label)| class.ok_or_else(|| no_class(&names, label, path));
        let classes = each.into_iter().zip(found).map(class).collect::<Result<Vec<usize>>>()?;
        Ok((names, classes))
    }

    /// [`Labels::classes`], with `None` for a label that is none of the classes.
    ///
    /// # Errors
    /// If the labels are not those of classes.
    pub(super) fn each_class(&self, found: &[Label], path: &Path) -> Result<(Vec<String>, Vec<Option<usize>>)> {
        let renamed: HashMap<String, &str> = self.renamed.iter().map(|(from, to)| (folded(from), to.as_str())).collect();
        let read: Vec<&str> = found.iter().map(|label| renamed.get(&folded(&label.text)).copied().unwrap_or(&label.text)).collect();
        let names = match &self.names {
            Some(names) => names.clone(),
            None => self.found(found, &read, path)?,
        };
        let finder = Finder::new(&names);
        let classes = read.iter().map(|read| finder.class(read)).collect();
        Ok((names, classes))
    }

    /// The names of the classes if only the data define them; `read`: the labels of `found` as `renamed`. Labels that differ in case alone are
    /// one class, with the most frequent spelling.
    fn found(&self, found: &[Label], read: &[&str], path: &Path) -> Result<Vec<String>> {
        let fail = |place: &str, problem: String| Err(Error::file(path, place, problem));
        let there: HashSet<String> = found.iter().map(|label| folded(&label.text)).collect();
        if let Some((from, _)) = self.renamed.iter().find(|(from, _)| !there.contains(&folded(from))) {
            let labels = excerpt(found.iter().map(|label| &label.text));
            return fail("labels", format!("no text has the label {from:?}, which --labels maps; the labels are {labels}"));
        }
        if let Some(i) = read.iter().position(|label| number(label) == Some(-1)) {
            let Label { text, place, .. } = &found[i];
            let remedy = format!("remove them, or say what it means with --labels {text:?}=CLASS");
            return fail(place, format!("the label {text:?} usually marks rows without a label; {remedy}"));
        }
        let fractions = |label: &&str| label.trim().parse().is_ok_and(|x: f64| x.is_finite() && x.fract() != 0.0);
        if read.iter().filter(|label| fractions(label)).count() > MOST_FRACTIONS {
            return fail(
                "labels",
                "the labels are numbers with fractions, a quantity and no classes: --task numbers trains a regression".into(),
            );
        }
        let mut spellings: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
        for (read, label) in read.iter().zip(found) {
            *spellings.entry(folded(read)).or_default().entry(read).or_default() += label.count;
        }
        if spellings.len() > MOST_CLASSES {
            let n = spellings.len();
            return fail("labels", format!("{n} different labels, more than {MOST_CLASSES}: is this the label column?"));
        }
        // Of equally frequent spellings, the first in alphabetical order.
        let most = |all: &BTreeMap<&str, usize>| all.iter().rev().max_by_key(|(_, count)| **count).map(|(name, _)| name.trim().to_string());
        let name = |(key, all): (&String, _)| if number(key).is_some() { Some(key.clone()) } else { most(all) };
        Ok(sorted(spellings.iter().filter_map(name).collect()))
    }
}

/// The error for a label that is none of the classes with these names.
pub(super) fn no_class(names: &[String], Label { text, place, .. }: &Label, path: &Path) -> Error {
    let remedy = format!("correct it, remove the row, or map it with --labels {text:?}=CLASS");
    Error::file(path, place, format_args!("the label {text:?} is none of the classes {}; {remedy}", excerpt(names.iter())))
}

/// Finds the class of a label: the class with this name, ignoring case. Otherwise `LABEL_i` is class i, and so is the number i if no class name
/// is a number.
struct Finder<'a> {
    exact: HashMap<&'a str, usize>,
    /// Classes by lower-case name. `None` for names that differ in case alone: they stay different classes.
    folded: HashMap<String, Option<usize>>,
    /// Whether no class name is a number.
    numbered: bool,
}

impl Finder<'_> {
    fn new(names: &[String]) -> Finder<'_> {
        let mut by_case: HashMap<String, Option<usize>> = HashMap::new();
        for (i, name) in names.iter().enumerate() {
            by_case.entry(folded(name)).and_modify(|class| *class = None).or_insert(Some(i));
        }
        let exact = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        Finder { exact, folded: by_case, numbered: !names.iter().any(|name| number(name).is_some()) }
    }

    fn class(&self, label: &str) -> Option<usize> {
        let exact = self.exact.get(label).copied();
        let index = |i: i64| usize::try_from(i).ok().filter(|&i| i < self.exact.len());
        let generic = || folded(label).strip_prefix("label_").and_then(|rest| rest.parse().ok()).and_then(index);
        let by_number = || number(label).filter(|_| self.numbered).and_then(index);
        exact.or_else(|| self.folded.get(&folded(label)).copied().flatten()).or_else(generic).or_else(by_number)
    }
}

/// What labels that mean the same have in common: no case, and one way to write a whole number (pandas writes 1.0 for 1).
fn folded(label: &str) -> String {
    number(label).map_or_else(|| label.trim().to_lowercase(), |n| n.to_string())
}

/// A label that is a whole number.
fn number(label: &str) -> Option<i64> {
    let value: f64 = label.trim().parse().ok()?;
    (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64)
}

/// Sorted by value if all names are numbers, else as strings.
fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    let numbers: Option<Vec<f64>> = names.iter().map(|name| name.parse().ok()).collect();
    if let Some(numbers) = numbers {
        let mut both: Vec<_> = numbers.into_iter().zip(names).collect();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        names = both.into_iter().map(|(_, name)| name).collect();
    }
    names
}

/// The first names, for a message.
pub(super) fn excerpt<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = if names.len() > 12 { format!(" and {} more", names.len() - 12) } else { String::new() };
    format!("{}{more}", names.take(12).map(String::as_str).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|s| s.to_string()).collect()
    }

    fn classes(labels: &Labels, found: &[&str]) -> Result<(Vec<String>, Vec<usize>)> {
        let label = |(i, text): (usize, &&str)| Label { text: text.to_string(), count: 1, place: format!("line {}", i + 2) };
        labels.classes(&found.iter().enumerate().map(label).collect::<Vec<_>>(), Path::new("a.csv"))
    }

    #[test]
    fn names_that_are_found_are_sorted_by_value() {
        let of = |names: &[&str]| sorted(strings(names));
        assert_eq!(of(&["10", "9", "-1", "2.5"]), ["-1", "2.5", "9", "10"]);
        assert_eq!(of(&["10", "9", "many"]), ["10", "9", "many"]);
        assert_eq!(of(&["positive", "negative"]), ["negative", "positive"]);
    }

    #[test]
    fn case_and_decimals_make_no_second_class() {
        let found = [("Positive", 1), ("positive", 5), ("NEGATIVE", 2), ("positive ", 1), ("1", 4), ("1.0", 9)];
        let found = found.map(|(text, count)| Label { text: text.to_string(), count, place: String::new() });
        let (names, of) = Labels::default().classes(&found, Path::new("a.csv")).unwrap();
        assert_eq!(names, ["1", "NEGATIVE", "positive"]);
        assert_eq!(of, [2, 2, 1, 2, 0, 0]);
    }

    #[test]
    fn the_models_names_decide() {
        let model = Labels::named(&strings(&["POSITIVE", "NEGATIVE"]));
        assert_eq!(classes(&model, &["negative", "Positive", "LABEL_0", "label_1", "1", "0.0"]).unwrap().1, [1, 0, 0, 1, 1, 0]);
        let stars = Labels::named(&strings(&["1", "2", "3"]));
        assert_eq!(classes(&stars, &["1", "3.0", "2"]).unwrap().1, [0, 2, 1]);
        assert!(classes(&stars, &["0"]).is_err(), "with numbers for names, a number is a name");
        assert_eq!(classes(&Labels::named(&strings(&["a", "A"])), &["A", "a"]).unwrap().1, [1, 0]);
        for label in ["2", "LABEL_2", "-1", "neutral", "0.5", "true"] {
            let message = classes(&model, &["negative", label]).unwrap_err().to_string();
            let start = format!("a.csv: line 3: the label {label:?} is none of the classes POSITIVE, NEGATIVE");
            assert!(message.starts_with(&start), "{message}");
        }
    }

    #[test]
    fn labels_can_be_named_and_mapped() {
        let parse = |text: &str| Labels::parse(&text.split(',').map(String::from).collect::<Vec<_>>());
        let named = parse("negative,positive").unwrap();
        assert_eq!(classes(&named, &["1", "Negative"]).unwrap(), (strings(&["negative", "positive"]), vec![1, 0]));
        let mapped = parse("-1=neutral,0=negative,1=positive").unwrap();
        assert_eq!(classes(&mapped, &["1", "-1", "0"]).unwrap(), (strings(&["negative", "neutral", "positive"]), vec![2, 1, 0]));
        assert!(classes(&mapped, &["1", "0"]).unwrap_err().to_string().contains("no text has the label \"-1\""));
        let into = Labels { names: Some(strings(&["POS", "NEG"])), ..parse("good=pos,bad=neg").unwrap() };
        assert_eq!(classes(&into, &["bad", "good", "NEG"]).unwrap().1, [1, 0, 1]);
        for (text, problem) in [("a,A", "twice"), ("a,b=c", "either"), ("a,,b", "empty"), ("a=,b=c", "empty"), ("1,1.0", "twice")] {
            assert!(parse(text).unwrap_err().to_string().contains(problem), "{text}");
        }
    }

    #[test]
    fn rows_without_a_label_are_no_class() {
        let message = classes(&Labels::default(), &["0", "1", "-1"]).unwrap_err().to_string();
        assert!(message.contains("line 4: the label \"-1\" usually marks rows without a label"), "{message}");
        let many: Vec<String> = (0..100_000).map(|i| format!("c{i}")).collect();
        let message = classes(&Labels::default(), &many.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_err();
        assert!(message.to_string().contains("is this the label column?"), "{message}");
        let stars: Vec<String> = (2..=10).map(|i| format!("{}", f64::from(i) / 2.0)).collect();
        assert_eq!(classes(&Labels::default(), &stars.iter().map(String::as_str).collect::<Vec<_>>()).unwrap().0[1], "1.5");
        let prices: Vec<String> = (0..20).map(|i| format!("{i}.25")).collect();
        let message = classes(&Labels::default(), &prices.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_err().to_string();
        assert!(message.contains("a quantity and no classes"), "{message}");
        let text = |labels: Labels| format!("{labels:?}");
        assert_eq!(text(Labels::default()), "Labels { names: None, renamed: [], verbatim: false }", "part of the key of cached tokens");
        assert_ne!(
            text(Labels { outputs: Outputs::Numbers, ..Labels::default() }),
            text(Labels { outputs: Outputs::Labels, ..Labels::default() })
        );
    }
}
