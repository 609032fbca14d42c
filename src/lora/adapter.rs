//! The files of an adapter: a folder with `adapter_config.json` and `adapter_model.safetensors`. It has the trained weights without the base.
//!
//! For LoRA these are PEFT's files (`peft.rs`). Methods that PEFT lacks use the same files with another `peft_type`, which PEFT refuses.

use super::fields::{Fields, Report};
use super::file::{Contents, check_ranks, held};
use super::names::names_in;
use super::peft::Beside;
use super::{LoraConfig, Method, Placement, peft, start};
use crate::nn::{Architecture, DistilBert};
use crate::tensor::safetensors::{self, SafeTensors};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

pub use super::file::{classes, keys, tensors_path};

const CONFIG: &str = "adapter_config.json";

impl From<LoraConfig> for Method {
    fn from(config: LoraConfig) -> Method {
        Method::Lora(config)
    }
}

/// The text of `adapter_config.json` for `method`.
fn config_text(model: &DistilBert, method: &Method, base: &str) -> Result<String> {
    let (peft_type, mut config) = match method {
        Method::Lora(config) => return peft::config_text(config, model.config.architecture, base).map_err(Error::invalid),
        Method::Prompt { tokens } => ("PROMPT_TUNING", peft::prompt_json(*tokens, model)),
        Method::Full | Method::Selective { .. } => {
            return Err(Error::invalid("full and selective fine-tuning make a checkpoint, not an adapter"));
        }
        Method::Head { pre_classifier } => ("HEAD", json!({ "train_pre_classifier": pre_classifier })),
        Method::BitFit => ("BITFIT", json!({})),
        Method::Bottleneck { size, placement } => {
            let placement = if *placement == Placement::Houlsby { "houlsby" } else { "pfeiffer" };
            ("BOTTLENECK", json!({ "bottleneck_size": size, "placement": placement }))
        }
        // PEFT has prefix tuning but refuses it for DistilBERT, so this has another `peft_type`. In BERT, PEFT's prefix shifts the positions.
        Method::Prefix { tokens } => (
            if model.config.architecture == Architecture::Bert { "BERT_PREFIX" } else { "DISTILBERT_PREFIX" },
            json!({ "num_virtual_tokens": tokens }),
        ),
        Method::Intrinsic { dimension, seed } => ("INTRINSIC", json!({ "dimension": dimension, "projection_seed": seed })),
    };
    config["base_model_name_or_path"] = json!(base);
    config["peft_type"] = json!(peft_type);
    config["task_type"] = json!("SEQ_CLS");
    serde_json::to_string_pretty(&config).map_err(Error::invalid)
}

/// The method of the adapter in `directory`, from `adapter_config.json`.
///
/// # Errors
/// If the file is missing or malformed, or the method is not implemented.
pub fn method(directory: &Path) -> Result<Method> {
    Ok(read_method(directory, &mut Report::default())?.0)
}

/// Facts from `adapter_config.json` that are not part of the method, for a user: how PEFT's adapter changes the base, and what PEFT ignores.
///
/// # Errors
/// As [`method`].
pub fn facts(directory: &Path) -> Result<Vec<String>> {
    Ok(read_method(directory, &mut Report::default())?.1.facts())
}

fn read_method(directory: &Path, report: &mut Report) -> Result<(Method, Beside)> {
    let path = directory.join(CONFIG);
    let fields = Fields::open(&path)?;
    let number = |key: &str| fields.read::<usize>(key, "a whole number");
    let mut beside = Beside::default();
    let method = match fields.value("peft_type").as_str() {
        Some("LORA") => {
            let (config, own) = peft::config(&fields, report)?;
            beside = own;
            Method::Lora(config)
        }
        Some("HEAD") => Method::Head { pre_classifier: fields.flag("train_pre_classifier")? },
        Some("BITFIT") => Method::BitFit,
        Some("BOTTLENECK") => {
            let placement = match fields.value("placement").as_str() {
                Some("houlsby") => Placement::Houlsby,
                Some("pfeiffer") => Placement::Pfeiffer,
                _ => return Err(fields.problem("placement", "must be houlsby or pfeiffer")),
            };
            Method::Bottleneck { size: number("bottleneck_size")?, placement }
        }
        Some("PROMPT_TUNING") => {
            peft::check_prompt(&fields)?;
            Method::Prompt { tokens: number("num_virtual_tokens")? }
        }
        Some("INTRINSIC") => {
            let seed = fields.value("projection_seed").as_u64().ok_or_else(|| fields.problem("projection_seed", "must be a number"))?;
            Method::Intrinsic { dimension: number("dimension")?, seed }
        }
        Some("DISTILBERT_PREFIX" | "BERT_PREFIX") => Method::Prefix { tokens: number("num_virtual_tokens")? },
        _ => return Err(fields.problem("peft_type", format!("is {}, which is not implemented", fields.value("peft_type")))),
    };
    fields.check_known(report)?;
    // Checked before memory is allocated: no model has room for larger numbers.
    method.check_ranges().map_err(|e| Error::file(&path, "config", e))?;
    Ok((method, beside))
}

