//! Labels that are no classes: several names for a text, or a number.

use super::labels::{Label, Labels, no_class};
use super::tokenized::{Targets, Tokenized};
use crate::outputs::{Outputs, generic_label};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

impl Tokenized {
    /// Reads the labels, which are those of the file at `path`, as what a model should answer: `labels` has the kind of outputs, and perhaps their
    /// names. Then [`Tokenized::label_names`] has the names of the outputs. Classes stay as they are.
    ///
    /// # Errors
    /// If a label does not have the form that [`super::load`] describes.
    pub fn with_targets(self, labels: &Labels, path: &Path) -> Result<Tokenized> {
        if labels.outputs == Outputs::Classes {
            return Ok(self);
        }
        let counts = self.class_counts();
        let label = |(text, count): (&String, usize)| Label { text: text.clone(), count, place: "labels".to_string() };
        let found: Vec<Label> = self.label_names.iter().zip(counts).map(label).collect();
        let (label_names, rows) = targets(labels, &found, path)?;
        Ok(Tokenized { label_names, targets: Some(Targets { outputs: labels.outputs, rows }), ..self })
    }

    /// What a model should answer for each sequence: `[N][C]`. Empty if the labels are classes.
    pub fn wanted(&self) -> Vec<Vec<f64>> {
        let rows = self.targets.as_ref().map(|targets| &targets.rows);
        rows.map_or(Vec::new(), |rows| self.labels.iter().map(|&label| rows[label as usize].clone()).collect())
    }
}

/// The names of the outputs, and what each label of `found` means: `[L][C]`.
///
/// # Errors
/// If a label has another form, or a name that is none of those in `labels`; the message has its place.
pub(super) fn targets(labels: &Labels, found: &[Label], path: &Path) -> Result<(Vec<String>, Vec<Vec<f64>>)> {
    let (names, rows) = each_target(labels, found, path)?;
    Ok((names, rows.into_iter().collect::<Result<_>>()?))
}

/// [`targets`], with an error for each label that is wrong.
///
/// # Errors
/// If the labels cannot be read together.
pub(super) fn each_target(labels: &Labels, found: &[Label], path: &Path) -> Result<Each> {
    if labels.outputs == Outputs::Numbers { numbers(labels, found, path) } else { several(labels, found, path) }
}

/// The names of the outputs, and what each label means.
type Each = (Vec<String>, Vec<Result<Vec<f64>>>);

/// Largest size of a number to learn. The square of an error must fit into f32 and leave digits for smaller ones.
const LARGEST: f64 = 1e9;

fn numbers(labels: &Labels, found: &[Label], path: &Path) -> Result<Each> {
    let names = labels.names.clone().unwrap_or_else(|| vec![generic_label(0)]);
    let row = |label: &Label| {
        let list = list(&label.text).and_then(|list| list.iter().map(Value::as_f64).collect());
        let row = list.or_else(|| label.text.trim().parse().ok().map(|x: f64| vec![x]));
        let what = if names.len() == 1 { "a number".to_string() } else { format!("a list of {} numbers", names.len()) };
        let good = |row: &Vec<f64>| row.len() == names.len() && row.iter().all(|x| x.abs() <= LARGEST);
        row.filter(good).ok_or_else(|| wrong(path, label, &format!("{what} from -{LARGEST:e} to {LARGEST:e}")))
    };
    let rows = found.iter().map(row).collect();
    Ok((names, rows))
}

/// The labels of a text, as they are in the file.
enum Parts {
    Bits(Vec<f64>),
    Names(Vec<String>),
}

/// The zeros and ones of a label that is a list of them.
fn bits(label: &Label) -> Option<Vec<f64>> {
    list(&label.text)?.iter().map(|x| x.as_f64().filter(|x| *x == 0.0 || *x == 1.0)).collect()
}

/// The length of all labels, if they are lists of zeros and ones of one length, more than 1. An empty list has none of the labels in any form.
///
/// # Errors
/// If a list of zeros and ones has another length than the first, and they cannot be lists of indices.
fn length_of_bits(labels: &Labels, found: &[Label], path: &Path) -> Result<Option<usize>> {
    let Some(lists) = found.iter().map(bits).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let lists: Vec<_> = found.iter().zip(lists).filter(|(_, list)| !list.is_empty()).collect();
    let first = lists.first().map_or(0, |(_, list)| list.len());
    let other = lists.iter().find(|(_, list)| list.len() != first);
    // A list of indices has none twice.
    let repeats = |list: &[f64]| list.len() > 2 || list.len() == 2 && list[0] == list[1];
    match other {
        Some((label, _)) if labels.names.is_none() && lists.iter().any(|(_, list)| repeats(list)) => {
            Err(wrong(path, label, &format!("a list of {first} zeros and ones, as other labels are")))
        }
        Some(_) => Ok(None),
        None => Ok((first > 1).then_some(first)),
    }
}

