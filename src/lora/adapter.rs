//! What was trained beside a base: a directory of `adapter_config.json` and `adapter_model.safetensors`.
//!
//! For LoRA they are PEFT's own (`peft.rs`). Methods that PEFT does not have use the same files under a `peft_type` of their own,
//! which PEFT refuses by name.

use super::virtual_tokens::PROMPT;
use super::{LoraConfig, Method, Placement, peft};
use crate::nn::{DistilBert, Part, PartMut, Weight};
use crate::tensor::safetensors::{self, SafeTensors};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
const UNWRAPPED: &str = "base_model.";

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
        Method::Intrinsic { dimension, seed } => {
            let mut config = own("INTRINSIC");
            (config["dimension"], config["projection_seed"]) = (json!(dimension), json!(seed));
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
    read_method(directory, None)
}

fn read_method(directory: &Path, warnings: Option<&mut Vec<String>>) -> Result<Method> {
    let path = directory.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| Error::file(&path, "config", e))?;
    let problem = |key: &str, problem: &str| Error::file(&path, format!("{key:?}"), problem);
    let number = |key: &str| {
        let number = json[key].as_u64().and_then(|n| usize::try_from(n).ok());
        number.ok_or_else(|| problem(key, &format!("is {}: must be a whole number", json[key])))
    };
    let method = match json["peft_type"].as_str() {
        Some("LORA") => peft::config(&json, &path, warnings).map(Method::Lora),
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
        Some("INTRINSIC") => {
            let seed = json["projection_seed"].as_u64().ok_or_else(|| problem("projection_seed", "must be a number"))?;
            Ok(Method::Intrinsic { dimension: number("dimension")?, seed })
        }
        Some("DISTILBERT_PREFIX") => Ok(Method::Prefix { tokens: number("num_virtual_tokens")? }),
        _ => Err(problem("peft_type", &format!("is {}, which is not implemented", json["peft_type"]))),
    }?;
    method.check_ranges().map_err(|e| Error::file(&path, "config", e))?;
    Ok(method)
}

/// Whether an adapter holds this weight: what trains, what is beside the checkpoint, and the whole head. A head that the base lacks is random,
/// and would be lost where it does not train.
fn holds(weight: &Weight, extra: bool) -> bool {
    extra || matches!(weight, Weight::Trained(_)) || !weight.name().starts_with("distilbert.")
}

/// The weights that an adapter of `model` holds.
fn held(model: &DistilBert) -> Vec<&Weight> {
    let mut all = Vec::new();
    model.visit(&mut |part| {
        if holds(part.weight(), matches!(part, Part::Extra(_))) {
            all.push(part.weight());
        }
    });
    all
}

/// The tensors that an adapter of `model` holds, under PEFT's names, in f32.
///
/// # Errors
/// Never for a model on the host.
pub fn tensors(model: &DistilBert) -> Result<Vec<(String, Tensor)>> {
    let names = Names::of(model);
    held(model).into_iter().map(|w| Ok((names.name(w.name()), w.value()?.to_dtype(DType::F32)?))).collect()
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
        let adapted = held(model).into_iter().filter_map(|w| w.name().strip_suffix(".lora_A.weight")).map(String::from).collect();
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

/// How an adapter's file names the weights of `model`.
pub fn keys(model: &DistilBert) -> impl Fn(&str) -> String + use<> {
    let names = Names::of(model);
    move |name| names.name(name)
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

/// The file must hold factors of the ranks that `config` says before memory is taken for them: a wrong one may be of any size. With `warnings`
/// the file's own ranks hold.
fn check_ranks(file: &SafeTensors, config: &mut LoraConfig, mut warnings: Option<&mut Vec<String>>) -> Result<()> {
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
            match &mut warnings {
                // No larger than the weight itself, which the model has.
                Some(warnings) if (1..=input).contains(&found) => {
                    warnings.push(format!("tensor {name:?} {problem}; the file's is taken"));
                    config.rank_pattern.insert(linear.to_string(), found);
                }
                _ => return Err(Error::file(file.path(), format!("tensor {name:?}"), problem)),
            }
        }
    }
    Ok(())
}

/// Applies to `model` what `directory` says, and loads every tensor.
///
/// # Errors
/// If a tensor is missing, is left over, or has another shape; the message says the likely cause.
pub fn load(model: &mut DistilBert, directory: &Path) -> Result<Method> {
    load_with(model, directory, None)
}

/// [`load`], taking what can be taken: a missing tensor stays as it is initialised, one left over is ignored, a rank is the file's. Each is
/// told in the list of warnings.
///
/// # Errors
/// If a file cannot be read, or a tensor has a shape that the model has no place for.
pub fn load_leniently(model: &mut DistilBert, directory: &Path) -> Result<(Method, Vec<String>)> {
    let mut warnings = Vec::new();
    let method = load_with(model, directory, Some(&mut warnings))?;
    Ok((method, warnings))
}

fn load_with(model: &mut DistilBert, directory: &Path, mut warnings: Option<&mut Vec<String>>) -> Result<Method> {
    let mut method = read_method(directory, warnings.as_deref_mut())?;
    let file = SafeTensors::open(&tensors_path(directory))?;
    if let Method::Lora(config) = &mut method {
        check_ranks(&file, config, warnings.as_deref_mut())?;
    }
    method.apply(model, 0)?;
    // With bias "all", PEFT writes the head's biases again under the names of its wrapper.
    let wrapper = |name: &str| name.ends_with(".modules_to_save.bias") || name.ends_with(".original_module.bias");
    let mut left: BTreeSet<String> = file.names().filter(|name| !wrapper(name)).map(String::from).collect();
    let names = Names::of(model);
    let mut find = |weight: &mut Weight| -> Result<()> {
        let plain = names.name(weight.name());
        let named = plain.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.");
        let Some(name) = [plain.clone(), named].into_iter().find(|n| left.remove(n)) else {
            let problem = "is missing: adapter_config.json asks for it, so the file belongs to another configuration or was cut";
            return match &mut warnings {
                Some(warnings) => {
                    warnings.push(format!("tensor {plain:?} {problem}; it stays as it was initialised"));
                    Ok(())
                }
                None => Err(Error::file(file.path(), format!("tensor {plain:?}"), problem)),
            };
        };
        let (tensor, shape) = (file.tensor(&name)?, weight.shape());
        if tensor.shape() != shape {
            let problem = format!("is {}, expected {shape}: r, target_modules or the base model differ", tensor.shape());
            return Err(Error::file(file.path(), format!("tensor {name:?}"), problem));
        }
        weight.set(tensor.to_dtype(weight.value()?.dtype())?)
    };
    let mut done = Ok(());
    model.visit_mut(&mut |part| {
        let extra = matches!(part, PartMut::Extra(_));
        let weight = part.weight();
        if done.is_ok() && holds(weight, extra) {
            done = find(weight);
        }
    });
    done?;
    for name in left {
        let problem = "is not part of the adapter that adapter_config.json describes";
        match &mut warnings {
            Some(warnings) => warnings.push(format!("tensor {name:?} {problem}; it is ignored")),
            None => return Err(Error::file(file.path(), format!("tensor {name:?}"), problem)),
        }
    }
    Ok(method)
}