/// The tensors of the adapter of `model`, with PEFT's names, in f32.
///
/// # Errors
/// Never for a model on the host.
pub fn tensors(model: &DistilBert) -> Result<Vec<(String, Tensor)>> {
    let key = keys(model);
    held(model.parts()).map(|w| Ok((key(w.name()), w.value()?.to_dtype(DType::F32)?))).collect()
}

/// Writes the two files into the folder `directory`, which must exist. `base` is the name or path of the base for the file.
///
/// # Errors
/// If a file cannot be written, the method trains whole layers, or a tensor is not finite. Such a tensor is found before anything is written.
pub fn save(model: &DistilBert, method: &Method, base: &str, directory: &Path) -> Result<()> {
    let config = config_text(model, method, base)?;
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::write(&tensors_path(directory), &tensors(model)?, &metadata)?;
    crate::files::write_file(&directory.join(CONFIG), config.as_bytes())
}

/// Writes what `method` trained into the folder `directory`, which must exist: an adapter, or a whole checkpoint if the method trains whole layers.
/// `folder` is the folder of the base, `base` its name for the adapter's file, and `labels` are the names of the classes.
///
/// # Errors
/// If a file cannot be written or copied from the base, or a tensor is not finite.
pub fn save_trained(model: &DistilBert, method: &Method, folder: &Path, base: &str, labels: &[String], directory: &Path) -> Result<()> {
    match method.makes_checkpoint() {
        true => model.save(folder, labels, directory),
        false => save(model, method, base, directory),
    }
}

/// Applies the method of the adapter in `directory` to `model`, and loads every tensor.
///
/// # Errors
/// If a tensor is missing, not used, has another shape, or is not finite. The message has the likely cause.
pub fn load(model: &mut DistilBert, directory: &Path) -> Result<Method> {
    Ok(load_with(model, directory, false)?.0)
}

/// [`load`], with notes for a user: names in the configuration that the model lacks are skipped. With `lenient`, further problems are notes instead
/// of errors: a missing tensor keeps its initial value, an unused tensor and an unknown key are ignored, and the rank is that of the tensors.
///
/// # Errors
/// Those of [`load`]. With `lenient`, if a file cannot be read, or a tensor is not finite or does not fit the model.
pub fn load_with(model: &mut DistilBert, directory: &Path, lenient: bool) -> Result<(Method, Vec<String>)> {
    let mut report = Report { lenient, notes: Vec::new() };
    let (mut method, beside) = read_method(directory, &mut report)?;
    let file = SafeTensors::open(&tensors_path(directory))?;
    if let Method::Lora(config) = &mut method {
        let (linears, weights) = names_in(model);
        report.notes.extend(config.skip_unmatched(&linears, &weights)?);
        check_ranks(&file, config, &mut report)?;
    }
    method.apply(model, 0)?;
    let mut contents = Contents::new(&file, model);
    for weight in held(model.parts_mut()) {
        contents.fill(weight, &mut report)?;
    }
    contents.replace_frozen(model)?;
    for (embedding, rows) in &beside.tokens {
        contents.replace_rows(model, embedding, rows, &mut report)?;
    }
    if beside.bias {
        contents.add_biases(model, &mut report)?;
    }
    contents.check_nothing_left(&mut report)?;
    if let Method::Lora(config) = &mut method {
        start::make_plain(model, config, beside.start)?;
    }
    Ok((method, report.notes))
}
