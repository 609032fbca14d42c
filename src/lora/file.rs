//! `adapter_model.safetensors`: PEFT's names for tensors, and how tensors get from the file into a model.

use super::LoraConfig;
use super::fields::Report;
use super::virtual_tokens::PROMPT;
use crate::nn::{DistilBert, Origin, Weight, WeightMut, in_head, in_pooler};
use crate::outputs::check_classes;
use crate::tensor::safetensors::SafeTensors;
use crate::tensor::{DType, Shape, Tensor};
use crate::{Error, Result};
use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

const PREFIX: &str = "base_model.model.";
const UNWRAPPED: &str = "base_model.";

/// The weights that an adapter's file holds: every weight that trains, every weight that a method added, and the whole head. The head is held even if
/// it is frozen, because a head that the base lacks is random and would be lost. (BERT's pooler is held if it trains, and it does if the base lacks it.)
pub(super) fn held<W: Borrow<Weight>>(parts: Vec<Origin<W>>) -> impl Iterator<Item = W> {
    let held = parts.into_iter().filter(|part| match part {
        Origin::Base(w) => matches!(w.borrow(), Weight::Trained(_)) || (in_head(w.borrow().name()) && !in_pooler(w.borrow().name())),
        Origin::Extra(_) => true,
    });
    held.map(Origin::weight)
}

/// A function from the names of weights of `model` to their names in an adapter's file, which are PEFT's.
pub fn keys(model: &DistilBert) -> impl Fn(&str) -> String + use<> {
    // PEFT wraps the linears with a low-rank term, and calls their own weights `base_layer`.
    let adapted = held(model.parts()).filter_map(|w| w.name().strip_suffix(".lora_A.weight"));
    let adapted: BTreeSet<String> = adapted.map(String::from).collect();
    // With a prompt, PEFT does not wrap the model, and the prefix is shorter.
    let prompt = model.prompt.is_some();
    move |name| match name.rsplit_once('.') {
        _ if name == PROMPT => PROMPT.to_string(),
        _ if prompt => format!("{UNWRAPPED}{name}"),
        Some((linear, part @ ("weight" | "bias"))) if adapted.contains(linear) => format!("{PREFIX}{linear}.base_layer.{part}"),
        _ => format!("{PREFIX}{name}"),
    }
}

/// The file of an adapter's tensors.
pub fn tensors_path(directory: &Path) -> PathBuf {
    directory.join("adapter_model.safetensors")
}

/// Number of classes of the adapter's head.
///
/// # Errors
/// If the adapter holds no classifier, or one of no class or more than [`crate::nn::MOST_CLASSES`]; the message says the likely cause.
pub fn classes(directory: &Path) -> Result<usize> {
    let file = SafeTensors::open(&tensors_path(directory))?;
    let name = format!("{PREFIX}classifier.weight");
    let info = file.info(&name).or_else(|| file.info(&format!("{UNWRAPPED}classifier.weight")));
    match info.map(|i| i.shape.as_slice()) {
        Some(&[classes, width]) if width > 0 => {
            let problem = |problem| error(&file, &name, format!("is {:?}, a head of {problem}", [classes, width]));
            check_classes(classes).map(|()| classes).map_err(problem)
        }
        Some(shape) => Err(error(&file, &name, format!("is {shape:?}, expected [C, D]"))),
        None => Err(error(&file, &name, lost_head(&file))),
    }
}

/// An error that names a tensor of `file` and its problem.
fn error(file: &SafeTensors, name: &str, problem: impl Display) -> Error {
    Error::file(file.path(), format!("tensor {name:?}"), problem)
}

/// The likely cause why a file holds no classifier under PEFT's name.
fn lost_head(file: &SafeTensors) -> String {
    let names = || file.names();
    if let Some(found) = names().find(|name| *name == "classifier.weight" || name.ends_with(".classifier.weight")) {
        let prefix = found.strip_suffix("classifier.weight").unwrap_or_default();
        return format!(
            "is missing: the tensors of this file begin with {prefix:?} in place of {PREFIX:?}, as of a model that was wrapped or compiled when \
             it was saved; rename them, or save the unwrapped model"
        );
    }
    if let Some(found) = names().find(|name| name.contains("classifier.modules_to_save.") || name.contains("classifier.original_module.")) {
        return format!(
            "is missing: {found:?} is there in its place, as in a state dict of the whole model: save the adapter with save_pretrained"
        );
    }
    if !names().any(|name| name.starts_with(PREFIX) || name.starts_with(UNWRAPPED) || name.contains("lora_")) {
        let first: Vec<&str> = names().take(3).collect();
        let holds = if first.is_empty() { "nothing at all".to_string() } else { format!("but {}", first.join(", ")) };
        return format!("is missing: the file holds no tensor of an adapter, {holds}");
    }
    "is missing: the adapter holds no classifier [C, D]: it was saved without task_type SEQ_CLS, and its head is lost".to_string()
}

