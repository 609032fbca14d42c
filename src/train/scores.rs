//! What the logits of each kind of head mean, and the figures of heads for regression and for several labels at once.

use crate::metrics::{softmax, wilson};
use crate::nn::Outputs;
use crate::{Error, Result};
use serde::Serialize;

/// The scores of a text with the logits `[C]`: probabilities of classes of which one is right (softmax), probabilities of labels of which any
/// number is right (a sigmoid each), or the logits themselves (regression). The logits of classes are divided by `temperature` first: 1, or what
/// [`temperature`](crate::metrics::temperature()) finds.
pub fn scores(outputs: Outputs, logits: &[f64], temperature: f64) -> Vec<f64> {
    match outputs {
        Outputs::Classes => softmax(&logits.iter().map(|z| z / temperature).collect::<Vec<_>>()),
        Outputs::Labels => logits.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
        Outputs::Numbers => logits.to_vec(),
    }
}

/// Errors of a regression.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumberErrors {
    /// Number of texts.
    pub examples: usize,
    /// Mean of (ŷ − y)².
    pub mean_squared_error: f64,
    /// Mean of |ŷ − y|.
    pub mean_absolute_error: f64,
}

/// The errors of `scores` `[N][C]` of [`Outputs::Numbers`], for `wanted` `[N][C]`.
pub fn number_errors(scores: &[Vec<f64>], wanted: &[Vec<f64>]) -> NumberErrors {
    let errors: Vec<f64> = scores.iter().flatten().zip(wanted.iter().flatten()).map(|(found, wanted)| found - wanted).collect();
    let mean = |of: fn(f64) -> f64| errors.iter().map(|e| of(*e)).sum::<f64>() / errors.len().max(1) as f64;
    NumberErrors { examples: scores.len(), mean_squared_error: mean(|e| e * e), mean_absolute_error: mean(f64::abs) }
}

/// Figures of a multi-label head. A label is predicted if its probability is at least 1/2.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelsFound {
    /// Number of texts.
    pub examples: usize,
    /// Share of the texts whose labels are all right, as scikit-learn's `accuracy_score`.
    pub accuracy: f64,
    /// 95 % interval of `accuracy`.
    pub interval: (f64, f64),
    /// Share of right decisions over all texts and labels.
    pub label_accuracy: f64,
}

/// The figures of `scores` `[N][C]` of [`Outputs::Labels`], for `wanted` `[N][C]` of zeros and ones.
pub fn labels_found(scores: &[Vec<f64>], wanted: &[Vec<f64>]) -> LabelsFound {
    let right = |(found, wanted): &(&f64, &f64)| (**found >= 0.5) == (**wanted >= 0.5);
    let (mut all, mut each, mut count) = (0, 0, 0);
    for (found, wanted) in scores.iter().zip(wanted) {
        let hits = found.iter().zip(wanted).filter(right).count();
        each += hits;
        count += found.len();
        all += usize::from(hits == found.len());
    }
    let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
    let examples = scores.len();
    LabelsFound { examples, accuracy: share(all, examples), interval: wilson(all, examples), label_accuracy: share(each, count) }
}

