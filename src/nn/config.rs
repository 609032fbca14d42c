//! `config.json` of a checkpoint.

use super::Architecture;
use crate::files::read_text;
use crate::outputs::{Outputs, check_classes, generic_label};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Sizes and dropouts of the model. Other fields of the file are ignored. The names are DistilBERT's; `BERT_KEYS` has BERT's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(default = "gelu")]
    activation: String,
    /// Dropout of the attention probabilities.
    #[serde(default = "tenth")]
    pub attention_dropout: f64,
    /// D, the model width.
    pub dim: usize,
    /// Dropout after the embeddings and after each feed-forward block; in BERT also after attention.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// F, the feed-forward width.
    pub hidden_dim: usize,
    /// Standard deviation of newly initialised weights.
    #[serde(default = "init_range")]
    pub initializer_range: f64,
    /// Number of positions: the longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// What the checkpoint holds.
    #[serde(rename = "model_type")]
    pub architecture: Architecture,
    /// H, the number of heads.
    pub n_heads: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Dropout before the classifier.
    #[serde(default = "fifth")]
    pub seq_classif_dropout: f64,
    /// V, the vocabulary size.
    pub vocab_size: usize,
    /// S, the number of BERT's token types. DistilBERT has none.
    #[serde(skip)]
    pub type_vocab_size: usize,
    /// Added to the variance in layer norms. DistilBERT's never differs.
    #[serde(skip, default = "eps")]
    pub layer_norm_eps: f64,
    /// Names of the classes, if the checkpoint has any.
    #[serde(skip_deserializing, skip_serializing_if = "BTreeMap::is_empty")]
    pub id2label: BTreeMap<usize, String>,
    /// The task of the head, if the checkpoint names it: see [`Config::outputs`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<String>,
}

fn gelu() -> String {
    "gelu".to_string()
}
fn tenth() -> f64 {
    0.1
}
fn fifth() -> f64 {
    0.2
}
fn init_range() -> f64 {
    0.02
}
fn eps() -> f64 {
    1e-12
}

/// Names of the fields in the file of a BERT, and here.
const BERT_KEYS: [(&str, &str); 8] = [
    ("hidden_act", "activation"),
    ("attention_probs_dropout_prob", "attention_dropout"),
    ("hidden_size", "dim"),
    ("hidden_dropout_prob", "dropout"),
    ("intermediate_size", "hidden_dim"),
    ("num_attention_heads", "n_heads"),
    ("num_hidden_layers", "n_layers"),
    ("classifier_dropout", "seq_classif_dropout"),
];

/// Reads the file of a BERT.
fn read_bert(json: &Value) -> std::result::Result<Config, String> {
    let default = |key: &str, value: Value| match &json[key] {
        Value::Null => value,
        found => found.clone(),
    };
    let kind = default("position_embedding_type", json!("absolute"));
    if kind != "absolute" {
        return Err(format!("position_embedding_type is {kind}: only \"absolute\" is implemented"));
    }
    if let Some(key) = ["is_decoder", "add_cross_attention"].into_iter().find(|key| json[*key] == true) {
        return Err(format!("{key} is true: only an encoder is implemented"));
    }
    let number =
        |key: &str, value: Value| default(key, value).as_f64().filter(|x| *x > 0.0).ok_or(format!("{key} must be a positive number"));
    let types =
        default("type_vocab_size", json!(2)).as_u64().filter(|n| *n > 0).ok_or("type_vocab_size must be a positive whole number")?;
    let mut ours = json!({ "model_type": "bert", "seq_classif_dropout": default("hidden_dropout_prob", json!(tenth())) });
    let same = ["initializer_range", "max_position_embeddings", "vocab_size", "problem_type"].map(|key| (key, key));
    for (theirs, own) in BERT_KEYS.into_iter().chain(same).filter(|(theirs, _)| !json[*theirs].is_null()) {
        ours[own] = json[theirs].clone();
    }
    let config: Config = serde_json::from_value(ours).map_err(|e| in_words_of_bert(e.to_string()))?;
    Ok(Config { type_vocab_size: types as usize, layer_norm_eps: number("layer_norm_eps", json!(eps()))?, ..config })
}

