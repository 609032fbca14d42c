//! `config.json` of a DistilBERT checkpoint.

use crate::tensor::safetensors::read_text;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Sizes and dropouts. Fields that do not matter here are ignored on load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(default = "gelu")]
    activation: String,
    /// Dropout of the attention probabilities.
    #[serde(default = "tenth")]
    pub attention_dropout: f64,
    /// D.
    pub dim: usize,
    /// Dropout after the embeddings and after each feed-forward block.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// F.
    pub hidden_dim: usize,
    /// Standard deviation of newly initialised weights.
    #[serde(default = "init_range")]
    pub initializer_range: f64,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    model_type: String,
    /// H.
    pub n_heads: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Dropout before the classifier.
    #[serde(default = "fifth")]
    pub seq_classif_dropout: f64,
    /// V.
    pub vocab_size: usize,
    /// Names of the classes, if the checkpoint has a head.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub id2label: BTreeMap<String, String>,
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
            model_type: "distilbert".to_string(),
            n_heads: 12,
            n_layers: 6,
            seq_classif_dropout: fifth(),
            vocab_size: 30522,
            id2label: BTreeMap::new(),
        }
    }

    /// Names of the classes: the checkpoint's own, else those that transformers gives to two classes without names.
    pub fn labels(&self) -> Vec<String> {
        let name = |i: usize| self.id2label.get(&i.to_string()).cloned().unwrap_or_else(|| format!("LABEL_{i}"));
        (0..if self.id2label.is_empty() { 2 } else { self.id2label.len() }).map(name).collect()
    }

    /// Reads `config.json` in the directory `model`.
    ///
    /// # Errors
    /// If it is missing, a size is missing or impossible, or it is of another architecture.
    pub fn open(model: &Path) -> Result<Config> {
        let path = model.join("config.json");
        let text = read_text(&path)?;
        let config: Config = serde_json::from_str(&text).map_err(|e| Error::file(&path, "config", e))?;
        config.check().map_err(|problem| Error::file(&path, "config", problem))?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.model_type != "distilbert" {
            return Err(format!("model_type is {:?}: only \"distilbert\" is implemented", self.model_type));
        }
        if self.activation != "gelu" {
            return Err(format!("activation is {:?}: only \"gelu\" (the erf form) is implemented", self.activation));
        }
        let sizes = [self.dim, self.hidden_dim, self.max_position_embeddings, self.n_heads, self.vocab_size];
        if sizes.iter().any(|&n| n == 0 || n > 1 << 24) || self.n_layers > 1000 || !self.dim.is_multiple_of(self.n_heads) {
            return Err("sizes must be positive, and dim a multiple of n_heads".to_string());
        }
        if [self.attention_dropout, self.dropout, self.seq_classif_dropout].iter().any(|p| !(0.0..1.0).contains(p)) {
            return Err("dropouts must lie in [0, 1)".to_string());
        }
        Ok(())
    }
}
