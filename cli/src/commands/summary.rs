//! The end of a training run as a file of numbers: `summary.json`.

use super::device::device_memory;
use super::figures::AllFigures;
use super::run::{RunState, Texts};
use super::tested::Tested;
use lowrank::cut::Cut;
use lowrank::lora::{Counts, Method};
use lowrank::nn::DistilBert;
use lowrank::train::{Recipe, memory_by_category, peak_memory};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a run was, and what it gave.
pub struct Finished<'a> {
    pub model: &'a DistilBert,
    pub texts: &'a Texts,
    pub recipe: &'a Recipe,
    pub method: &'a Method,
    pub dtype: String,
    pub cut: Cut,
    /// Name of the figure by which epochs were chosen; `None` if none was.
    pub chosen_by: Option<&'a str>,
    pub state: &'a RunState,
    pub tested: &'a Tested,
    pub figures: &'a AllFigures,
}

impl Finished<'_> {
    /// Number of epochs that were trained: fewer than the recipe's if patience ended.
    pub fn epochs(&self) -> usize {
        self.state.measured
    }

    /// The records of the optimizer steps in `metrics.jsonl`.
    pub fn steps(&self) -> impl Iterator<Item = Value> {
        self.records().filter(|record| record.get("step").is_some())
    }

    /// The records of `metrics.jsonl`.
    pub fn records(&self) -> impl Iterator<Item = Value> {
        self.state.metrics.lines().filter_map(|line| serde_json::from_str(line).ok())
    }

    /// Everything as JSON.
    pub fn summary(&self) -> Value {
        let (train, counts, seconds, peak) = (&self.texts.train, Counts::of(self.model), self.state.seconds, peak_memory());
        let data_bytes = train.bytes() + self.texts.test.bytes();
        let by_category = peak.map(|peak| memory_by_category(self.model, peak, self.state.kept, data_bytes)).unwrap_or_default();
        let mut all = json!({
            "lowrank": env!("CARGO_PKG_VERSION"),
            "labels": train.label_names,
            "trainable": counts.trainable,
            "base": counts.base,
            "train_reviews": train.len(),
            "tokens_per_epoch": train.tokens(),
            "seconds": seconds,
            "tokens_per_second": (train.tokens() * self.epochs()) as f64 / seconds,
            "seed": self.recipe.seed,
            "recipe": self.recipe,
            "method": self.method,
            "dtype": self.dtype,
            "max_length": self.cut.max_length,
            "epochs": self.epochs(),
            "chosen_by": self.chosen_by,
            "best_epoch": self.state.best.as_ref().map(|best| best.epoch),
            "temperature": self.tested.temperature,
            "held_out": self.tested.held_out,
            "test": self.tested.test,
            "metrics": self.figures,
            "peak_memory_bytes": peak,
            "memory_bytes": by_category.iter().copied().collect::<BTreeMap<_, _>>(),
            "device_memory_bytes": device_memory(self.model),
        });
        // As in lowrank.json: only what was asked for.
        if let Some(truncate) = self.cut.truncate {
            all["truncate"] = json!(truncate);
        }
        if self.cut.windows > 1 {
            all["windows"] = json!(self.cut.windows);
        }
        if let Some(task) = &self.model.config.problem_type {
            all["problem_type"] = json!(task);
        }
        if let Some(thresholds) = &self.tested.thresholds {
            all["thresholds"] = json!(thresholds);
        }
        if train.has_pairs() {
            all["pairs"] = json!(true);
        }
        all
    }
}
