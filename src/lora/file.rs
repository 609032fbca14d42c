//! `adapter_model.safetensors`: how PEFT names its tensors, and where in a model they belong.

use super::LoraConfig;
use super::fields::Report;
use super::virtual_tokens::PROMPT;
use crate::nn::{DistilBert, Weight, WeightMut, WeightRef};
use crate::tensor::safetensors::SafeTensors;
use crate::tensor::{DType, Shape, Tensor};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) const TENSORS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
const UNWRAPPED: &str = "base_model.";
const EMBEDDINGS: &str = "distilbert.embeddings.";

/// Whether an adapter holds this weight: what trains, what is beside the checkpoint, and the whole head. A head that the base lacks is random,
/// and would be lost where it does not train.
pub(super) fn holds(weight: &Weight, extra: bool) -> bool {
    extra || matches!(weight, Weight::Trained(_)) || !weight.name().starts_with("distilbert.")
}

/// The weights that an adapter of `model` holds.
pub(super) fn held(model: &DistilBert) -> Vec<&Weight> {
    let parts = model.parts().into_iter().map(|part| (matches!(part, WeightRef::Extra(_)), part.weight()));
    parts.filter(|(extra, weight)| holds(weight, *extra)).map(|(_, weight)| weight).collect()
}

/// How PEFT names the tensors of a model.
pub(super) struct Names {
    /// Linears that have a low-rank term: it wraps them.
    adapted: BTreeSet<String>,
    /// Whether there is a prompt: then it does not wrap the model.
    prompt: bool,
}

impl Names {
    pub(super) fn of(model: &DistilBert) -> Names {
        let adapted = held(model).into_iter().filter_map(|w| w.name().strip_suffix(".lora_A.weight")).map(String::from).collect();
        Names { adapted, prompt: model.prompt.is_some() }
    }

    pub(super) fn name(&self, name: &str) -> String {
        match name.rsplit_once('.') {
            _ if name == PROMPT => PROMPT.to_string(),
            _ if self.prompt => format!("{UNWRAPPED}{name}"),
            Some((linear, part @ ("weight" | "bias"))) if self.adapted.contains(linear) => format!("{PREFIX}{linear}.base_layer.{part}"),
            _ => format!("{PREFIX}{name}"),
        }
    }
}

/// How an adapter's file names the weights of `model`.
pub fn keys(model: &DistilBert) -> impl Fn(&str) -> String + use<> {
    let names = Names::of(model);
    move |name| names.name(name)
}

/// Where the tensors of an adapter are.
pub fn tensors_path(directory: &Path) -> PathBuf {
    directory.join(TENSORS)
}

/// Number of classes of the adapter's head.
///
/// # Errors
/// If the adapter holds no classifier; the message says the likely cause.
pub fn classes(directory: &Path) -> Result<usize> {
    let file = SafeTensors::open(&tensors_path(directory))?;
    let name = format!("{PREFIX}classifier.weight");
    let info = file.info(&name).or_else(|| file.info(&format!("{UNWRAPPED}classifier.weight")));
    match info.map(|i| i.shape.as_slice()) {
        Some(&[classes, _]) => Ok(classes),
        Some(shape) => Err(Error::file(file.path(), format!("tensor {name:?}"), format!("is {shape:?}, expected [C, D]"))),
        None => Err(Error::file(file.path(), format!("tensor {name:?}"), lost_head(&file))),
    }
}

/// Why a file holds no classifier under the name that PEFT gives it.
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

/// The file must hold factors of the ranks that `config` says before memory is taken for them: a wrong one may be of any size. Where loading is
/// lenient the file's own ranks hold.
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
            let problem = format!("has rank {found}, and \"r\" in adapter_config.json is {rank}");
            let error = Error::file(file.path(), format!("tensor {name:?}"), problem);
            // No larger than the weight itself, which the model has.
            if !(1..=input).contains(&found) {
                return Err(error);
            }
            report.skip(error, "the file's is taken")?;
            config.rank_pattern.insert(0, (linear.to_string(), found));
        }
    }
    Ok(())
}

/// The tensors of a file that found no place yet.
pub(super) struct Contents<'a> {
    file: &'a SafeTensors,
    names: Names,
    left: BTreeSet<String>,
}