fn several(labels: &Labels, found: &[Label], path: &Path) -> Result<Each> {
    // How many outputs there are, if it is known: lists of so many zeros and ones have a number for each.
    let same = length_of_bits(labels, found, path)?;
    let count = labels.names.as_ref().map(Vec::len).or(same);
    let of = |label: &Label| match (bits(label), list(&label.text), count) {
        (Some(bits), _, Some(count)) if bits.len() == count => Some(Parts::Bits(bits)),
        (_, Some(list), _) => {
            // A list may have the index of a label instead of its name.
            let name = |value: &Value| value.as_str().map(String::from).or(value.as_u64().map(|i| i.to_string()));
            list.iter().map(name).collect::<Option<_>>().map(Parts::Names)
        }
        (_, None, Some(1)) if ["1", "true"].iter().any(|one| label.text.eq_ignore_ascii_case(one)) => Some(Parts::Bits(vec![1.0])),
        (_, None, Some(1)) if ["0", "false"].iter().any(|zero| label.text.eq_ignore_ascii_case(zero)) => Some(Parts::Bits(vec![0.0])),
        _ => Some(Parts::Names(label.text.split(SEPARATORS).map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect())),
    };
    let all: Vec<Option<Parts>> = found.iter().map(of).collect();
    let (mut parts, mut index): (Vec<Label>, HashMap<&str, usize>) = (Vec::new(), HashMap::new());
    for (label, names) in found.iter().zip(&all) {
        let Some(Parts::Names(names)) = names else { continue };
        for name in names {
            let i = *index.entry(name).or_insert_with(|| {
                parts.push(Label { text: name.clone(), count: 0, place: label.place.clone() });
                parts.len() - 1
            });
            parts[i].count += label.count;
        }
    }
    let (names, classes) = match (parts.is_empty(), same.filter(|_| labels.names.is_none())) {
        (true, Some(count)) => ((0..count).map(generic_label).collect(), Vec::new()),
        (true, None) if labels.names.is_none() => {
            return Err(Error::file(path, "labels", "no text has a label: there is nothing to learn"));
        }
        _ => Labels { outputs: Outputs::Classes, ..labels.clone() }.each_class(&parts, path)?,
    };
    check_size(found.len(), names.len(), path)?;
    let row = |(own, label): (&Option<Parts>, &Label)| match own {
        None => Err(wrong(path, label, "a list of labels")),
        Some(Parts::Bits(bits)) => Ok(bits.clone()),
        Some(Parts::Names(own)) => {
            let mut row = vec![0.0; names.len()];
            for i in own.iter().map(|name| index[name.as_str()]) {
                row[classes[i].ok_or_else(|| no_class(&names, &parts[i], path))?] = 1.0;
            }
            Ok(row)
        }
    };
    let rows = all.iter().zip(found).map(row).collect();
    Ok((names, rows))
}

/// Largest number of zeros and ones for all different combinations of labels together: 1 GiB in f64.
const MOST_NUMBERS: usize = 1 << 27;

/// Checks the numbers `[L][C]` of `combinations` of `outputs` labels, before memory is allocated for them.
fn check_size(combinations: usize, outputs: usize, path: &Path) -> Result<()> {
    if combinations.checked_mul(outputs).is_some_and(|n| n <= MOST_NUMBERS) {
        return Ok(());
    }
    let most = format!("{combinations} different combinations of {outputs} labels are more than {MOST_NUMBERS} numbers, the limit");
    Err(Error::file(path, "labels", format!("{most}: is this the label column? Leave out rare labels, or give fewer names with --labels")))
}

/// Between the labels of a text that are no JSON list.
const SEPARATORS: [char; 3] = ['|', ',', ';'];

fn list(text: &str) -> Option<Vec<Value>> {
    serde_json::from_str(text).ok()
}

fn wrong(path: &Path, label: &Label, what: &str) -> Error {
    Error::file(path, &label.place, format_args!("the label {:?} is not {what}", label.text))
}

#[cfg(test)]
mod tests {
    use super::super::WordPiece;
    use super::super::rows::{Row, dataset};
    use super::*;

    fn of(outputs: Outputs, names: Option<&[&str]>, found: &[&str]) -> Result<(Vec<String>, Vec<Vec<f64>>)> {
        let label = |(i, text): (usize, &&str)| Label { text: text.to_string(), count: 1, place: format!("line {}", i + 2) };
        let found: Vec<Label> = found.iter().enumerate().map(label).collect();
        let names = names.map(|names| names.iter().map(|name| name.to_string()).collect());
        targets(&Labels { names, outputs, ..Labels::default() }, &found, Path::new("a.csv"))
    }

