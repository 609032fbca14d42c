//! One training step as a ledger: what every operation computed, what it saved for backward and why, and where the gradient stops. `lowrank explain`
//! prints it, and `drawing.rs` makes a page of it.

mod drawing;
mod words;

pub use drawing::{SCRIPT, STYLE, page};

use lowrank::autograd::{Record, Tape};
use lowrank::data::WordPiece;
use lowrank::lora::{Counts, LoraConfig, Method};
use lowrank::nn::{Config, DistilBert, LoadOptions, Pass};
use lowrank::tensor::{Sequences, Shape};
use lowrank::{Error, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// A text to show a step with.
pub const TEXT: &str = "A film that I did not expect to like, and then could not stop thinking about.";

/// One training step.
#[derive(Serialize)]
pub struct Step {
    /// Name of the way to fine-tune.
    pub title: String,
    /// Number of texts.
    pub texts: usize,
    /// Number of their tokens.
    pub tokens: usize,
    /// PEFT's line about what trains.
    pub counts: String,
    /// Mean cross-entropy for class 0, in nats.
    pub loss: f64,
    /// In the order of forward.
    pub operations: Vec<Operation>,
    /// Floating-point operations of forward, of backward, and those that backward is spared because weights are frozen.
    pub flops: [u64; 3],
    /// Bytes saved for backward beside the model.
    pub saved_bytes: usize,
    /// Number of gradients.
    pub gradients: usize,
    /// Number of parameters.
    pub parameters: usize,
}

/// One operation.
#[derive(Serialize)]
pub struct Operation {
    /// The layer that it belongs to.
    pub layer: String,
    /// Name of the op.
    pub name: &'static str,
    /// What it computes.
    pub formula: &'static str,
    /// What it reads, in the order of the op.
    pub inputs: Vec<Input>,
    /// Shape of the output.
    pub output: String,
    /// What it kept for backward.
    pub saved: Vec<Saved>,
    /// Whether a gradient passes through it.
    pub gradient: bool,
    /// As in [`Step::flops`].
    pub flops: [u64; 3],
}

/// An input of an operation.
#[derive(Serialize)]
pub struct Input {
    /// Name of the weight, or what the input is.
    pub name: String,
    /// Its shape.
    pub shape: String,
    /// The operation that made it.
    pub from: Option<usize>,
    /// What kind of input it is.
    pub kind: Kind,
    /// Whether a gradient is computed for it.
    pub gradient: bool,
}

/// What an input is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The output of another operation.
    Value,
    /// A weight that does not train.
    Frozen,
    /// A weight that trains.
    Trained,
    /// Token ids or labels.
    Data,
}

/// A tensor that an operation kept for backward.
#[derive(Serialize)]
pub struct Saved {
    /// Its name in the op.
    pub name: &'static str,
    /// Its size.
    pub bytes: usize,
    /// Whose memory it takes.
    pub memory: Memory,
    /// What backward needs it for.
    pub why: &'static str,
}

/// Whose memory a saved tensor takes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// It is a weight.
    Model,
    /// Another operation saved it too.
    Shared,
    /// It takes memory of its own.
    Own,
}

/// A step of `method` on `texts`, from the checkpoint in the folder `base`. All texts have the label 0.
///
/// # Errors
/// If the checkpoint is missing or malformed, or lacks what the method names.
pub fn measure(base: &Path, texts: &[String], title: &str, method: &Method) -> Result<Step> {
    let classes = Config::open(base)?.labels().len();
    let mut model = DistilBert::open_with(base, &LoadOptions { classes: Some(classes), ..LoadOptions::default() })?.0;
    method.apply(&mut model, 0)?;
    let wordpiece = WordPiece::open(base)?;
    wordpiece.check_fits(model.config.vocab_size)?;
    let ids: Vec<Vec<u32>> = texts.iter().map(|t| wordpiece.encode(t, model.config.max_position_embeddings)).collect();
    let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
    let sequences = Sequences::new(&lengths, (0..ids.len() as u32).collect())?;
    let pass = Pass::training(Arc::new(sequences), 0);
    let mut tape = Tape::with_ledger();
    let logits = model.forward(&mut tape, &ids.concat(), &pass)?;
    let loss = tape.cross_entropy(&logits, &vec![0; ids.len()], ids.len())?;
    let ledger = tape.ledger().to_vec();
    let grads = tape.backward(&loss)?;
    let (gradients, parameters) = (grads.len(), model.parameters().len());
    if gradients != parameters {
        return Err(Error::invalid(format!("explain: {gradients} gradients for {parameters} parameters: one was not reached")));
    }
    let operations = operations(&model, &ledger)?;
    let own = operations.iter().flat_map(|op| &op.saved).filter(|saved| saved.memory == Memory::Own);
    let saved_bytes = own.map(|saved| saved.bytes).sum();
    let flops = [0, 1, 2].map(|i| operations.iter().map(|op| op.flops[i]).sum());
    let (counts, loss) = (Counts::of(&model).peft_line(), loss.value().item()?);
    let (texts, tokens) = (ids.len(), pass.sequences.tokens());
    Ok(Step { title: title.to_string(), texts, tokens, counts, loss, operations, flops, saved_bytes, gradients, parameters })
}

