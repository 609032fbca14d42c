//! `lowrank bench`: times inference, training, or a GPU.

use super::base::checked;
use super::common::{Checkpoint, ComputeType, count, say, say_json, user_cache};
use crate::study::{Timing, latency};
use clap::{Args, Subcommand};
use lowrank::Result;
use lowrank::lora::{LoraConfig, Method, Placement};
use lowrank::nn::{Config, DistilBert, LoadOptions};
use serde_json::json;

/// Arguments of `bench`.
#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Time one batch through the base, and through the base with each method
    Latency(LatencyArgs),
    /// Time the last of several epochs of training, and an evaluation at its best batch size
    Epoch(Box<super::bench_epoch::Epoch>),
    /// Measure the peak speed of a GPU: a large bf16 product, and a copy
    #[cfg(feature = "cuda")]
    Gpu(super::bench_gpu::Gpu),
}

/// The methods that can be timed. `merged`: LoRA added to the weights.
const METHODS: [&str; 7] = ["merged", "lora", "dora", "adapter", "adapter-pfeiffer", "prefix", "prompt"];

/// Arguments of `bench latency`.
#[derive(Args)]
struct LatencyArgs {
    /// Folder of the base checkpoint, or the name of a fetched model
    #[arg(long, value_name = "DIR|NAME")]
    model: Checkpoint,
    /// Methods to compare with the base
    #[arg(long, value_parser = METHODS, value_delimiter = ',', default_value = "merged,lora,dora,adapter,adapter-pfeiffer,prefix,prompt")]
    methods: Vec<String>,
    /// Texts of a batch
    #[arg(long, default_value_t = 16, value_parser = count::<1024>)]
    batch: usize,
    /// Tokens of each text
    #[arg(long, default_value_t = 128)]
    length: usize,
    /// Rounds; each method runs once a round
    #[arg(long, default_value_t = 30, value_parser = count::<1_000_000>)]
    rounds: usize,
    /// Rank of the low-rank terms, on all six linears of each layer
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// Hidden size of each adapter
    #[arg(long, default_value_t = 64)]
    adapter_size: usize,
    /// Virtual tokens of a prefix or prompt
    #[arg(long, default_value_t = 20)]
    virtual_tokens: usize,
    /// Data type of the computation
    #[arg(long, value_enum, default_value_t = ComputeType::F32)]
    dtype: ComputeType,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Bench {
    /// Runs the command.
    pub(super) fn run(self) -> Result<()> {
        match self.what {
            What::Latency(latency) => latency.run(),
            What::Epoch(epoch) => epoch.run(),
            #[cfg(feature = "cuda")]
            What::Gpu(gpu) => gpu.run(),
        }
    }
}

impl LatencyArgs {
    fn method(&self, name: &str) -> Method {
        let lora = |dora| Method::Lora(LoraConfig { dora, ..LoraConfig::new(self.rank, &["all-linear"]) });
        match name {
            "dora" => lora(true),
            "adapter" => Method::Bottleneck { size: self.adapter_size, placement: Placement::Houlsby },
            "adapter-pfeiffer" => Method::Bottleneck { size: self.adapter_size, placement: Placement::Pfeiffer },
            "prefix" => Method::Prefix { tokens: self.virtual_tokens },
            "prompt" => Method::Prompt { tokens: self.virtual_tokens },
            _ => lora(false),
        }
    }

    fn run(self) -> Result<()> {
        let config = Config::open(&self.model.path)?;
        self.methods.iter().try_for_each(|name| self.method(name).check(&config))?;
        checked(&self.model.path, user_cache().as_deref())?;
        let base = DistilBert::open_with(&self.model.path, &LoadOptions { dtype: self.dtype.into(), ..LoadOptions::default() })?.0;
        let methods: Vec<_> = self.methods.iter().map(|name| (name.clone(), self.method(name), name == "merged")).collect();
        let rows = latency(&base, &methods, &Timing { batch: self.batch, length: self.length, rounds: self.rounds })?;
        if self.json {
            let all = json!({ "batch": self.batch, "length": self.length, "rounds": self.rounds, "methods": rows });
            return say_json(&all);
        }
        say(format!("{} texts of {} tokens, {} rounds; medians with 95 % intervals", self.batch, self.length, self.rounds))?;
        for row in &rows {
            let ([ms, low, high], [ratio, lowest, highest]) = (row.seconds.map(|s| 1e3 * s), row.ratio);
            let verdict = row.cost.filter(|_| row.method != "base").map_or(String::new(), |cost| format!(": {cost}"));
            let name = &row.method;
            say(format!("{name:<17} {ms:7.1} ms ({low:.1}–{high:.1}), {ratio:.3} of the base ({lowest:.3}–{highest:.3}){verdict}"))?;
        }
        if rows.iter().any(|row| row.cost.is_none()) {
            say(format!("{} rounds are too few for a verdict: it takes ten", self.rounds))?;
        }
        Ok(())
    }
}
