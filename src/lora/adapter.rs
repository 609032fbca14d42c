//! What was trained beside a base: a directory of `adapter_config.json` and `adapter_model.safetensors`.
//!
//! For LoRA they are PEFT's own (`peft.rs`). Methods that PEFT does not have use the same files under a `peft_type` of their own,
//! which PEFT refuses by name.

use super::virtual_tokens::PROMPT;
use super::{LoraConfig, Method, Placement, peft};
use crate::nn::DistilBert;
use crate::tensor::safetensors::{self, SafeTensors};
use crate::tensor::{DType, Shape, Tensor};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
const UNWRAPPED: &str = "base_model.";
/// Largest size of an adapter, and most virtual tokens.
const LARGEST: u64 = 4096;

/// What `adapter_config.json` says of `method`.
fn config_json(model: &DistilBert, method: &Method, base: &str) -> Result<Value> {
    let own = |peft_type: &str| json!({ "base_model_name_or_path": base, "peft_type": peft_type, "task_type": "SEQ_CLS" });
    match method {
        Method::Lora(config) => Ok(peft::config_json(config, base)),
        Method::Head { pre_classifier } => {
            let mut config = own("HEAD");
            config["train_pre_classifier"] = json!(pre_classifier);
            Ok(config)
        }
        Method::BitFit => Ok(own("BITFIT")),
        Method::Adapter { size, placement } => {
            let mut config = own("BOTTLENECK");
            config["bottleneck_size"] = json!(size);
            config["placement"] = json!(match placement {
                Placement::Houlsby => "houlsby",
                Placement::Pfeiffer => "pfeiffer",
            });
            Ok(config)
        }
        Method::Prompt { tokens } => Ok(peft::prompt_json(*tokens, base, model)),
        // PEFT has prefix tuning, but refuses it on this model: not its `peft_type`.
        Method::Prefix { tokens } => {
            let mut config = own("DISTILBERT_PREFIX");
            config["num_virtual_tokens"] = json!(tokens);
            Ok(config)
        }
        Method::Full | Method::Selective { .. } => Err(Error::invalid("full and selective fine-tuning make a checkpoint, not an adapter")),
    }
}

/// Reads `adapter_config.json`.
///
/// # Errors
/// If it is missing, or is of a method that is not implemented.
pub fn method(directory: &Path) -> Result<Method> {
    let path = directory.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| Error::file(&path, "config", e))?;
    let problem = |key: &str, problem: &str| Error::file(&path, format!("{key:?}"), problem);
    let number = |key: &str| match json[key].as_u64() {
        // No model has room for more, and none is made before this is known.
        Some(n) if (1..=LARGEST).contains(&n) => Ok(n as usize),
        _ => Err(problem(key, &format!("is {}: must be a number from 1 to {LARGEST}", json[key]))),
    };
    match json["peft_type"].as_str() {
        Some("LORA") => peft::config(&json, &path).map(Method::Lora),
        Some("HEAD") => Ok(Method::Head { pre_classifier: json["train_pre_classifier"] == true }),
        Some("BITFIT") => Ok(Method::BitFit),
        Some("BOTTLENECK") => {
            let placement = match json["placement"].as_str() {
                Some("houlsby") => Placement::Houlsby,
                Some("pfeiffer") => Placement::Pfeiffer,
                _ => return Err(problem("placement", "must be houlsby or pfeiffer")),
            };
            Ok(Method::Adapter { size: number("bottleneck_size")?, placement })
        }
        Some("PROMPT_TUNING") => Ok(Method::Prompt { tokens: number("num_virtual_tokens")? }),
        Some("DISTILBERT_PREFIX") => Ok(Method::Prefix { tokens: number("num_virtual_tokens")? }),
        _ => Err(problem("peft_type", &format!("is {}, which is not implemented", json["peft_type"]))),
    }
}

/// The tensors that an adapter of `model` holds, under PEFT's names, in f32: what trains, and the whole head. A head that the base lacks is
/// random, and would be lost where it does not train.
///
/// # Errors
/// Never for a model on the host.
pub fn tensors(model: &DistilBert) -> Result<Vec<(String, Tensor)>> {
    let names = Names::of(model);
    let named = |name: &str, value: &Tensor| Ok((names.name(name), value.to_dtype(DType::F32)?));
    let frozen_head = model.weights().into_iter().filter(|w| !w.name().starts_with("distilbert.") && w.parameters().is_empty());
    let frozen_head: Vec<_> = frozen_head.map(|w| named(w.name(), &w.value()?)).collect::<Result<_>>()?;
    let trained = model.parameters().into_iter().map(|p| named(p.name(), p.value()));
    trained.chain(frozen_head.into_iter().map(Ok)).collect()
}

/// How PEFT names the tensors of a model.
struct Names {
    /// Linears that have a low-rank term: it wraps them.
    adapted: BTreeSet<String>,
    /// Whether there is a prompt: then it does not wrap the model.
    prompt: bool,
}

impl Names {
    fn of(model: &DistilBert) -> Names {
        let adapted = model.parameters().iter().filter_map(|p| p.name().strip_suffix(".lora_A.weight")).map(String::from).collect();
        Names { adapted, prompt: model.prompt.is_some() }
    }