/// A step of LoRA, and one of full fine-tuning.
///
/// # Errors
/// Those of [`measure`].
pub fn side_by_side(base: &Path, texts: &[String], lora: LoraConfig) -> Result<[Step; 2]> {
    let title = format!("LoRA on {}, r = {}", lora.targets.join(", "), lora.rank);
    Ok([measure(base, texts, &title, &Method::Lora(lora))?, measure(base, texts, "Full fine-tuning", &Method::Full)?])
}

/// The operations of a ledger. Saving a weight costs no memory: the model holds it anyway.
fn operations(model: &DistilBert, ledger: &[Record]) -> Result<Vec<Operation>> {
    let mut weights = BTreeMap::new();
    for weight in model.parts().into_iter().map(|part| part.weight()) {
        weights.insert(weight.value()?.storage_id(), (weight.name().to_string(), weight.trains()));
    }
    let own = model.storages();
    let mut seen = BTreeSet::new();
    let mut made_by = BTreeMap::new();
    let mut all = Vec::new();
    for (i, record) in ledger.iter().enumerate() {
        let input = |(place, ((shape, storage), gradient)): (usize, (&(Shape, usize), &bool))| {
            let (name, kind, from) = match (weights.get(storage), made_by.get(storage)) {
                (Some((name, true)), _) => (name.clone(), Kind::Trained, None),
                (Some((name, false)), _) => (name.clone(), Kind::Frozen, None),
                (None, Some(from)) if !words::is_data(record.op, place) => (words::input(record.op).to_string(), Kind::Value, Some(*from)),
                _ => (words::data(record.op).to_string(), Kind::Data, None),
            };
            Input { name, shape: shape.to_string(), from, kind, gradient: *gradient }
        };
        let inputs = record.inputs.iter().zip(&record.needs).enumerate().map(input).collect();
        let saved = record.saved.iter().map(|&(name, bytes, storage)| {
            let memory = match (own.contains(&storage), seen.insert(storage)) {
                (true, _) => Memory::Model,
                (false, true) => Memory::Own,
                (false, false) => Memory::Shared,
            };
            Saved { name, bytes, memory, why: words::why(record.op, name) }
        });
        let saved = saved.collect();
        all.push(Operation {
            layer: record.layer.clone(),
            name: record.op,
            formula: words::formula(record.op),
            inputs,
            output: record.output.to_string(),
            saved,
            gradient: record.needs.contains(&true),
            flops: record.flops,
        });
        made_by.insert(record.storage, i);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lora_and_full_fine_tuning_run_the_same_operations_and_save_other_things() {
        let base = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder"));
        let [lora, full] = side_by_side(base, &[TEXT.to_string()], LoraConfig::new(4, &["q_lin", "v_lin"])).unwrap();
        let names = |step: &Step| step.operations.iter().map(|op| (op.layer.clone(), op.name)).collect::<Vec<_>>();
        assert_eq!(names(&lora), names(&full));
        assert!(lora.saved_bytes < full.saved_bytes && lora.flops[1] < full.flops[1] && full.flops[2] == 0);
        let first = &lora.operations[0];
        assert!(first.name == "embedding_layer_norm" && !first.gradient && first.saved.is_empty());
        let kinds = |step: &Step, kind| step.operations.iter().flat_map(|op| &op.inputs).filter(|input| input.kind == kind).count();
        assert!(kinds(&lora, Kind::Frozen) > 0 && kinds(&full, Kind::Frozen) == 0);
        assert_eq!(kinds(&full, Kind::Trained), full.parameters);
        for step in [&lora, &full] {
            for (i, op) in step.operations.iter().enumerate() {
                assert!(!op.formula.is_empty() && op.saved.iter().all(|saved| !saved.why.is_empty()), "{} has no words", op.name);
                assert!(op.inputs.iter().all(|input| input.from.is_none_or(|from| from < i)), "{i} {}", op.name);
                // Each operation but the first reads an earlier one.
                assert!(i == 0 || op.inputs.iter().any(|input| input.from.is_some()), "{i} {}", op.name);
            }
            // The chain from the loss leads back to the embeddings.
            let mut at = step.operations.len() - 1;
            while let Some(from) = step.operations[at].inputs.iter().find_map(|input| input.from) {
                at = from;
            }
            assert_eq!(at, 0);
        }
    }
}
