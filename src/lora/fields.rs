//! Reads an `adapter_config.json`, and knows which of its keys matter. The lists of keys are words in a text.

use crate::error::nearest;
use crate::files::{Unique, read_text};
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
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
        "DISTILBERT_PREFIX" | "BERT_PREFIX" => (vec!["num_virtual_tokens"], ""),
        "INTRINSIC" => (vec!["dimension projection_seed"], ""),
        _ => (Vec::new(), ""),
    };
    (read.into_iter().chain([ANY]).flat_map(str::split_whitespace).collect(), other.split_whitespace().collect())
}

/// Decides what a problem in an adapter's files is: an error, or in lenient loading a note.
#[derive(Default)]
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
    pub fn open(path: &Path) -> Result<Fields<'_>> {
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

    /// The value of `key`, or an error that it must be `what`.
    pub fn read<T: DeserializeOwned>(&self, key: &str, what: &str) -> Result<T> {
        serde_json::from_str(self.raw(key)).map_err(|_| self.problem(key, format!("is {}: must be {what}", self.value(key))))
    }

    /// A boolean; false if it is null or missing.
    pub fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.read::<Option<bool>>(key, "true or false")?.unwrap_or_default())
    }

    /// A list of names; empty if it is null or missing.
    pub fn names(&self, key: &str) -> Result<Vec<String>> {
        let names = self.read::<Option<Vec<String>>>(key, "a list of names")?.unwrap_or_default();
        match names.iter().any(String::is_empty) {
            true => Err(self.problem(key, format!("is {}: must be a list of names", self.value(key)))),
            false => Ok(names),
        }
    }

    /// A map of names to values, in the order of the file; empty if it is null or missing. `what` says in an error what it must be.
    pub fn map<T: DeserializeOwned>(&self, key: &str, what: &str) -> Result<Vec<(String, T)>> {
        let map = serde_json::from_str::<Option<Unique<T>>>(self.raw(key));
        let map = map.map_err(|e| self.problem(key, format!("must be {what}: {e}")))?;
        Ok(map.map_or(Vec::new(), |Unique(entries)| entries))
    }

    /// Refuses keys that may change what the adapter computes: all unknown ones, unless they are null, false or empty.
    pub fn check_known(&self, report: &mut Report) -> Result<()> {
        let (known, other) = known(self.value("peft_type").as_str().unwrap_or_default());
        for (key, raw) in self.entries.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            // Never fails: the whole file was parsed before.
            let value: Value = serde_json::from_str(raw.get()).unwrap_or_default();
            // Null, false and empty values change nothing.
            if [json!(null), json!(false), json!(""), json!([]), json!({})].contains(&value) {
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