/// A message with the names of the fields in the file of a BERT.
fn in_words_of_bert(problem: String) -> String {
    BERT_KEYS.iter().fold(problem, |problem, (theirs, own)| problem.replace(&format!("`{own}`"), &format!("`{theirs}`")))
}

/// The architecture that the file names. BERT's first files, and TinyBERT's, name none.
fn architecture(json: &Value) -> std::result::Result<Architecture, String> {
    let why = match &json["model_type"] {
        Value::String(name) => match name.as_str() {
            "distilbert" => return Ok(Architecture::DistilBert),
            "bert" => return Ok(Architecture::Bert),
            "roberta" | "xlm-roberta" | "camembert" => "it has another tokenizer, and its positions begin at 2",
            "modernbert" => "it has another tokenizer, rotary positions and gated layers",
            _ => "it is another architecture",
        },
        Value::Null if json["hidden_size"].is_u64() && json["type_vocab_size"] == 2 && json["embedding_size"].is_null() => {
            return Ok(Architecture::Bert);
        }
        _ => "the field must name an architecture",
    };
    Err(format!("is {}: only \"distilbert\" and \"bert\" are implemented; {why}", json["model_type"]))
}

/// Names of the classes, as transformers reads them: `id2label`, unless `num_labels` is another number. Without names there are `num_labels`
/// generic ones. A name may be a JSON number.
fn read_labels(json: &Value) -> std::result::Result<BTreeMap<usize, String>, String> {
    let count = match &json["num_labels"] {
        Value::Null => None,
        value => Some(value.as_u64().filter(|n| *n > 0).ok_or(format!("num_labels is {value}: it must be a positive number"))?),
    };
    let named = match &json["id2label"] {
        Value::Null => None,
        Value::Object(map) => Some(map),
        other => return Err(format!("id2label is {other}: it must be an object of numbers and names")),
    };
    if let Some(n) = count.map(|n| usize::try_from(n).unwrap_or(usize::MAX)).or(named.map(|named| named.len()).filter(|n| *n > 0)) {
        let key = if count.is_some() { "num_labels" } else { "id2label" };
        check_classes(n).map_err(|problem| format!("{key} says {problem}"))?;
    }
    let Some(named) = named.filter(|named| count.is_none_or(|n| n == named.len() as u64)) else {
        return Ok((0..count.unwrap_or(0) as usize).map(|i| (i, generic_label(i))).collect());
    };
    let mut names = BTreeMap::new();
    for (key, value) in named {
        let i = key
            .parse()
            .ok()
            .filter(|&i: &usize| i < named.len())
            .ok_or(format!("id2label has the key {key:?}: its {} keys must be the numbers from 0", named.len()))?;
        let name = match value {
            Value::String(name) => name.clone(),
            Value::Null => generic_label(i),
            other => other.to_string(),
        };
        names.insert(i, name);
    }
    if names.len() != named.len() || names.is_empty() {
        return Err(format!("id2label names {} classes: there must be one name for each number from 0", names.len()));
    }
    Ok(names)
}

/// Largest width of a model.
const WIDEST: usize = 1 << 14;
/// Largest size of anything else.
const LARGEST: usize = 1 << 24;
/// Most layers.
const MOST_LAYERS: usize = 1000;

impl Config {
    /// The sizes of `distilbert-base-uncased`.
    pub fn distilbert_base() -> Config {
        Config {
            activation: gelu(),
            attention_dropout: tenth(),
            dim: 768,
            dropout: tenth(),
            hidden_dim: 3072,
            initializer_range: init_range(),
            max_position_embeddings: 512,
            architecture: Architecture::DistilBert,
            n_heads: 12,
            n_layers: 6,
            seq_classif_dropout: fifth(),
            vocab_size: 30522,
            type_vocab_size: 0,
            layer_norm_eps: eps(),
            id2label: BTreeMap::new(),
            problem_type: None,
        }
    }

