//! PEFT's `adapter_config.json` of a LoRA adapter, as PEFT 0.21.2 writes and reads it.

use super::config::HEAD;
use super::fields::{Fields, Report};
use super::pattern::ALL_LINEAR;
use super::start::InitFromBase;
use super::{Bias, Init, LoraConfig};
use crate::Result;
use crate::nn::{Architecture, DistilBert};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What `rank_pattern` and `alpha_pattern` must be.
const NUMBERS: &str = "a map of names to numbers";

/// PEFT's alpha for a file without `lora_alpha`.
const DEFAULT_ALPHA: f64 = 8.0;

/// A value in `adapter_config.json`.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Plain(Value),
    /// A map whose first matching key decides, so that it is written in its own order.
    #[serde(serialize_with = "in_order")]
    InOrder(Vec<(String, Value)>),
}

fn in_order<S: Serializer>(map: &[(String, Value)], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(key, value)| (key, value)))
}

fn whole(x: f64) -> Value {
    if x.fract() == 0.0 { json!(x as i64) } else { json!(x) }
}

/// The text of `adapter_config.json` for a model of `architecture`, with the fields that PEFT 0.21.2 writes, sorted. The two patterns keep their own order.
pub(super) fn config_text(config: &LoraConfig, architecture: Architecture, base: &str) -> serde_json::Result<String> {
    let mut targets: Vec<&str> = Vec::new();
    for target in config.targets.iter().map(String::as_str) {
        // The file lists the linears: in BERT, PEFT's `all-linear` also means the pooler.
        targets.extend(if target == ALL_LINEAR { architecture.layer_linears() } else { std::slice::from_ref(&target) });
    }
    targets.sort();
    let targets = config.target_pattern.as_ref().map_or_else(|| json!(targets), |pattern| json!(pattern));
    let mut saved = config.modules_to_save.clone();
    saved.extend(HEAD.map(String::from));
    let init = match config.init {
        Init::Kaiming => json!(true),
        Init::Gaussian => json!("gaussian"),
    };
    let bias = match config.bias {
        Bias::None => "none",
        Bias::LoraOnly => "lora_only",
        Bias::All => "all",
    };
    let layers = if config.layers.is_empty() { Value::Null } else { json!(config.layers) };
    let excluded = match &config.exclude_pattern {
        Some(pattern) => json!(pattern),
        None if config.exclude.is_empty() => Value::Null,
        None => json!(config.exclude),
    };
    let plain = json!({
        "alora_invocation_tokens": null, "arrow_config": null, "auto_mapping": null,
        "base_model_name_or_path": base, "bias": bias, "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
        "exclude_modules": excluded, "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": init, "kasa_config": null,
        "layer_replication": null, "layers_pattern": null, "layers_to_transform": layers, "loftq_config": {},
        "lora_alpha": whole(config.alpha), "lora_bias": false, "lora_dropout": config.dropout, "lora_ga_config": null,
        "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": saved,
        "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": config.rank,
        "revision": null, "target_modules": targets, "target_parameters": null, "task_type": "SEQ_CLS",
        "trainable_token_indices": null, "use_bdlora": null, "use_dora": config.dora, "use_qalora": false, "use_rslora": config.rank_stabilised,
        "velora_config": null
    });
    let plain: BTreeMap<String, Value> = serde_json::from_value(plain)?;
    let mut all: BTreeMap<String, Entry> = plain.into_iter().map(|(key, value)| (key, Entry::Plain(value))).collect();
    let ranks = config.rank_pattern.iter().map(|(key, rank)| (key.clone(), json!(rank))).collect();
    let alphas = config.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), whole(*alpha))).collect();
    all.insert("rank_pattern".into(), Entry::InOrder(ranks));
    all.insert("alpha_pattern".into(), Entry::InOrder(alphas));
    serde_json::to_string_pretty(&all)
}

/// The fields that PEFT 0.21.2 writes for prompt tuning, besides those of every adapter.
pub(super) fn prompt_json(tokens: usize, model: &DistilBert) -> Value {
    let c = &model.config;
    json!({
        "auto_mapping": null, "inference_mode": true, "modules_to_save": HEAD,
        "num_attention_heads": c.n_heads, "num_layers": c.n_layers, "num_transformer_submodules": 1, "num_virtual_tokens": tokens,
        "peft_version": "0.21.2", "prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": null, "revision": null,
        "token_dim": c.dim, "tokenizer_kwargs": null, "tokenizer_name_or_path": null
    })
}

/// What an adapter of PEFT has besides plain low-rank terms. Loading turns it into an adapter of plain terms.
#[derive(Clone, Debug, Default)]
pub(super) struct Beside {
    /// Which part of the base the factors started as.
    pub start: InitFromBase,
    /// The embeddings, by the ends of their names, that have trained rows, and the numbers of these rows.
    pub tokens: Vec<(String, Vec<usize>)>,
    /// Whether every term has a bias of its own.
    pub bias: bool,
    /// Whether the terms apply only after certain tokens (aLoRA). For classifiers PEFT never looks for them.
    pub uncalled: bool,
}