/// Checks that the factors in the file have the ranks of `config`, before memory is allocated for them: a wrong rank may be huge. In lenient loading the
/// ranks of the file are taken instead.
pub(super) fn check_ranks(file: &SafeTensors, config: &mut LoraConfig, report: &mut Report) -> Result<()> {
    let mut factors = file.names().filter(|name| name.contains(".lora_A.")).peekable();
    if factors.peek().is_none() {
        return Err(Error::file(file.path(), "tensors \"…lora_A.weight\"", "are missing: the file holds no LoRA adapter"));
    }
    for name in factors {
        let linear = name.strip_prefix(PREFIX).unwrap_or(name).split(".lora_A.").next().unwrap_or(name);
        let rank = config.term_of(linear).0;
        if let Some(&[found, input]) = file.info(name).map(|i| i.shape.as_slice())
            && found != rank
        {
            let error = error(file, name, format!("has rank {found}, and \"r\" in adapter_config.json is {rank}"));
            // A rank up to `in` needs no more memory than the weight itself.
            if !(1..=input).contains(&found) {
                return Err(error);
            }
            report.skip(error, "the file's is taken")?;
            config.rank_pattern.insert(0, (linear.to_string(), found));
        }
    }
    Ok(())
}

/// The tensors of a file, and those of them that are not in the model yet.
pub(super) struct Contents<'a> {
    file: &'a SafeTensors,
    /// The name in the file of a weight of the model.
    key: Box<dyn Fn(&str) -> String>,
    left: BTreeSet<String>,
}

impl Contents<'_> {
    pub(super) fn new<'a>(file: &'a SafeTensors, model: &DistilBert) -> Contents<'a> {
        // PEFT writes the modules to save twice: again under the names of its wrapper.
        let wrapped = |name: &str| name.contains(".modules_to_save.") || name.contains(".original_module.");
        let left = file.names().filter(|name| !wrapped(name)).map(String::from).collect();
        Contents { file, key: Box::new(keys(model)), left }
    }

    fn tensor(&self, name: &str, shape: &Shape) -> Result<Tensor> {
        let tensor = self.file.tensor(name)?;
        if tensor.shape() == shape {
            tensor.check_finite(|what| {
                let advice = "the adapter answers nothing; its training failed, or the file is damaged: take another one";
                error(self.file, name, format!("{what}: {advice}"))
            })?;
            return Ok(tensor);
        }
        let cause = if name.ends_with(".trainable_tokens_delta") {
            "trainable_token_indices or the base model differ"
        } else if name.contains("word_embeddings") && shape.cols() == tensor.shape().cols() {
            "the adapter was trained on a base with another vocabulary: resize the base's embeddings as it was done then, and save that base"
        } else {
            "r, target_modules or the base model differ"
        };
        Err(error(self.file, name, format!("is {}, expected {shape}: {cause}", tensor.shape())))
    }

    fn missing(&self, name: &str, report: &mut Report) -> Result<()> {
        let problem = match name.contains(".bert.pooler.") {
            true => {
                "is missing, and so is the base's pooler: the adapter was trained on a base with a pooler, or on a random one that is lost"
            }
            false => "is missing: adapter_config.json asks for it, so the file belongs to another configuration or was cut",
        };
        report.skip(error(self.file, name, problem), "it stays as it was initialised")
    }

    /// The name of a tensor in the file, which may contain the name of PEFT's adapter, `default`. The tensor then counts as loaded.
    fn find(&mut self, plain: &str) -> Option<String> {
        let named = plain.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.");
        [plain.to_string(), named].into_iter().find(|name| self.left.remove(name))
    }

    /// Gives `weight` its value from the file.
    pub(super) fn fill(&mut self, weight: &mut Weight, report: &mut Report) -> Result<()> {
        let plain = (self.key)(weight.name());
        let Some(name) = self.find(&plain) else { return self.missing(&plain, report) };
        let tensor = self.tensor(&name, weight.shape())?;
        weight.set(tensor.to_dtype(weight.value()?.dtype())?)
    }

    /// Frozen weights of the base that are in the file take their value from there. PEFT saves embeddings this way.
    pub(super) fn replace_frozen(&mut self, model: &mut DistilBert) -> Result<()> {
        for part in model.parts_mut() {
            let WeightMut::Base(weight) = part else { continue };
            let module = weight.name().strip_suffix(".weight").unwrap_or_default();
            let names = [(self.key)(weight.name()), format!("{PREFIX}{module}.token_adapter.base_layer.weight")];
            if let Some(name) = names.into_iter().find(|name| self.left.remove(name)) {
                change(weight, self.tensor(&name, weight.shape())?)?;
            }
        }
        Ok(())
    }

    /// Replaces rows of an embedding by their trained values.
    pub(super) fn replace_rows(&mut self, model: &mut DistilBert, embedding: &str, rows: &[usize], report: &mut Report) -> Result<()> {
        let place = format!("\"trainable_token_indices\" {embedding:?}");
        let module = |weight: &Weight| weight.name().trim_end_matches(".weight").to_string();
        let encoder = model.embeddings_name();
        let found = model.tables_mut().find(|table| embedding.ends_with("_embeddings") && module(table).ends_with(embedding));
        let Some(weight) = found else {
            let problem = format!("names no embedding of {encoder}.: rows of one alone can be replaced");
            return Err(Error::file(self.file.path(), place, problem));
        };
        let name = format!("{PREFIX}{}.token_adapter.trainable_tokens_delta", module(weight));
        if !self.left.remove(&name) {
            return self.missing(&name, report);
        }
        let (all, width) = (weight.shape().rows(), weight.shape().cols());
        if let Some(row) = rows.iter().find(|&&row| row >= all) {
            return Err(Error::file(self.file.path(), place, format!("row {row} is not one of the {all} of the base")));
        }
        let new = self.tensor(&name, &[rows.len(), width].into())?.to_f64()?;
        let mut values = weight.value()?.to_f64()?;
        for (&row, new) in rows.iter().zip(new.chunks_exact(width)) {
            values[row * width..][..width].copy_from_slice(new);
        }
        change(weight, Tensor::from_f64(values, DType::F64, [all, width])?)
    }

    /// Adds the terms' own biases b₁ to b: y = W x + b + s (B A x + b₁) has the bias b + s b₁.
    pub(super) fn add_biases(&mut self, model: &mut DistilBert, report: &mut Report) -> Result<()> {
        for linear in model.linears_mut() {
            let (Some(term), Some(bias)) = (linear.terms.first(), linear.bias.as_mut()) else { continue };
            let plain = format!("{PREFIX}{}.lora_B.bias", linear.name);
            let Some(name) = self.find(&plain) else {
                self.missing(&plain, report)?;
                continue;
            };
            let own = self.tensor(&name, bias.shape())?;
            let sum = bias.value()?.to_f64()?.iter().zip(own.to_f64()?).map(|(b, own)| b + term.scale * own).collect();
            change(bias, Tensor::from_f64(sum, DType::F64, own.shape())?)?;
        }
        Ok(())
    }

    /// Checks that every tensor of the file is in the model.
    pub(super) fn check_nothing_left(&self, report: &mut Report) -> Result<()> {
        for name in &self.left {
            let problem = match name.contains(".lora_embedding_") {
                true => "is a low-rank term on an embedding, which is not implemented",
                false => "is not part of the adapter that adapter_config.json describes",
            };
            report.skip(error(self.file, name, problem), "it is ignored")?;
        }
        Ok(())
    }
}

