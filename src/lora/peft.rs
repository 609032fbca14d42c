//! PEFT's adapter directory: `adapter_config.json` and `adapter_model.safetensors`, as PEFT 0.21.2 writes and reads them.

use super::{LoraConfig, adapt};
use crate::nn::DistilBert;
use crate::tensor::safetensors::{self, SafeTensors};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const PREFIX: &str = "base_model.model.";

/// All 41 fields that PEFT 0.21.2 writes, keys sorted.
fn config_json(config: &LoraConfig, base: &str) -> Value {
    let whole = |x: f64| if x.fract() == 0.0 { json!(x as i64) } else { json!(x) };
    let mut targets = config.targets.clone();
    targets.sort();
    let init = match config.init {
        super::Init::Kaiming => json!(true),
        super::Init::Gaussian => json!("gaussian"),
    };
    json!({
        "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
        "base_model_name_or_path": base, "bias": "none", "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
        "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": init, "kasa_config": null,
        "layer_replication": null, "layers_pattern": null, "layers_to_transform": null, "loftq_config": {},
        "lora_alpha": whole(config.alpha), "lora_bias": false, "lora_dropout": config.dropout, "lora_ga_config": null,
        "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": ["classifier", "score"],
        "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": config.rank,
        "rank_pattern": {}, "revision": null, "target_modules": targets, "target_parameters": null, "task_type": "SEQ_CLS",
        "trainable_token_indices": null, "use_bdlora": null, "use_dora": false, "use_qalora": false, "use_rslora": false,
        "velora_config": null
    })
}

/// The trained tensors under PEFT's names, in f32.
///
/// # Errors
/// Never for a model on the host.
pub fn tensors(model: &DistilBert) -> Result<Vec<(String, Tensor)>> {
    model.parameters().iter().map(|p| Ok((format!("{PREFIX}{}", p.name()), p.value().to_dtype(DType::F32)?))).collect()
}

/// Writes PEFT's two files into `directory`.
///
/// # Errors
/// If a file cannot be written.
pub fn save(model: &DistilBert, config: &LoraConfig, base: &str, directory: &Path) -> Result<()> {
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::write(&directory.join("adapter_model.safetensors"), &tensors(model)?, &metadata)?;
    let path = directory.join("adapter_config.json");
    let text = serde_json::to_string_pretty(&config_json(config, base)).map_err(|e| Error::file(&path, "config", e))?;
    safetensors::write_file(&path, text.as_bytes())
}

/// Reads `adapter_config.json`.
///
/// # Errors
/// If it is missing, is of a method other than plain LoRA, or lacks r, `lora_alpha` or `target_modules` (PEFT would silently take defaults).
pub fn config(directory: &Path) -> Result<LoraConfig> {
    let path = directory.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| Error::file(&path, "config", e))?;
    let problem = |key: &str, problem: &str| Error::file(&path, format!("{key:?}"), problem);
    if json["peft_type"] != "LORA" {
        return Err(problem("peft_type", &format!("is {}: only \"LORA\" is implemented", json["peft_type"])));
    }
    for key in ["use_dora", "use_rslora", "use_qalora", "lora_bias", "fan_in_fan_out"] {
        if json[key].as_bool() == Some(true) {
            return Err(problem(key, "is true: this kind of adapter is not implemented"));
        }
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        if json[key].as_object().is_some_and(|map| !map.is_empty()) {
            return Err(problem(key, "is not empty: ranks and alphas that differ by layer are not implemented"));
        }
    }
    let rank = json["r"].as_u64().filter(|&r| r > 0).ok_or_else(|| problem("r", "must be a positive number"))?;
    let alpha = json["lora_alpha"].as_f64().ok_or_else(|| problem("lora_alpha", "must be a number: without it the scale is unknown"))?;
    let targets: Option<Vec<String>> =
        json["target_modules"].as_array().map(|names| names.iter().filter_map(|n| n.as_str().map(String::from)).collect());
    let targets = targets.filter(|t| !t.is_empty()).ok_or_else(|| problem("target_modules", "must be a list of names"))?;
    let dropout = json["lora_dropout"].as_f64().unwrap_or(0.0);
    let init = if json["init_lora_weights"] == "gaussian" { super::Init::Gaussian } else { super::Init::Kaiming };
    Ok(LoraConfig { rank: rank as usize, alpha, dropout, targets, init })
}

/// Number of classes of the adapter's head.
///
/// # Errors
/// If the adapter holds no classifier.
pub fn classes(directory: &Path) -> Result<usize> {
    let file = SafeTensors::open(&directory.join("adapter_model.safetensors"))?;
    let name = format!("{PREFIX}classifier.weight");
    match file.info(&name).map(|i| i.shape.as_slice()) {
        Some(&[classes, _]) => Ok(classes),
        _ => Err(Error::file(
            file.path(),
            format!("tensor {name:?}"),
            "the adapter holds no classifier [C, D]: it was saved without task_type SEQ_CLS, and its head is lost",
        )),
    }
}

/// The file must hold factors of rank r before memory is taken for them: a wrong r may be of any size.
fn check_rank(file: &SafeTensors, rank: usize) -> Result<()> {
    let mut factors = file.names().filter(|name| name.contains(".lora_A.")).peekable();
    if factors.peek().is_none() {
        return Err(Error::file(file.path(), "tensors \"…lora_A.weight\"", "are missing: the file holds no LoRA adapter"));
    }
    for name in factors {
        if let Some(&[found, _]) = file.info(name).map(|i| i.shape.as_slice())
            && found != rank
        {
            let problem = format!("has rank {found}, and \"r\" in adapter_config.json is {rank}");
            return Err(Error::file(file.path(), format!("tensor {name:?}"), problem));
        }
    }
    Ok(())
}

/// Adapts `model` as `directory` says and loads every trained tensor.
///
/// # Errors
/// If a tensor is missing, is left over, or has another shape; the message says the likely cause.
pub fn load(model: &mut DistilBert, directory: &Path) -> Result<LoraConfig> {
    let config = config(directory)?;
    let file = SafeTensors::open(&directory.join("adapter_model.safetensors"))?;
    check_rank(&file, config.rank)?;
    adapt(model, &config, 0)?;
    let mut left: BTreeSet<String> = file.names().map(String::from).collect();
    for p in model.parameters_mut() {
        let plain = format!("{PREFIX}{}", p.name());
        let named = plain.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.");
        let Some(name) = [plain.clone(), named].into_iter().find(|n| left.remove(n)) else {
            let problem = "is missing: target_modules names it, so the file belongs to another configuration or was cut";
            return Err(Error::file(file.path(), format!("tensor {plain:?}"), problem));
        };
        let tensor = file.tensor(&name)?;
        if tensor.shape() != p.value().shape() {
            let problem = format!("is {}, expected {}: r, target_modules or the base model differ", tensor.shape(), p.value().shape());
            return Err(Error::file(file.path(), format!("tensor {name:?}"), problem));
        }
        let dtype = p.value().dtype();
        p.set(tensor.to_dtype(dtype)?);
    }
    match left.first() {
        Some(name) => {
            Err(Error::file(file.path(), format!("tensor {name:?}"), "is not part of the adapter that adapter_config.json describes"))
        }
        None => Ok(config),
    }
}
