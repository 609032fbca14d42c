//! The answer of a model to a text, in words and as JSON.

use super::adapted::Adapted;
use super::common::{say, say_json};
use lowrank::Result;
use lowrank::metrics::argmax;
use lowrank::nn::Outputs;
use serde_json::{Value, json};

/// Texts of a batch.
pub const BATCH: usize = 16;

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
        (Outputs::Classes, _) => format!("{}\t{:.4}", adapted.labels[argmax(row)], row[argmax(row)]),
        (Outputs::Numbers, [number]) => format!("{number:.4}"),
        (outputs, _) => {
            let each: Vec<String> = adapted.labels.iter().zip(row).map(|(label, score)| format!("{label} {score:.4}")).collect();
            let first = if outputs == Outputs::Labels { format!("{}\t", adapted.answered(row).join("|")) } else { String::new() };
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
    let name = if named { format!("{}\t", adapted.name) } else { String::new() };
    let texts: Vec<String> = [text].into_iter().chain(second).map(|text| text.replace(['\t', '\n', '\r'], " ")).collect();
    say(format!("{name}{}\t{}", line(adapted, row), texts.join("\t")))
}
