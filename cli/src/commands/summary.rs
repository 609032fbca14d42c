//! What `train` says about the model before it trains.

use super::notes::note;
use lowrank::lora::Counts;
use lowrank::nn::{DistilBert, LoadReport};
use lowrank::tensor::DType;
use lowrank::tensor::simd::{self, Isa};
use lowrank::text::thousands;
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
