//! Reads an `adapter_config.json`, and knows which of its keys matter. The lists of keys are words in a text.

use crate::error::nearest;
use crate::files::{Unique, read_text};
use crate::{Error, Result};
use serde_json::Value;
use serde_json::value::RawValue;
use std::path::Path;

/// Keys of every kind of adapter that never change what is computed.
const ANY: &str = "auto_mapping base_model_name_or_path inference_mode peft_type peft_version revision runtime_config task_type";

/// LoRA's keys that are read.
const LORA: &str = "alora_invocation_tokens alpha_pattern bias exclude_modules init_lora_weights layers_pattern layers_to_transform \
    lora_alpha lora_bias lora_dropout modules_to_save r rank_pattern target_modules trainable_token_indices use_dora \
    use_rslora";

/// LoRA's keys that change nothing in this model. They say how the factors started (`init_lora_weights` says whether that matters), concern layers
/// that this model does not have, or how an old version of PEFT evaluated.
const LORA_HARMLESS: &str = "corda_config ensure_weight_tying eva_config fan_in_fan_out loftq_config lora_ga_config megatron_core merge_weights \
    qalora_group_size";

/// LoRA's keys that change what is computed in a way that is not implemented.
const LORA_OTHER: &str = "arrow_config enable_lora kasa_config layer_replication megatron_config monteclora_config target_parameters use_bdlora \
    use_qalora velora_config";

/// Prompt tuning's keys: those that are read, and those that say how the prompt started or what model it is for.
const PROMPT: &str = "modules_to_save num_attention_heads num_layers num_transformer_submodules num_virtual_tokens prompt_tuning_init \
    prompt_tuning_init_text token_dim tokenizer_kwargs tokenizer_name_or_path";

/// The known keys of an adapter of this kind, and the keys that are known but not implemented.
fn known(peft_type: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let (read, other) = match peft_type {
        "LORA" => (vec![LORA, LORA_HARMLESS], LORA_OTHER),
        "PROMPT_TUNING" => (vec![PROMPT], ""),
        "HEAD" => (vec!["train_pre_classifier"], ""),
        "BOTTLENECK" => (vec!["bottleneck_size placement"], ""),
        "DISTILBERT_PREFIX" => (vec!["num_virtual_tokens"], ""),
        "INTRINSIC" => (vec!["dimension projection_seed"], ""),
        _ => (Vec::new(), ""),
    };
    (read.into_iter().chain([ANY]).flat_map(str::split_whitespace).collect(), other.split_whitespace().collect())
}

/// Decides what a problem in an adapter's files is: an error, or in lenient loading a note.
pub(super) struct Report {
    /// Whether loading goes on where it can.
    pub lenient: bool,
    /// What was skipped or assumed.
    pub notes: Vec<String>,
}

impl Report {
    /// Returns `error`; in lenient loading, notes it and what is done instead.
    pub fn skip(&mut self, error: Error, instead: &str) -> Result<()> {
        if !self.lenient {
            return Err(error);
        }
        let said = match error {
            Error::File { place, problem, .. } => format!("{place} {problem}"),
            other => other.to_string(),
        };
        self.notes.push(format!("{said}; {instead}"));
        Ok(())
    }
}

/// An `adapter_config.json`. Its keys are in the order of the file.
pub(super) struct Fields<'a> {
    path: &'a Path,
    entries: Vec<(String, Box<RawValue>)>,
}

impl Fields<'_> {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Fields<'_>> {
        let Unique(entries) = serde_json::from_str(&read_text(path)?).map_err(|e| Error::file(path, "config", e))?;
        Ok(Fields { path, entries })
    }

    /// An error that names `key` and its problem.
    pub fn problem(&self, key: &str, problem: impl std::fmt::Display) -> Error {
        Error::file(self.path, format!("{key:?}"), problem)
    }

    fn raw(&self, key: &str) -> &str {
        self.entries.iter().find(|(name, _)| name == key).map_or("null", |(_, value)| value.get())
    }

    /// The value of `key`; null if the key is missing.
    pub fn value(&self, key: &str) -> Value {
        // Never fails: the whole file was parsed before.
        serde_json::from_str(self.raw(key)).unwrap_or_default()
    }

    /// A boolean; false if it is null or missing.
    pub fn flag(&self, key: &str) -> Result<bool> {
        match self.value(key) {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(flag),
            other => Err(self.problem(key, format!("is {other}: must be true or false"))),
        }
    }

    /// A list of names; empty if it is null or missing.
    pub fn names(&self, key: &str) -> Result<Vec<String>> {
        let value = self.value(key);
        match serde_json::from_value::<Option<Vec<String>>>(value.clone()) {
            Ok(names) if !names.iter().flatten().any(String::is_empty) => Ok(names.unwrap_or_default()),
            _ => Err(self.problem(key, format!("is {value}: must be a list of names"))),
        }
    }

    /// A map of names to numbers, in the order of the file.
    pub fn numbers(&self, key: &str) -> Result<Vec<(String, f64)>> {
        let problem = |e| self.problem(key, format!("must be a map of names to numbers: {e}"));
        Ok(serde_json::from_str::<Option<Unique<f64>>>(self.raw(key)).map_err(problem)?.map_or(Vec::new(), |Unique(entries)| entries))
    }

    /// A map of names to lists of whole numbers, in the order of the file.
    pub fn lists(&self, key: &str) -> Result<Vec<(String, Vec<usize>)>> {
        let problem = |e| self.problem(key, format!("must be a list of token ids, or a map of embeddings to such lists: {e}"));
        Ok(serde_json::from_str::<Unique<Vec<usize>>>(self.raw(key)).map_err(problem)?.0)
    }

    /// Refuses keys that may change what the adapter computes: all unknown ones, unless they are null, false or empty.
    pub fn check_known(&self, report: &mut Report) -> Result<()> {
        let (known, other) = known(self.value("peft_type").as_str().unwrap_or_default());
        for (key, _) in self.entries.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let value = self.value(key);
            if is_nothing(&value) {
                continue;
            }
            let (shown, key) = (shortened(&value.to_string()), &shortened(key));
            if other.contains(&key.as_str()) {
                return Err(self.problem(key, format!("is {shown}, which changes what the adapter computes and is not implemented")));
            }
            let near = nearest(key, known.iter().chain(&other).copied(), 2).join(", ");
            let problem = format!(
                "is {shown}: this key is not known, and may change what the adapter computes: remove it if it does not; the nearest keys are {near}"
            );
            report.skip(self.problem(key, problem), "it is ignored")?;
        }
        Ok(())
    }
}

/// The first 60 characters of a text: a hostile file may hold a text of any length.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Whether a value is null, false or empty.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(_) => false,
    }
}