    #[test]
    fn several_labels_are_read() {
        let names = ["joy", "anger", "fear"];
        for (text, bits) in [
            ("joy|fear", [1.0, 0.0, 1.0]),
            ("[\"anger\"]", [0.0, 1.0, 0.0]),
            ("[]", [0.0; 3]),
            ("[0, 1, 1]", [0.0, 1.0, 1.0]),
            ("Joy, anger", [1.0, 1.0, 0.0]),
            ("[0, 2]", [1.0, 0.0, 1.0]),
        ] {
            assert_eq!(of(Outputs::Labels, Some(&names), &[text]).unwrap().1, [bits], "{text}");
        }
        let found = of(Outputs::Labels, None, &["b|a", "[]", "[\"c\", \"a\"]", "A"]).unwrap();
        assert_eq!(found.0, ["a", "b", "c"]);
        assert_eq!(found.1, [[1.0, 1.0, 0.0], [0.0; 3], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]);
        let found = of(Outputs::Labels, None, &["[0, 1]", "[1, 1]"]).unwrap();
        assert_eq!(found, (vec!["LABEL_0".to_string(), "LABEL_1".into()], vec![vec![0.0, 1.0], vec![1.0, 1.0]]));
        for (text, bit) in [("1", 1.0), ("0", 0.0), ("true", 1.0), ("False", 0.0)] {
            assert_eq!(of(Outputs::Labels, Some(&["spam"]), &[text]).unwrap().1, [[bit]], "{text}");
        }
        for (text, problem) in [
            ("sad", "a.csv: line 2: the label \"sad\" is none of the classes joy, anger, fear"),
            ("[0, 9]", "line 2: the label \"9\" is none of the classes"),
            ("[\"joy\", 1.5]", "line 2: the label \"[\\\"joy\\\", 1.5]\" is not a list of labels"),
        ] {
            let message = of(Outputs::Labels, Some(&names), &[text]).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
        assert!(of(Outputs::Labels, None, &["[]"]).unwrap_err().to_string().contains("no text has a label"));
    }

    #[test]
    fn too_many_combinations_are_refused_before_they_take_memory() {
        let names: Vec<String> = (0..4096).map(|i| format!("n{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found: Vec<String> = (0..32_769).map(|i| format!("n{}|n{}", i % 4096, (i * 7 + i / 4096) % 4096)).collect();
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        let message = of(Outputs::Labels, Some(&names), &found).unwrap_err().to_string();
        let start = "a.csv: labels: 32769 different combinations of 4096 labels are more than 134217728 numbers, the limit: ";
        assert!(message.starts_with(start), "{message}");
        assert!(check_size(32_768, 4096, Path::new("a.csv")).is_ok());
        assert!(check_size(usize::MAX, 2, Path::new("a.csv")).is_err());
    }

    #[test]
    fn lists_of_bits_stay_lists_of_bits() {
        let bits = of(Outputs::Labels, None, &["[1, 0, 0]", "[]", "[0, 1, 1]"]).unwrap();
        assert_eq!(bits.1, [[1.0, 0.0, 0.0], [0.0; 3], [0.0, 1.0, 1.0]]);
        let message = of(Outputs::Labels, None, &["[1, 0, 0]", "[0, 1, 1]", "[0, 1]"]).unwrap_err().to_string();
        assert!(message.contains("line 4: the label \"[0, 1]\" is not a list of 3 zeros and ones"), "{message}");
        // Indices: no list has one twice.
        assert_eq!(of(Outputs::Labels, None, &["[0, 1]", "[1]", "[]"]).unwrap().1, [vec![1.0, 1.0], vec![0.0, 1.0], vec![0.0, 0.0]]);
    }

    #[test]
    fn numbers_are_read() {
        assert_eq!(
            of(Outputs::Numbers, None, &["-1.5", "2", "[3]"]).unwrap(),
            (vec!["LABEL_0".into()], vec![vec![-1.5], vec![2.0], vec![3.0]])
        );
        assert_eq!(of(Outputs::Numbers, Some(&["x", "y"]), &["[1, 2.5]"]).unwrap().1, [[1.0, 2.5]]);
        for text in ["high", "[1, 2]", "inf", "NaN", "", "1e300", "[-1e10]"] {
            let message = of(Outputs::Numbers, None, &["1", text]).unwrap_err().to_string();
            assert!(message.contains("a.csv: line 3: the label") && message.contains("is not a number"), "{message}");
        }
    }

    #[test]
    fn each_text_gets_the_numbers_of_its_row() {
        let row = |label: &str| Row { name: String::new(), text: "a".to_string(), second: None, label: label.to_string(), lossy: false };
        let (labels, path) = (Labels { outputs: Outputs::Numbers, ..Labels::default() }, Path::new("a.csv"));
        let data = dataset(vec![row("2"), row("-1.5"), row("2")], path, &labels).unwrap();
        assert_eq!((&data.label_names[..], &data.labels[..]), (&["2".to_string(), "-1.5".into()][..], &[0, 1, 0][..]));
        let wordpiece = WordPiece::from_vocab("[UNK] [CLS] [SEP] a".split(' ').map(String::from)).unwrap();
        let tokens = Tokenized::new(&data, &wordpiece, 8).with_targets(&labels, path).unwrap();
        assert_eq!((tokens.wanted(), &tokens.label_names[..]), (vec![vec![2.0], vec![-1.5], vec![2.0]], &["LABEL_0".to_string()][..]));
    }
}