impl Beside {
    /// A sentence for each of these, for the user.
    pub fn facts(&self) -> Vec<String> {
        let start = match self.start {
            InitFromBase::Apart => None,
            InitFromBase::Pissa => Some("PiSSA: the largest singular values of the base are taken out of it when the adapter is loaded"),
            InitFromBase::Olora => Some("OLoRA: the first columns of Q and rows of R are taken out of the base when the adapter is loaded"),
        };
        let tokens = self.tokens.iter().map(|(name, rows)| format!("{} rows of {name} replaced", rows.len()));
        let bias = self.bias.then_some("each low-rank term has a bias");
        let uncalled = "aLoRA: its terms wait for tokens that call them; on a classifier PEFT never applies them, and neither does lowrank";
        let uncalled = self.uncalled.then_some(uncalled);
        start.map(String::from).into_iter().chain(tokens).chain(bias.into_iter().chain(uncalled).map(String::from)).collect()
    }
}

/// Reads the `adapter_config.json` of a LoRA adapter.
///
/// # Errors
/// If r, `lora_alpha` or `target_modules` is missing (PEFT would silently take defaults), or something is not implemented.
pub(super) fn config(fields: &Fields, report: &mut Report) -> Result<(LoraConfig, Beside)> {
    let rank = fields.value("r").as_u64().filter(|&r| r > 0).ok_or_else(|| fields.problem("r", "must be a positive number"))?;
    let alpha = alpha(fields, report)?;
    let (target_pattern, targets) = targets(fields)?;
    let (exclude_pattern, exclude) = names_or_pattern(fields, "exclude_modules")?;
    let whole_rank = |(key, rank): (String, f64)| match rank.fract() == 0.0 && rank >= 1.0 {
        true => Ok((key, rank as usize)),
        false => Err(fields.problem("rank_pattern", format!("{key:?} is {rank}, which is no rank"))),
    };
    let (init, start) = start(fields)?;
    let dropout = match fields.value("lora_dropout") {
        Value::Null => 0.0,
        value => value.as_f64().ok_or_else(|| fields.problem("lora_dropout", "must be a number"))?,
    };
    let mut config = LoraConfig {
        rank: rank as usize,
        alpha,
        dropout,
        targets,
        target_pattern,
        init,
        rank_stabilised: fields.flag("use_rslora")?,
        dora: fields.flag("use_dora")?,
        // PEFT's files do not say, and it matters in training only.
        freeze_a: false,
        rank_pattern: fields.map("rank_pattern", NUMBERS)?.into_iter().map(whole_rank).collect::<Result<_>>()?,
        alpha_pattern: fields.map("alpha_pattern", NUMBERS)?,
        layers: layers(fields)?,
        exclude,
        exclude_pattern,
        bias: bias(fields)?,
        modules_to_save: fields.names("modules_to_save")?.into_iter().filter(|name| !HEAD.contains(&&**name)).collect(),
    };
    let uncalled = !fields.value("alora_invocation_tokens").is_null() && fields.value("alora_invocation_tokens") != json!([]);
    let beside = Beside { start, tokens: tokens(fields)?, bias: fields.flag("lora_bias")?, uncalled };
    let variants = [(beside.bias, "lora_bias"), (beside.uncalled, "alora_invocation_tokens")];
    if let Some((_, key)) = variants.into_iter().find(|(is, _)| *is && (config.dora || start != InitFromBase::Apart)) {
        return Err(fields.problem(key, "does not go with use_dora or this init_lora_weights, in PEFT neither"));
    }
    if beside.uncalled {
        (config.alpha, config.alpha_pattern) = (0.0, Vec::new());
    }
    report.notes.extend(beside.uncalled.then(|| beside.facts()).into_iter().flatten());
    Ok((config, beside))
}

/// alpha, which PEFT takes for 8 where it is missing.
fn alpha(fields: &Fields, report: &mut Report) -> Result<f64> {
    if let Some(alpha) = fields.value("lora_alpha").as_f64() {
        return Ok(alpha);
    }
    let missing = fields.problem("lora_alpha", "must be a number: without it the scale is unknown");
    report.skip(missing, &format!("{DEFAULT_ALPHA} is taken, as PEFT does"))?;
    Ok(DEFAULT_ALPHA)
}

/// The regular expression or the names of the adapted linears.
fn targets(fields: &Fields) -> Result<(Option<String>, Vec<String>)> {
    match names_or_pattern(fields, "target_modules")? {
        (None, names) if names.is_empty() => Err(fields.problem("target_modules", "must be a list of names or a regular expression")),
        (Some(all), _) if all.eq_ignore_ascii_case("all-linear") => Ok((None, vec![ALL_LINEAR.to_string()])),
        found => Ok(found),
    }
}