    /// The sizes of `bert-base-uncased`.
    pub fn bert_base() -> Config {
        let dropouts = Config { seq_classif_dropout: tenth(), ..Config::distilbert_base() };
        Config { architecture: Architecture::Bert, n_layers: 12, type_vocab_size: 2, ..dropouts }
    }

    /// Names of the classes: those of the checkpoint, or the generic names of two classes.
    pub fn labels(&self) -> Vec<String> {
        match self.id2label.is_empty() {
            true => (0..2).map(generic_label).collect(),
            false => self.id2label.values().cloned().collect(),
        }
    }

    /// Whether a class has another name than the generic one.
    pub fn names_classes(&self) -> bool {
        self.id2label.iter().any(|(&i, name)| *name != generic_label(i))
    }

    /// The meaning of the logits of a head with `logits` outputs, as in transformers' text-classification pipeline.
    pub fn outputs(&self, logits: usize) -> Outputs {
        match self.problem_type.as_deref().and_then(Outputs::named) {
            Some(Outputs::Classes) | None if logits == 1 => Outputs::Labels,
            found => found.unwrap_or_default(),
        }
    }

    /// Says what the outputs of a new head mean. Classes need no `problem_type`, unless another one is there.
    pub fn set_outputs(&mut self, outputs: Outputs) {
        if outputs != Outputs::Classes || self.problem_type.is_some() {
            self.problem_type = Some(outputs.problem_type().to_string());
        }
    }

    /// Reads `config.json` in the directory `model`.
    ///
    /// # Errors
    /// If the file is missing, a size is missing or impossible, or the architecture is neither DistilBERT nor BERT.
    pub fn open(model: &Path) -> Result<Config> {
        let path = model.join("config.json");
        let text = read_text(&path)?;
        let json: Value = serde_json::from_str(&text).map_err(|e| Error::file(&path, "json", e))?;
        // Checked first, because another architecture has other fields.
        let architecture = architecture(&json).map_err(|problem| Error::file(&path, "\"model_type\"", problem))?;
        let id2label = read_labels(&json).map_err(|problem| Error::file(&path, "labels", problem))?;
        let config = match architecture {
            Architecture::DistilBert => serde_json::from_str(&text).map_err(|e| e.to_string()),
            Architecture::Bert => read_bert(&json),
        };
        let config = config.map_err(|problem| Error::file(&path, "config", problem))?;
        let config = Config { id2label, ..config };
        config.check().map_err(|problem| Error::file(&path, "config", problem))?;
        Ok(config)
    }

    /// The content of `config.json`, with the names of its architecture.
    ///
    /// # Errors
    /// Never.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        let mut json = serde_json::to_value(self)?;
        if let (Architecture::Bert, Some(fields)) = (self.architecture, json.as_object_mut()) {
            for (theirs, own) in BERT_KEYS {
                fields.remove(own).map(|value| fields.insert(theirs.to_string(), value));
            }
            fields.insert("layer_norm_eps".into(), json!(self.layer_norm_eps));
            fields.insert("type_vocab_size".into(), json!(self.type_vocab_size));
        }
        Ok(json)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if let Some(other) = self.problem_type.as_deref().filter(|problem| Outputs::named(problem).is_none()) {
            return Err(format!("problem_type is {other:?}: it must be one of {}", Outputs::ALL.map(Outputs::problem_type).join(", ")));
        }
        if self.activation != "gelu" {
            return Err(format!("the activation is {:?}: only \"gelu\" (the erf form) is implemented", self.activation));
        }
        for (name, size) in [
            ("dim", self.dim),
            ("hidden_dim", self.hidden_dim),
            ("max_position_embeddings", self.max_position_embeddings),
            ("n_heads", self.n_heads),
            ("vocab_size", self.vocab_size),
            ("type_vocab_size", self.type_vocab_size.max(1)),
        ] {
            if !(1..=LARGEST).contains(&size) {
                return Err(format!("{name} is {size}: it must be positive and at most {LARGEST}"));
            }
        }
        if self.n_layers > MOST_LAYERS {
            return Err(format!("n_layers is {}: the largest that is read is {MOST_LAYERS}", self.n_layers));
        }
        if !self.dim.is_multiple_of(self.n_heads) {
            return Err(format!("dim is {}, and must be a multiple of n_heads, which is {}", self.dim, self.n_heads));
        }
        // The largest DistilBERT has 768. A new head has a matrix [dim, dim], which is drawn in f64.
        if self.dim > WIDEST {
            return Err(format!("dim is {}: the largest that is read is {WIDEST}", self.dim));
        }
        if [self.attention_dropout, self.dropout, self.seq_classif_dropout].iter().any(|p| !(0.0..1.0).contains(p)) {
            return Err("dropouts must lie in [0, 1)".to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: Value) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let mut json = serde_json::to_value(Config::distilbert_base()).unwrap();
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
        Config::open(dir.path())
    }