impl Contents<'_> {
    pub(super) fn new(file: &SafeTensors, names: Names) -> Contents<'_> {
        // What PEFT writes twice: the inside of the modules that it saves, under the names of its wrapper.
        let wrapped = |name: &str| name.contains(".modules_to_save.") || name.contains(".original_module.");
        let left = file.names().filter(|name| !wrapped(name)).map(String::from).collect();
        Contents { file, names, left }
    }

    fn tensor(&self, name: &str, shape: &Shape) -> Result<Tensor> {
        let tensor = self.file.tensor(name)?;
        if tensor.shape() == shape {
            tensor.check_finite(|what| {
                let problem = format!("{what}: the adapter answers nothing; its training failed, or the file is damaged: take another one");
                Error::file(self.file.path(), format!("tensor {name:?}"), problem)
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
        Err(Error::file(self.file.path(), format!("tensor {name:?}"), format!("is {}, expected {shape}: {cause}", tensor.shape())))
    }

    fn missing(&self, name: &str, report: &mut Report) -> Result<()> {
        let problem = "is missing: adapter_config.json asks for it, so the file belongs to another configuration or was cut";
        report.skip(Error::file(self.file.path(), format!("tensor {name:?}"), problem), "it stays as it was initialised")
    }

    /// Gives `weight` its value.
    pub(super) fn fill(&mut self, weight: &mut Weight, report: &mut Report) -> Result<()> {
        let plain = self.names.name(weight.name());
        let named = plain.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.");
        let Some(name) = [plain.clone(), named].into_iter().find(|n| self.left.remove(n)) else { return self.missing(&plain, report) };
        let tensor = self.tensor(&name, weight.shape())?;
        weight.set(tensor.to_dtype(weight.value()?.dtype())?)
    }

    /// A weight of the base that is in the file though nothing asks for it takes its value from there, as in PEFT: it saves embeddings so.
    pub(super) fn replace_frozen(&mut self, model: &mut DistilBert) -> Result<()> {
        for part in model.parts_mut() {
            let WeightMut::Base(weight) = part else { continue };
            let module = weight.name().strip_suffix(".weight").unwrap_or_default();
            let names = [self.names.name(weight.name()), format!("{PREFIX}{module}.token_adapter.base_layer.weight")];
            if let Some(name) = names.into_iter().find(|name| self.left.remove(name)) {
                change(weight, self.tensor(&name, weight.shape())?)?;
            }
        }
        Ok(())
    }

    /// Rows of an embedding take the values that were trained for them.
    pub(super) fn replace_rows(&mut self, model: &mut DistilBert, embedding: &str, rows: &[usize], report: &mut Report) -> Result<()> {
        let place = format!("\"trainable_token_indices\" {embedding:?}");
        let [words, positions] = [&mut model.word_embeddings, &mut model.position_embeddings];
        let found =
            [words, positions].into_iter().find(|w| w.name().strip_suffix(".weight").is_some_and(|module| module.ends_with(embedding)));
        let Some(weight) = found.filter(|_| embedding.ends_with("_embeddings")) else {
            return Err(Error::file(
                self.file.path(),
                place,
                format!("names no embedding of {EMBEDDINGS}: rows of one alone can be replaced"),
            ));
        };
        let module = weight.name().strip_suffix(".weight").unwrap_or_default();
        let name = format!("{PREFIX}{module}.token_adapter.trainable_tokens_delta");
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
        let shape = weight.shape().clone();
        change(weight, Tensor::from_f64(values, DType::F64, shape)?)
    }

    /// B's own bias b₁ of y = W x + b + s (B A x + b₁) becomes part of b.
    pub(super) fn add_biases(&mut self, model: &mut DistilBert, report: &mut Report) -> Result<()> {
        for linear in model.linears_mut() {
            let (Some(term), Some(bias)) = (linear.terms.first(), linear.bias.as_mut()) else { continue };
            let plain = format!("{PREFIX}{}.lora_B.bias", linear.name);
            let Some(name) = [plain.clone(), plain.replace(".lora_B.", ".lora_B.default.")].into_iter().find(|n| self.left.remove(n))
            else {
                self.missing(&plain, report)?;
                continue;
            };
            let own = self.tensor(&name, bias.shape())?.to_f64()?;
            let sum = bias.value()?.to_f64()?.iter().zip(own).map(|(b, own)| b + term.scale * own).collect();
            let shape = bias.shape().clone();
            change(bias, Tensor::from_f64(sum, DType::F64, shape)?)?;
        }
        Ok(())
    }

    /// Every tensor must have found its place.
    pub(super) fn check_nothing_left(&self, report: &mut Report) -> Result<()> {
        for name in &self.left {
            let problem = match name.contains(".lora_embedding_") {
                true => "is a low-rank term on an embedding, which is not implemented",
                false => "is not part of the adapter that adapter_config.json describes",
            };
            report.skip(Error::file(self.file.path(), format!("tensor {name:?}"), problem), "it is ignored")?;
        }
        Ok(())
    }
}

/// Gives a weight of the base another value: it is the adapter's then, like what trained.
fn change(weight: &mut Weight, value: Tensor) -> Result<()> {
    weight.train()?;
    weight.set(value.to_dtype(weight.value()?.dtype())?)
}