/// The wanted scores `[count]` of a text whose label in a file is `label`. `class` gives the index of a label's name.
///
/// For regression: a number, or a JSON list of numbers. For several labels: their names, in a JSON list or separated by `,`, `;` or `|`, or a
/// JSON list of zeros and ones. If the head has a single label: 1 or 0.
///
/// # Errors
/// If `label` has none of these forms.
pub fn target(outputs: Outputs, label: &str, count: usize, class: &dyn Fn(&str) -> Option<usize>) -> Result<Vec<f64>> {
    let wrong = |what: &str| Err(Error::invalid(format!("the label {label:?} is not {what}")));
    let list: Option<Vec<serde_json::Value>> = serde_json::from_str(label).ok();
    let numbers: Option<Vec<f64>> = match &list {
        Some(list) => list.iter().map(serde_json::Value::as_f64).collect(),
        None if outputs == Outputs::Labels && label.eq_ignore_ascii_case("true") => Some(vec![1.0]),
        None if outputs == Outputs::Labels && label.eq_ignore_ascii_case("false") => Some(vec![0.0]),
        None => label.trim().parse().ok().filter(|x: &f64| x.is_finite()).map(|x| vec![x]),
    };
    let numbers = numbers.filter(|numbers| numbers.len() == count);
    if outputs == Outputs::Numbers {
        let what = if count == 1 { "a number".to_string() } else { format!("a list of {count} numbers") };
        return numbers.map_or_else(|| wrong(&what), Ok);
    }
    if let Some(bits) = numbers.filter(|numbers| (count == 1 || list.is_some()) && numbers.iter().all(|x| *x == 0.0 || *x == 1.0)) {
        return Ok(bits);
    }
    let names: Vec<String> = match &list {
        // A list may have the index of a label instead of its name.
        Some(list) => list.iter().filter_map(|name| name.as_str().map(String::from).or(name.as_u64().map(|i| i.to_string()))).collect(),
        None => label.split([',', ';', '|']).map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect(),
    };
    let mut bits = vec![0.0; count];
    for name in &names {
        match class(name) {
            Some(i) => bits[i] = 1.0,
            None => return wrong("a list of the model's labels"),
        }
    }
    // Entries that are neither were left out above.
    if list.is_some_and(|list| list.len() != names.len()) { wrong("a list of the model's labels") } else { Ok(bits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_head_has_its_scores() {
        let z = [0.0, 3.0_f64.ln()];
        assert_eq!(scores(Outputs::Numbers, &z, 1.0), z);
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-15);
        assert!(near(&scores(Outputs::Classes, &z, 1.0), &[0.25, 0.75]));
        assert!(near(&scores(Outputs::Classes, &[0.0, 9.0_f64.ln()], 2.0), &[0.25, 0.75]));
        assert!(near(&scores(Outputs::Labels, &z, 1.0), &[0.5, 0.75]));
        assert_eq!(scores(Outputs::Labels, &[-800.0, 800.0], 1.0), [0.0, 1.0]);
    }

    #[test]
    fn errors_are_those_of_the_formulas() {
        let found = number_errors(&[vec![1.0], vec![-2.0]], &[vec![2.0], vec![1.0]]);
        assert_eq!((found.examples, found.mean_squared_error, found.mean_absolute_error), (2, 5.0, 2.0));
        let rows = [vec![0.9, 0.4], vec![0.5, 0.6], vec![0.1, 0.2]];
        let found = labels_found(&rows, &[vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 0.0]]);
        assert_eq!((found.accuracy, found.label_accuracy), (2.0 / 3.0, 5.0 / 6.0));
    }

    #[test]
    fn targets_are_read() {
        let names = ["joy", "anger", "fear"];
        let class = |name: &str| names.iter().position(|n| *n == name).or(name.parse().ok().filter(|i| *i < 3));
        let labels = |text: &str| target(Outputs::Labels, text, 3, &class);
        for (text, bits) in [
            ("joy|fear", [1.0, 0.0, 1.0]),
            ("[\"anger\"]", [0.0, 1.0, 0.0]),
            ("[]", [0.0; 3]),
            ("[0, 1, 1]", [0.0, 1.0, 1.0]),
            ("joy, anger", [1.0, 1.0, 0.0]),
            ("[0, 2]", [1.0, 0.0, 1.0]),
        ] {
            assert_eq!(labels(text).unwrap(), bits, "{text}");
        }
        for text in ["sad", "[0, 9]", "[2, 0, 7]", "[\"joy\", 3]"] {
            assert!(labels(text).unwrap_err().to_string().contains("list of the model's labels"), "{text}");
        }
        for (text, bit) in [("1", 1.0), ("0", 0.0), ("true", 1.0), ("False", 0.0)] {
            assert_eq!(target(Outputs::Labels, text, 1, &class).unwrap(), [bit], "{text}");
        }
        assert_eq!(target(Outputs::Numbers, "-1.5", 1, &class).unwrap(), [-1.5]);
        assert_eq!(target(Outputs::Numbers, "[1, 2.5]", 2, &class).unwrap(), [1.0, 2.5]);
        assert!(target(Outputs::Numbers, "high", 1, &class).unwrap_err().to_string().contains("is not a number"));
    }
}