    #[test]
    fn labels_are_read_as_transformers_reads_them() {
        // What transformers 5.24 makes of each.
        for (more, names) in [
            (json!({}), &["LABEL_0", "LABEL_1"][..]),
            (json!({"id2label": null, "num_labels": null}), &["LABEL_0", "LABEL_1"]),
            (json!({"num_labels": 3}), &["LABEL_0", "LABEL_1", "LABEL_2"]),
            (json!({"num_labels": 1}), &["LABEL_0"]),
            (json!({"num_labels": 3, "id2label": {"0": "a", "1": "b"}}), &["LABEL_0", "LABEL_1", "LABEL_2"]),
            (json!({"id2label": {"1": "b", "0": "a"}}), &["a", "b"]),
            (json!({"id2label": {"0": 1, "1": 2}}), &["1", "2"]),
            (json!({"id2label": {"0": null, "1": "x"}}), &["LABEL_0", "x"]),
        ] {
            assert_eq!(read(more.clone()).unwrap().labels(), names, "{more}");
        }
        let twelve: serde_json::Map<_, _> = (0..12).map(|i| (i.to_string(), json!(format!("class {i}")))).collect();
        assert_eq!(read(json!({"id2label": twelve})).unwrap().labels()[10], "class 10", "by number, not by text");
        assert_eq!(read(json!({"num_labels": 4096})).unwrap().labels().len(), 4096);
        let many: serde_json::Map<_, _> = (0..4097).map(|i| (i.to_string(), json!(format!("class {i}")))).collect();
        for (more, problem) in [
            (json!({"num_labels": "3"}), "num_labels"),
            (json!({"num_labels": 0}), "num_labels"),
            (json!({"num_labels": 4097}), "num_labels says 4097 classes: there must be 1 to 4096"),
            (json!({"num_labels": u64::MAX}), "num_labels says"),
            (json!({"id2label": many}), "id2label says 4097 classes"),
            (json!({"id2label": ["a", "b"]}), "id2label"),
            (json!({"id2label": {}}), "id2label"),
            (json!({"id2label": {"0": "a", "2": "b"}}), "\"2\""),
            (json!({"problem_type": "ranking"}), "problem_type"),
            (json!({"model_type": "roberta", "dim": null}), "\"model_type\": is \"roberta\""),
            (json!({"model_type": null}), "model_type"),
        ] {
            let message = read(more.clone()).unwrap_err().to_string();
            assert!(message.contains(problem), "{more}: {message}");
        }
    }

    #[test]
    fn the_kind_of_head_is_that_of_transformers_pipeline() {
        let outputs = |problem: &str, logits| read(json!({"problem_type": problem})).unwrap().outputs(logits);
        assert_eq!(outputs("regression", 1), Outputs::Numbers);
        assert_eq!(outputs("multi_label_classification", 3), Outputs::Labels);
        assert_eq!(outputs("single_label_classification", 3), Outputs::Classes);
        let plain = Config::distilbert_base();
        assert_eq!([1, 2, 3].map(|n| plain.outputs(n)), [Outputs::Labels, Outputs::Classes, Outputs::Classes]);
    }
}
