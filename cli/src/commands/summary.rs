//! What `train` prints about the model, and at the end.

use super::common::{say, say_json};
use super::device::device_memory;
use super::measure::describe;
use super::notes::note;
use super::run::RunState;
use lowrank::Result;
use lowrank::data::Tokenized;
use lowrank::lora::Counts;
use lowrank::nn::{DistilBert, LoadReport};
use lowrank::tensor::DType;
use lowrank::tensor::simd::{self, Isa};
use lowrank::text::thousands;
use lowrank::train::{Evaluation, memory_by_category, peak_memory};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Says what was loaded from `checkpoint`, which linears are `adapted`, and how many parameters train.
pub fn tell_model(checkpoint: &Path, model: &DistilBert, report: &LoadReport, adapted: &[String]) {
    let list = |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
    note!("{}: {} weights, newly initialised: {}", checkpoint.display(), model.weights().len(), list(&report.initialised));
    if !report.unused.is_empty() {
        note!("unused tensors of the checkpoint: {}", list(&report.unused));
    }
    if !adapted.is_empty() {
        note!("low-rank terms on {} linears: {}", adapted.len(), list(adapted));
    }
    let counts = Counts::of(model);
    note!("{}", counts.peft_line());
    note!("{:.2} % of the model's own {} parameters", counts.percent(), thousands(counts.base));
}

/// Data type and instruction set of the computation.
pub fn kernel_path(dtype: DType) -> String {
    match (dtype, simd::isa()) {
        (DType::BF16, isa @ Isa::Avx512Bf16) => format!("bf16, multiplied as such ({isa})"),
        (DType::BF16, isa) => format!("bf16, widened to f32 in the kernels ({isa})"),
        (other, isa) => format!("{} ({isa})", other.to_string().to_lowercase()),
    }
}

/// A finished run.
pub struct Summary<'a> {
    pub counts: Counts,
    pub out: &'a Path,
    pub seed: u64,
    pub epochs: usize,
    /// On the test set.
    pub result: &'a Evaluation,
    pub state: &'a RunState,
}

impl Summary<'_> {
    /// Prints the result, or with `json` one object with all numbers, and says how much memory was used.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn print(&self, model: &DistilBert, train: &Tokenized, test: &Tokenized, json: bool) -> Result<()> {
        let (peak, on_device, seconds) = (peak_memory(), device_memory(model), self.state.seconds);
        let by_category =
            peak.map(|peak| memory_by_category(model, peak, self.state.kept, train.bytes() + test.bytes())).unwrap_or_default();
        let mega = |bytes: usize| format!("{:.0} MB", bytes as f64 / 1e6);
        if let Some(bytes) = peak {
            let parts: Vec<_> = by_category.iter().map(|&(name, bytes)| format!("{} {name}", mega(bytes))).collect();
            note!("peak memory {}: {}", mega(bytes), parts.join(", "));
        }
        if let Some(bytes) = on_device {
            note!("memory on the GPU: {}", mega(bytes));
        }
        if !json {
            return say(format!("trained in {seconds:.0} s; {}", describe(self.result)));
        }
        say_json(&json!({
            "trainable": self.counts.trainable, "base": self.counts.base, "train_reviews": train.len(), "tokens_per_epoch": train.tokens(),
            "seconds": seconds, "tokens_per_second": (train.tokens() * self.epochs) as f64 / seconds, "test": self.result,
            "out": self.out, "seed": self.seed, "peak_memory_bytes": peak, "memory_bytes": by_category.iter().copied().collect::<BTreeMap<_, _>>(),
            "device_memory_bytes": on_device,
        }))
    }
}
