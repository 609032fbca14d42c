//! The answer of a model to a text, in words and as JSON.

use super::adapted::Adapted;
use super::common::{say, say_json};
use super::notes::in_line;
use super::ranks::{check_inference, ranks};
use crate::table::{Answer, AnswerKind, Column};
use lowrank::Result;
use lowrank::cut::Windows;
use lowrank::metrics::argmax;
use lowrank::nn::Outputs;
use lowrank::train::mean_logits;
use serde_json::{Value, json};

/// Texts of a batch.
pub const BATCH: usize = 16;

/// The scores `[N][C]` of texts, by all ranks. `None` if `go_on` stops it, which gets the number of texts that are done, about.
///
/// # Errors
/// Those of the model, and if the ranks have different texts or models.
pub fn scores(adapted: &Adapted, windows: &Windows, batch: usize, go_on: &mut dyn FnMut(usize) -> bool) -> Result<Option<Vec<Vec<f64>>>> {
    check_inference(&adapted.model, &windows.sequences())?;
    Ok(mean_logits(&*ranks(), &adapted.model, windows, batch, go_on)?.map(|logits| adapted.scores(&logits)))
}

/// The columns of the answers in a table: the answer, and the score of each class or label.
pub fn columns(adapted: &Adapted) -> Vec<Column> {
    let column = |name: &str, kind| Column { name: name.to_string(), kind };
    let each = |what: &str| adapted.labels.iter().map(|label| column(&format!("{what}({label})"), AnswerKind::Number)).collect();
    let (first, scores) = match (adapted.outputs, adapted.labels.len()) {
        (Outputs::Classes, _) => (vec![column("label", AnswerKind::Text), column("probability", AnswerKind::Number)], each("p")),
        (Outputs::Labels, _) => (vec![column("labels", AnswerKind::Texts)], each("p")),
        (Outputs::Numbers, 1) => (vec![column("number", AnswerKind::Number)], Vec::new()),
        (Outputs::Numbers, _) => (Vec::new(), each("number")),
    };
    first.into_iter().chain(scores).collect()
}

/// The answers of a row of scores `[C]`, in the order of [`columns`].
pub fn answers(adapted: &Adapted, row: &[f64]) -> Vec<Answer> {
    let best = argmax(row);
    let first = match adapted.outputs {
        Outputs::Classes => vec![Answer::Text(adapted.labels[best].clone()), Answer::Number(row[best])],
        Outputs::Labels => vec![Answer::Texts(adapted.answered(row).into_iter().map(String::from).collect())],
        Outputs::Numbers => Vec::new(),
    };
    first.into_iter().chain(row.iter().map(|&number| Answer::Number(number))).collect()
}

/// An answer as JSON. The numbers of a regression are also stored as `probabilities`, so that readers can treat all models alike.
pub fn object(adapted: &Adapted, text: &str, row: &[f64]) -> Value {
    let best = argmax(row);
    match adapted.outputs {
        Outputs::Classes => json!({ "text": text, "label": adapted.labels[best], "probability": row[best], "probabilities": row }),
        Outputs::Labels => json!({ "text": text, "labels": adapted.answered(row), "probabilities": row }),
        Outputs::Numbers => json!({ "text": text, "numbers": row, "probabilities": row }),
    }
}

/// An answer as text: the likeliest class and its probability; the number of a regression with one output; else each output with its score, and of several
/// labels first those that are answered.
fn line(adapted: &Adapted, row: &[f64]) -> String {
    match (adapted.outputs, row) {
        (Outputs::Classes, _) => format!("{}\t{:.4}", in_line(&adapted.labels[argmax(row)]), row[argmax(row)]),
        (Outputs::Numbers, [number]) => format!("{number:.4}"),
        (outputs, _) => {
            let each: Vec<String> = adapted.labels.iter().zip(row).map(|(label, score)| format!("{} {score:.4}", in_line(label))).collect();
            let first = if outputs == Outputs::Labels { format!("{}\t", in_line(adapted.answered(row).join("|"))) } else { String::new() };
            format!("{first}{}", each.join(", "))
        }
    }
}

/// Prints the answer with the scores `row` `[C]` to a text, or to a pair of texts if there is a `second` one: as a JSON object, or as a line. `named`: with the
/// name of the model.
///
/// # Errors
/// If standard output cannot be written.
pub fn say_answer(adapted: &Adapted, named: bool, (text, second): (&str, Option<&str>), row: &[f64], as_json: bool) -> Result<()> {
    if as_json {
        let mut object = object(adapted, text, row);
        second.iter().for_each(|second| object["text_pair"] = json!(second));
        if named {
            object["adapter"] = json!(adapted.name);
        }
        return say_json(&object);
    }
    let name = if named { format!("{}\t", in_line(&adapted.name)) } else { String::new() };
    let texts: Vec<String> = [text].into_iter().chain(second).map(|text| text.replace(['\t', '\n', '\r'], " ")).collect();
    say(format!("{name}{}\t{}", line(adapted, row), texts.join("\t")))
}
