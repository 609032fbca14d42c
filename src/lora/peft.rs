//! PEFT's `adapter_config.json` of a LoRA adapter, as PEFT 0.21.2 writes and reads it.

use super::{Bias, LoraConfig};
use crate::nn::DistilBert;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What PEFT always saves of a sequence classifier: `pre_classifier` ends like it.
const HEAD: [&str; 2] = ["classifier", "score"];

/// What PEFT takes where a file has no `lora_alpha`.
const DEFAULT_ALPHA: f64 = 8.0;

/// All 41 fields that PEFT 0.21.2 writes, keys sorted.
pub(super) fn config_json(config: &LoraConfig, base: &str) -> Value {
    let whole = |x: f64| if x.fract() == 0.0 { json!(x as i64) } else { json!(x) };
    let mut targets = config.targets.clone();
    targets.sort();
    let targets = config.target_pattern.as_ref().map_or_else(|| json!(targets), |pattern| json!(pattern));
    let mut saved = config.modules_to_save.clone();
    saved.extend(HEAD.map(String::from));
    let init = match config.init {
        super::Init::Kaiming => json!(true),
        super::Init::Gaussian => json!("gaussian"),
    };
    let bias = match config.bias {
        Bias::None => "none",
        Bias::LoraOnly => "lora_only",
        Bias::All => "all",
    };
    let alphas: serde_json::Map<String, Value> = config.alpha_pattern.iter().map(|(end, &alpha)| (end.clone(), whole(alpha))).collect();
    let layers = if config.layers.is_empty() { Value::Null } else { json!(config.layers) };
    json!({
        "alora_invocation_tokens": null, "alpha_pattern": alphas, "arrow_config": null, "auto_mapping": null,
        "base_model_name_or_path": base, "bias": bias, "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
        "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": init, "kasa_config": null,
        "layer_replication": null, "layers_pattern": null, "layers_to_transform": layers, "loftq_config": {},
        "lora_alpha": whole(config.alpha), "lora_bias": false, "lora_dropout": config.dropout, "lora_ga_config": null,
        "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": saved,
        "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": config.rank,
        "rank_pattern": config.rank_pattern, "revision": null, "target_modules": targets, "target_parameters": null, "task_type": "SEQ_CLS",
        "trainable_token_indices": null, "use_bdlora": null, "use_dora": config.dora, "use_qalora": false, "use_rslora": config.rank_stabilised,
        "velora_config": null
    })
}

/// The fields that PEFT 0.21.2 writes for prompt tuning.
pub(super) fn prompt_json(tokens: usize, base: &str, model: &DistilBert) -> Value {
    let c = &model.config;
    json!({
        "auto_mapping": null, "base_model_name_or_path": base, "inference_mode": true, "modules_to_save": ["classifier", "score"],
        "num_attention_heads": c.n_heads, "num_layers": c.n_layers, "num_transformer_submodules": 1, "num_virtual_tokens": tokens,
        "peft_type": "PROMPT_TUNING", "peft_version": "0.21.2", "prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": null,
        "revision": null, "task_type": "SEQ_CLS", "token_dim": c.dim, "tokenizer_kwargs": null, "tokenizer_name_or_path": null
    })
}

/// What the `adapter_config.json` at `path` says.
///
/// # Errors
/// If it is of a kind other than LoRA or DoRA, or lacks r, `lora_alpha` or `target_modules` (PEFT would silently take defaults).
pub(super) fn config(json: &Value, path: &Path, warnings: Option<&mut Vec<String>>) -> Result<LoraConfig> {
    let problem = |key: &str, problem: &str| Error::file(path, format!("{key:?}"), problem);
    for key in ["use_qalora", "lora_bias", "fan_in_fan_out"] {
        if json[key].as_bool() == Some(true) {
            return Err(problem(key, "is true: this kind of adapter is not implemented"));
        }
    }
    let pattern = |key: &str| -> Result<BTreeMap<String, f64>> {
        let Some(map) = json[key].as_object() else { return Ok(BTreeMap::new()) };
        let entry = |(end, value): (&String, &Value)| {
            Ok((end.clone(), value.as_f64().ok_or_else(|| problem(key, &format!("{end:?} must be a number")))?))
        };
        map.iter().map(entry).collect()
    };
    let whole_rank = |(end, rank): (String, f64)| match rank.fract() == 0.0 && rank >= 1.0 {
        true => Ok((end, rank as usize)),
        false => Err(problem("rank_pattern", &format!("{end:?} is {rank}, which is no rank"))),
    };
    let names =
        |key: &str| -> Vec<String> { json[key].as_array().into_iter().flatten().filter_map(|n| n.as_str().map(String::from)).collect() };
    let bias = match json["bias"].as_str() {
        None | Some("none") => Bias::None,
        Some("lora_only") => Bias::LoraOnly,
        Some("all") => Bias::All,
        Some(other) => return Err(problem("bias", &format!("is {other:?}: must be none, lora_only or all"))),
    };
    let layers = match &json["layers_to_transform"] {
        Value::Null => Vec::new(),
        Value::Array(layers) => layers.iter().filter_map(|l| Some(l.as_u64()? as usize)).collect(),
        Value::Number(layer) => layer.as_u64().iter().map(|&l| l as usize).collect(),
        _ => return Err(problem("layers_to_transform", "must be a number or a list of numbers")),
    };
    let rank = json["r"].as_u64().filter(|&r| r > 0).ok_or_else(|| problem("r", "must be a positive number"))?;
    let alpha = match (json["lora_alpha"].as_f64(), warnings) {
        (Some(alpha), _) => alpha,
        (None, Some(warnings)) => {
            warnings.push(format!("\"lora_alpha\" is missing; {DEFAULT_ALPHA} is taken, as PEFT does"));
            DEFAULT_ALPHA
        }
        (None, None) => return Err(problem("lora_alpha", "must be a number: without it the scale is unknown")),
    };
    let (target_pattern, targets) = match json["target_modules"].as_str() {
        Some("all-linear") => (None, LoraConfig::new(1, &["all-linear"]).targets),
        Some(pattern) => (Some(pattern.to_string()), Vec::new()),
        None => (None, names("target_modules")),
    };
    if targets.is_empty() && target_pattern.is_none() {
        return Err(problem("target_modules", "must be a list of names or a regular expression"));
    }
    let dropout = json["lora_dropout"].as_f64().unwrap_or(0.0);
    let init = if json["init_lora_weights"] == "gaussian" { super::Init::Gaussian } else { super::Init::Kaiming };
    Ok(LoraConfig {
        rank: rank as usize,
        alpha,
        dropout,
        targets,
        target_pattern,
        init,
        rank_stabilised: json["use_rslora"] == true,
        dora: json["use_dora"] == true,
        // PEFT's files do not tell: what comes from one is not trained on.
        freeze_a: false,
        rank_pattern: pattern("rank_pattern")?.into_iter().map(whole_rank).collect::<Result<_>>()?,
        alpha_pattern: pattern("alpha_pattern")?,
        layers,
        bias,
        modules_to_save: names("modules_to_save").into_iter().filter(|name| !HEAD.contains(&&**name)).collect(),
    })
}
