//! The bodies of the fuzz targets. `fuzz_targets/` gives them to libFuzzer, and `tests/fuzz_findings.rs` of the engine replays known inputs.
//!
//! Each body takes any bytes. It may end in any way but a panic.

pub mod adapter;
pub mod archive;
pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod csv;
pub mod gemm;
pub mod graph;
pub mod input;
pub mod jsonl;
pub mod safetensors;
pub mod table;
pub mod tokenizer;
pub mod tsv;
pub mod vocab;

/// The body of a target.
pub type Body = fn(&[u8]);

/// All targets.
pub const ALL: [(&str, Body); 13] = [
    ("safetensors", safetensors::run),
    ("config", config::run),
    ("vocab", vocab::run),
    ("tokenizer", tokenizer::run),
    ("adapter", adapter::run),
    ("csv", csv::run),
    ("tsv", tsv::run),
    ("jsonl", jsonl::run),
    ("archive", archive::run),
    ("cache", cache::run),
    ("checkpoint", checkpoint::run),
    ("gemm", gemm::run),
    ("graph", graph::run),
];
