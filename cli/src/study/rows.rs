//! The seven configurations of the study, and the further ones that its claims need.

use lowrank::lora::{Init, LoraConfig, Method, Placement};
use lowrank::nn::{Architecture, Config};

/// A configuration of the study.
#[derive(Clone, Debug)]
pub struct Row {
    /// Short name, used by `--rows` and as folder name.
    pub key: String,
    /// Name in the table.
    pub name: String,
    /// Method of fine-tuning.
    pub method: Method,
    /// Highest learning rate.
    pub lr: f64,
    /// Test accuracy that the study states, in per cent, for `distilbert-base-uncased` on all of IMDB.
    pub stated: Option<f64>,
    /// Trains this many times the study's number of epochs.
    pub epoch_factor: usize,
    /// Compute the output of the frozen layers once, without dropout.
    pub cache_trunk: bool,
    /// Trains on every n-th review.
    pub subsample: usize,
}

impl Row {
    /// Folder name of the run with `seed`.
    pub fn folder(&self, seed: u64) -> String {
        format!("{}-seed{seed}", self.key)
    }
}

/// `x` rounded to twelve significant digits: 5 · 3e-4 = 0.0014999999999999998 becomes 0.0015.
pub fn rounded(x: f64) -> f64 {
    format!("{x:.11e}").parse().unwrap_or(x)
}

/// Trains the classification head alone, without the layer before it.
const HEAD: Method = Method::Head { pre_classifier: false };
/// The study's learning rates: of LoRA and of full fine-tuning.
const LORA_LR: f64 = 3e-4;
const FULL_LR: f64 = 2e-5;

fn row(key: impl Into<String>, name: impl Into<String>, method: Method, lr: f64) -> Row {
    Row { key: key.into(), name: name.into(), method, lr, stated: None, epoch_factor: 1, cache_trunk: false, subsample: 1 }
}

fn lora(rank: usize, targets: &[&str]) -> Method {
    Method::Lora(LoraConfig::new(rank, targets))
}

/// The rows of the table, in the study's order: alpha = 2r, dropout 0.1, lr 3e-4; full fine-tuning 2e-5. The study does not state the head's
/// learning rate, so 1e-3 is our choice. `scale` multiplies all learning rates. The linears have the names of `architecture`.
pub fn rows(architecture: Architecture, scale: f64) -> Vec<Row> {
    let (qv, attention, all) = (architecture.default_targets(), architecture.attention(), architecture.layer_linears());
    let rows = [
        ("head", "classification head only", HEAD, 1e-3, 82.18),
        ("qv4", "Q+V r=4", lora(4, &qv), LORA_LR, 92.28),
        ("qv8", "Q+V r=8", lora(8, &qv), LORA_LR, 92.48),
        ("qv16", "Q+V r=16", lora(16, &qv), LORA_LR, 92.67),
        ("attention", "all attention r=8", lora(8, &attention), LORA_LR, 93.00),
        ("all", "all attention + FFN r=8", lora(8, all), LORA_LR, 93.32),
        ("full", "full fine-tuning", Method::Full, FULL_LR, 93.26),
    ];
    rows.map(|(key, name, method, lr, stated)| Row { stated: Some(stated), ..row(key, name, method, rounded(scale * lr)) }).into()
}

/// Sample efficiency: train on one review of 8, 4 and 2.
pub(super) const PARTS: [usize; 3] = [8, 4, 2];
/// Dimensions of the random subspaces.
pub(super) const DIMENSIONS: [usize; 4] = [10, 100, 1000, 10_000];
/// Share of the model's parameters that adapters have in the paper (Houlsby et al. 2019).
const ADAPTER_SHARE: f64 = 0.03;

/// The further rows for a model of `config`. `scale` multiplies the learning rates that the study states, but not those that we chose.
pub fn claim_rows(config: &Config, scale: f64) -> Vec<Row> {
    let (lora_lr, full_lr) = (rounded(scale * LORA_LR), rounded(scale * FULL_LR));
    let targets = config.architecture.default_targets();
    let qv = |rank| LoraConfig::new(rank, &targets);
    let (alpha4, alpha16) = (LoraConfig { alpha: 16.0, ..qv(4) }, LoraConfig { alpha: 16.0, ..qv(16) });
    let gaussian = LoraConfig { init: Init::Gaussian, ..qv(8) };
    let adapters = Method::Bottleneck { size: adapter_size(config), placement: Placement::Houlsby };
    let mut rows = vec![
        row("qv1", "Q+V r=1", lora(1, &targets), lora_lr),
        row("qv2", "Q+V r=2", lora(2, &targets), lora_lr),
        row("qv4-alpha16", "Q+V r=4, alpha 16", Method::Lora(alpha4), lora_lr),
        row("qv16-alpha16", "Q+V r=16, alpha 16", Method::Lora(alpha16), lora_lr),
        row("qv8-gaussian", "Q+V r=8, A Gaussian", Method::Lora(gaussian), lora_lr),
        row("adapter", "adapters (Houlsby)", adapters, lora_lr),
        Row { epoch_factor: 20, cache_trunk: true, ..row("head-long", "head, 20 times as long", HEAD, 1e-2) },
        row("qv8-slow", "Q+V r=8, full fine-tuning's rate", lora(8, &targets), full_lr),
        row("full-fast", "full fine-tuning, LoRA's rate", Method::Full, lora_lr),
    ];
    for top in [1, 2].into_iter().filter(|top| *top < config.n_layers) {
        let method = Method::Selective { frozen_layers: config.n_layers - top };
        let layers = if top == 1 { "layer" } else { "layers" };
        rows.push(row(format!("top{top}"), format!("the upper {top} {layers}"), method, full_lr));
    }
    for part in PARTS {
        for (key, name, method, lr) in [("qv8", "Q+V r=8", lora(8, &targets), lora_lr), ("full", "full fine-tuning", Method::Full, full_lr)]
        {
            let whole = row(format!("{key}-1of{part}"), format!("{name}, 1/{part} of the reviews"), method, lr);
            rows.push(Row { subsample: part, ..whole });
        }
    }
    for dimension in DIMENSIONS {
        let method = Method::Intrinsic { dimension, seed: 0 };
        // The larger d is, the more a step moves the weights: see docs/methods.md.
        let lr = if dimension <= 1000 { 1e-2 } else { 1e-3 };
        rows.push(row(format!("intrinsic{dimension}"), format!("random subspace, d={dimension}"), method, lr));
    }
    rows
}

/// Hidden size of two adapters a layer that together have [`ADAPTER_SHARE`] of the encoder's parameters.
fn adapter_size(config: &Config) -> usize {
    let (d, f, layers) = (config.dim, config.hidden_dim, config.n_layers);
    let encoder = (config.vocab_size + config.max_position_embeddings) * d + layers * (4 * d * d + 2 * d * f);
    ((ADAPTER_SHARE * encoder as f64 / (4 * d * layers).max(1) as f64).round() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_run_has_a_folder_of_its_own_and_adapters_have_three_per_cent() {
        let config = Config::distilbert_base();
        let all: Vec<Row> = rows(config.architecture, 1.0).into_iter().chain(claim_rows(&config, 1.0)).collect();
        assert_eq!(all.iter().map(|row| &row.key).collect::<BTreeSet<_>>().len(), all.len());
        // Two adapters a layer, each with 768 · m parameters down and 768 · m up: 3 % of 66 million.
        let numbers = 6.0 * 2.0 * 2.0 * 768.0 * adapter_size(&config) as f64;
        assert!((numbers / 66_362_880.0 - 0.03).abs() < 1e-3, "{numbers}");
    }
}