fn bias(fields: &Fields) -> Result<Bias> {
    match fields.value("bias").as_str() {
        Some("none") => Ok(Bias::None),
        Some("lora_only") => Ok(Bias::LoraOnly),
        Some("all") => Ok(Bias::All),
        None if fields.value("bias").is_null() => Ok(Bias::None),
        _ => Err(fields.problem("bias", format!("is {}: must be none, lora_only or all", fields.value("bias")))),
    }
}

/// Refuses a prompt-tuning adapter with trained parts other than the prompt and the head: that is not implemented.
pub(super) fn check_prompt(fields: &Fields) -> Result<()> {
    let submodules = fields.value("num_transformer_submodules");
    if !(submodules.is_null() || submodules == 1) {
        return Err(fields.problem("num_transformer_submodules", format!("is {submodules}: an encoder has one")));
    }
    let modules = fields.names("modules_to_save")?;
    match modules.iter().find(|name| !HEAD.contains(&&***name) && *name != "pre_classifier") {
        Some(name) => Err(fields.problem("modules_to_save", format!("names {name:?}: beside a prompt only the head is implemented"))),
        None => Ok(()),
    }
}

/// A regular expression, or a list of names.
fn names_or_pattern(fields: &Fields, key: &str) -> Result<(Option<String>, Vec<String>)> {
    match fields.value(key) {
        Value::String(pattern) if pattern.is_empty() => Ok((None, Vec::new())),
        Value::String(pattern) => Ok((Some(pattern), Vec::new())),
        _ => Ok((None, fields.names(key)?)),
    }
}

/// How A started, and which part of the base was taken for it.
fn start(fields: &Fields) -> Result<(Init, InitFromBase)> {
    let value = fields.value("init_lora_weights");
    let name = match &value {
        Value::Null | Value::Bool(_) => return Ok((Init::Kaiming, InitFromBase::Apart)),
        Value::String(name) => name.as_str(),
        _ => "",
    };
    match name {
        "pissa" => Ok((Init::Kaiming, InitFromBase::Pissa)),
        _ if name.eq_ignore_ascii_case("olora") => Ok((Init::Kaiming, InitFromBase::Olora)),
        _ if name.eq_ignore_ascii_case("gaussian") => Ok((Init::Gaussian, InitFromBase::Apart)),
        // PEFT does not change the base when it loads these. (LoRA-GA changes it in training only.)
        "eva" | "orthogonal" | "mica" | "lora_ga" => Ok((Init::Kaiming, InitFromBase::Apart)),
        _ if name.eq_ignore_ascii_case("mica") => Ok((Init::Kaiming, InitFromBase::Apart)),
        _ => {
            let problem = match name {
                "corda" | "loftq" => "changes the base by more than the files say",
                _ if name.starts_with("pissa_niter_") => "changes the base by a random decomposition, which cannot be computed again",
                _ => "is not known",
            };
            let instead = "merge the adapter in PEFT (merge_and_unload) and save the whole model";
            Err(fields.problem("init_lora_weights", format!("is {value}, which {problem}; {instead}")))
        }
    }
}

/// The layers whose linears are adapted.
fn layers(fields: &Fields) -> Result<Vec<usize>> {
    let value = fields.value("layers_to_transform");
    let layers: Vec<usize> = match value.as_u64() {
        Some(one) => vec![one as usize],
        None => fields.read::<Option<_>>("layers_to_transform", "a number or a list of numbers")?.unwrap_or_default(),
    };
    // The name of a list of layers. This model has one list.
    let lists = match fields.value("layers_pattern") {
        Value::String(name) => vec![name],
        _ => fields.names("layers_pattern")?,
    };
    match lists.iter().find(|name| !name.is_empty()) {
        Some(_) if value.is_null() => Err(fields.problem("layers_pattern", "asks for layers_to_transform, which is missing")),
        Some(_) if layers.is_empty() || lists.iter().any(|name| name == "layer") => Ok(layers),
        Some(name) => Err(fields.problem("layers_pattern", format!("{name:?} is no list of layers of this model: only \"layer\" is"))),
        None => Ok(layers),
    }
}

/// Names of embeddings, and the numbers of their trained rows.
fn tokens(fields: &Fields) -> Result<Vec<(String, Vec<usize>)>> {
    let key = "trainable_token_indices";
    match fields.value(key) {
        Value::Null => Ok(Vec::new()),
        list @ Value::Array(_) => match serde_json::from_value(list) {
            Ok(rows) => Ok(vec![("word_embeddings".to_string(), rows)]),
            Err(e) => Err(fields.problem(key, format!("must be a list of token ids: {e}"))),
        },
        _ => fields.map(key, "a list of token ids, or a map of embeddings to such lists"),
    }
}