    fn name(&self, name: &str) -> String {
        match name.strip_suffix(".bias") {
            _ if name == PROMPT => PROMPT.to_string(),
            _ if self.prompt => format!("{UNWRAPPED}{name}"),
            Some(linear) if self.adapted.contains(linear) => format!("{PREFIX}{linear}.base_layer.bias"),
            _ => format!("{PREFIX}{name}"),
        }
    }
}

/// Writes the two files into `directory`.
///
/// # Errors
/// If a file cannot be written, or the method makes no adapter.
pub fn save(model: &DistilBert, method: &Method, base: &str, directory: &Path) -> Result<()> {
    let config = config_json(model, method, base)?;
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::write(&directory.join(TENSORS), &tensors(model)?, &metadata)?;
    let path = directory.join(CONFIG);
    let text = serde_json::to_string_pretty(&config).map_err(|e| Error::file(&path, "config", e))?;
    safetensors::write_file(&path, text.as_bytes())
}

/// Where the tensors of an adapter are.
pub fn tensors_path(directory: &Path) -> PathBuf {
    directory.join(TENSORS)
}

/// Number of classes of the adapter's head.
///
/// # Errors
/// If the adapter holds no classifier.
pub fn classes(directory: &Path) -> Result<usize> {
    let file = SafeTensors::open(&tensors_path(directory))?;
    let name = format!("{PREFIX}classifier.weight");
    let info = file.info(&name).or_else(|| file.info(&format!("{UNWRAPPED}classifier.weight")));
    match info.map(|i| i.shape.as_slice()) {
        Some(&[classes, _]) => Ok(classes),
        _ => Err(Error::file(
            file.path(),
            format!("tensor {name:?}"),
            "the adapter holds no classifier [C, D]: it was saved without task_type SEQ_CLS, and its head is lost",
        )),
    }
}

/// The file must hold factors of the ranks that `config` says before memory is taken for them: a wrong one may be of any size.
fn check_ranks(file: &SafeTensors, config: &LoraConfig) -> Result<()> {
    let mut factors = file.names().filter(|name| name.contains(".lora_A.")).peekable();
    if factors.peek().is_none() {
        return Err(Error::file(file.path(), "tensors \"…lora_A.weight\"", "are missing: the file holds no LoRA adapter"));
    }
    for name in factors {
        let linear = name.strip_prefix(PREFIX).unwrap_or(name).split(".lora_A.").next().unwrap_or(name);
        let rank = config.term_of(linear).0;
        if let Some(&[found, _]) = file.info(name).map(|i| i.shape.as_slice())
            && found != rank
        {
            let problem = format!("has rank {found}, and \"r\" in adapter_config.json is {rank}");
            return Err(Error::file(file.path(), format!("tensor {name:?}"), problem));
        }
    }
    Ok(())
}

/// Applies to `model` what `directory` says, and loads every tensor.
///
/// # Errors
/// If a tensor is missing, is left over, or has another shape; the message says the likely cause.
pub fn load(model: &mut DistilBert, directory: &Path) -> Result<Method> {
    let method = method(directory)?;
    let file = SafeTensors::open(&tensors_path(directory))?;
    if let Method::Lora(config) = &method {
        check_ranks(&file, config)?;
    }
    method.apply(model, 0)?;
    // With bias "all", PEFT writes the head's biases again under the names of its wrapper.
    let wrapper = |name: &str| name.ends_with(".modules_to_save.bias") || name.ends_with(".original_module.bias");
    let mut left: BTreeSet<String> = file.names().filter(|name| !wrapper(name)).map(String::from).collect();
    let names = Names::of(model);
    let mut find = |name: &str, shape: &Shape| {
        let plain = names.name(name);
        let named = plain.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.");
        let Some(name) = [plain.clone(), named].into_iter().find(|n| left.remove(n)) else {
            let problem = "is missing: adapter_config.json asks for it, so the file belongs to another configuration or was cut";
            return Err(Error::file(file.path(), format!("tensor {plain:?}"), problem));
        };
        let tensor = file.tensor(&name)?;
        if tensor.shape() == shape {
            return Ok(tensor);
        }
        let problem = format!("is {}, expected {shape}: r, target_modules or the base model differ", tensor.shape());
        Err(Error::file(file.path(), format!("tensor {name:?}"), problem))
    };
    for p in model.parameters_mut() {
        let tensor = find(p.name(), p.value().shape())?.to_dtype(p.value().dtype())?;
        p.set(tensor);
    }
    for weight in [&mut model.pre_classifier, &mut model.classifier].into_iter().flat_map(|l| l.bias.iter_mut().chain([&mut l.weight])) {
        if weight.parameters().is_empty() {
            let tensor = find(weight.name(), weight.shape())?.to_dtype(weight.value()?.dtype())?;
            weight.set(tensor)?;
        }
    }
    match left.first() {
        Some(name) => {
            Err(Error::file(file.path(), format!("tensor {name:?}"), "is not part of the adapter that adapter_config.json describes"))
        }
        None => Ok(method),
    }
}
