//! Writes a model as a checkpoint that Hugging Face transformers can read.

use super::{DistilBert, Head, LoadOptions, Weight};
use crate::files::{copy_file, is_there, read_text, write_file};
use crate::tensor::safetensors::write;
use crate::tensor::{Accum, DType, Scalar, Tensor};
use crate::{Error, Result, dispatch};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Files of a checkpoint that its tokenizer needs.
pub const TOKENIZER_FILES: [&str; 5] =
    ["vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

impl DistilBert {
    /// Writes `config.json`, `model.safetensors` and the tokenizer's files into `directory`, in f32. Trained weights have their new values, all
    /// others those of the checkpoint `base`.
    ///
    /// # Errors
    /// If a file cannot be read or written, the number of `labels` is not the number of classes, the model has parts that do not belong to a
    /// checkpoint, or a tensor is not finite. A tensor that is not finite is found before anything is written.
    pub fn save(&self, base: &Path, labels: &[String], directory: &Path) -> Result<()> {
        let classes = self.classifier.dims().0;
        if labels.len() != classes {
            return Err(Error::invalid(format!("{} labels for {classes} classes", labels.len())));
        }
        let trained = self.weights().iter().filter(|w| w.parameter().is_some()).count();
        if trained != self.parameters().len() {
            return Err(Error::invalid("a checkpoint has no place for low-rank terms (merge them first), adapters, prefixes and prompts"));
        }
        // Frozen matrices may be rounded to bf16 in memory. The base has the exact numbers.
        let options = LoadOptions { classes: Some(classes), head: Head::Fitting, ..LoadOptions::default() };
        let (original, report) = DistilBert::open_with(base, &options)?;
        let tensors = self.weights().into_iter().zip(original.weights()).map(|(own, original)| {
            let value = match own {
                Weight::Frozen { name, .. } if !report.initialised.contains(name) => {
                    let exact = original.value()?;
                    check_same(name, &own.value()?, &exact, base)?;
                    exact
                }
                _ => own.value()?,
            };
            Ok((own.name().to_string(), value.to_dtype(DType::F32)?))
        });
        let tensors = tensors.collect::<Result<Vec<_>>>()?;

        // First, because this may fail.
        write(&directory.join("model.safetensors"), &tensors, &BTreeMap::from([("format".to_string(), "pt".to_string())]))?;
        self.check_unchanged()?;
        original.check_unchanged()?;
        self.save_without_weights(base, labels, directory)
    }

    /// The part of [`DistilBert::save`] without the weights: `config.json` and the tokenizer's files.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn save_without_weights(&self, base: &Path, labels: &[String], directory: &Path) -> Result<()> {
        let path = base.join("config.json");
        let text = read_text(&path)?;
        let mut config: Value = serde_json::from_str(&text).map_err(|e| Error::file(&path, "json", e))?;
        config["architectures"] = json!([self.config.architecture.classifier_class()]);
        // Old files of BERT lack it.
        config["model_type"] = json!(self.config.architecture);
        config["dtype"] = json!("float32");
        config["id2label"] = labels.iter().enumerate().map(|(i, label)| (i.to_string(), json!(label))).collect();
        config["label2id"] = labels.iter().enumerate().map(|(i, label)| (label.clone(), json!(i))).collect();
        if let Some(old) = config.as_object_mut() {
            // `num_labels` would override the names. A new head has its own `problem_type`, or none.
            ["torch_dtype", "num_labels", "problem_type"].iter().for_each(|key| _ = old.remove(*key));
            self.config.problem_type.iter().for_each(|task| _ = old.insert("problem_type".into(), json!(task)));
        }
        let text = serde_json::to_string_pretty(&config).map_err(|e| Error::file(&path, "json", e))?;
        write_file(&directory.join("config.json"), text.as_bytes())?;
        for name in TOKENIZER_FILES {
            let from = base.join(name);
            if is_there(&from) {
                copy_file(&from, &directory.join(name))?;
            }
        }
        Ok(())
    }
}

/// Checks that the frozen weight `own` has the numbers of `exact`, rounded to its own type: the file of the base may have been replaced since it was
/// opened.
fn check_same(name: &str, own: &Tensor, exact: &Tensor, base: &Path) -> Result<()> {
    let (own, exact) = (own.to_host()?, exact.to_dtype(own.dtype())?);
    let same: Result<bool> = dispatch!("save", own.dtype(), T => {
        let bits = |x: &T| x.widen().f64().to_bits();
        Ok(own.host::<T>()?.iter().map(bits).eq(exact.host::<T>()?.iter().map(bits)))
    });
    if same? {
        return Ok(());
    }
    let problem = "is not as it was when the model was opened: the checkpoint was replaced meanwhile. Put the old one back, or begin anew";
    Err(Error::file(base, name, problem))
}