/// Gives a weight of the base another value. It becomes a trained weight, and so part of the adapter.
fn change(weight: &mut Weight, value: Tensor) -> Result<()> {
    weight.train()?;
    weight.set(value.to_dtype(weight.value()?.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::Method;
    use crate::tensor::DType;
    use crate::testing::small_model;

    #[test]
    fn names_in_a_file_are_those_of_peft() {
        let mut model = small_model(DType::F32);
        assert_eq!(keys(&model)("classifier.weight"), "base_model.model.classifier.weight");
        Method::Prompt { tokens: 2 }.apply(&mut model, 0).unwrap();
        assert_eq!([keys(&model)("classifier.weight"), keys(&model)(PROMPT)], ["base_model.classifier.weight", PROMPT]);
    }

    #[test]
    fn the_size_of_a_head_is_not_taken_from_a_file_without_a_look() {
        let dir = tempfile::tempdir().unwrap();
        let of = |shape: [u64; 2]| {
            let header = serde_json::json!({ "base_model.model.classifier.weight": { "dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] * shape[1]] } });
            let header = header.to_string();
            let data = vec![0; 4 * (shape[0] * shape[1]) as usize];
            let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
            std::fs::write(tensors_path(dir.path()), bytes).unwrap();
            classes(dir.path()).map_err(|e| e.to_string())
        };
        assert_eq!(of([4096, 1]), Ok(4096));
        for (shape, words) in [
            ([1 << 40, 0], "is [1099511627776, 0], expected [C, D]"),
            ([2, 0], "is [2, 0], expected [C, D]"),
            ([0, 8], "is [0, 8], a head of 0 classes: there must be 1 to 4096"),
            ([4097, 1], "is [4097, 1], a head of 4097 classes: there must be 1 to 4096"),
        ] {
            let message = of(shape).unwrap_err();
            assert!(message.contains("adapter_model.safetensors: tensor") && message.contains(words), "{message}");
        }
    }
}
