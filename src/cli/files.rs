//! `lowrank init` and `inspect`.

use super::Outcome;
use super::common::{About, say, say_json};
use super::output::{Input, Output};
use crate::data::WordPiece;
use crate::lora::{Method, adapter, thousands};
use crate::nn::{Config, DistilBert};
use crate::tensor::DType;
use crate::tensor::safetensors::{self, SafeTensors};
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `init`.
#[derive(Args)]
pub struct Init {
    /// Architecture
    #[arg(long, value_enum)]
    like: Like,
    /// vocab.txt to copy into the checkpoint; sets the vocabulary's size
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Known architectures.
#[derive(Clone, Copy, ValueEnum)]
enum Like {
    /// 6 layers, 768 wide, 12 heads.
    DistilbertBase,
}

impl Init {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let Like::DistilbertBase = self.like;
        let out = &self.output.out;
        self.output.check(&self.vocab.iter().map(|vocab| Input::Data("the vocabulary", vocab.clone())).collect::<Vec<_>>())?;
        let mut config = Config::distilbert_base();
        if let Some(vocab) = &self.vocab {
            config.vocab_size = WordPiece::open(vocab)?.vocab_size();
        }
        let model = DistilBert::random(&config, 2, DType::F32, self.seed)?;
        // A base checkpoint has no head: that is made for the task.
        let encoder = model.weights().into_iter().filter(|w| w.name().starts_with("distilbert."));
        let tensors: Vec<_> = encoder.map(|w| Ok((w.name().to_string(), w.value()?))).collect::<Result<_>>()?;
        let about = About::new(&model, &[], config.max_position_embeddings, self.seed);
        safetensors::write_directory(out, |directory| {
            let text = serde_json::to_string_pretty(&config).map_err(|e| Error::file(directory, "config.json", e))?;
            safetensors::write_file(&directory.join("config.json"), text.as_bytes())?;
            if let Some(vocab) = &self.vocab {
                std::fs::copy(vocab, directory.join("vocab.txt")).map_err(|e| Error::io(vocab, e))?;
            }
            about.write(directory)?;
            let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
            safetensors::write(&directory.join("model.safetensors"), &tensors, &metadata)
        })?;
        let numbers: usize = tensors.iter().map(|(_, t)| t.shape().len()).sum();
        say(format!("{}: {} random weights, {} numbers", out.display(), tensors.len(), thousands(numbers)))?;
        Ok(Outcome::Done)
    }
}

/// Arguments of `inspect`.
#[derive(Args)]
pub struct Inspect {
    /// A checkpoint's or an adapter's directory, or a safetensors file
    path: PathBuf,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let adapter = self.path.join("adapter_model.safetensors");
        let is_adapter = adapter.exists();
        let file = SafeTensors::open(if is_adapter { &adapter } else { &self.path })?;
        let mut facts = Vec::new();
        if is_adapter {
            let classes = adapter::classes(&self.path)?;
            facts.push(match adapter::method(&self.path)? {
                Method::Lora(c) => {
                    let (scale, targets) = (c.alpha / c.rank as f64, c.targets.join(", "));
                    format!("LoRA of rank {}, alpha {}, scale {scale}, dropout {}, on {targets}", c.rank, c.alpha, c.dropout)
                }
                Method::Head { pre_classifier: true } => "pre_classifier and classifier".to_string(),
                Method::Head { pre_classifier: false } => "the classifier".to_string(),
                Method::BitFit => "BitFit: biases and head".to_string(),
                Method::Adapter { size, placement } => format!("adapters ({placement:?}) of size {size}"),
                Method::Prompt { tokens } => format!("a prompt of {tokens} virtual tokens"),
                Method::Prefix { tokens } => format!("a prefix of {tokens} virtual tokens"),
                other => format!("{other:?}"),
            });
            facts.push(format!("head of {classes} classes"));
        } else if self.path.join("config.json").exists() {
            let c = Config::open(&self.path)?;
            let sizes = format!("{} layers, {} wide, {} heads, feed-forward {}", c.n_layers, c.dim, c.n_heads, c.hidden_dim);
            facts.push(format!("DistilBERT: {sizes}, vocabulary {}, {} positions", c.vocab_size, c.max_position_embeddings));
        }
        let tensors: Vec<_> = file.names().filter_map(|name| Some((name, file.info(name)?))).collect();
        let bytes: usize = tensors.iter().map(|(_, i)| i.bytes).sum();
        let numbers: usize = tensors.iter().map(|(_, i)| i.shape.iter().product::<usize>()).sum();
        if self.json {
            let list: Vec<_> =
                tensors.iter().map(|(n, i)| json!({ "name": n, "dtype": i.dtype, "shape": i.shape, "bytes": i.bytes })).collect();
            let all = json!({ "path": file.path(), "facts": facts, "metadata": file.metadata(), "tensors": list, "numbers": numbers, "bytes": bytes });
            return say_json(&all).map(|()| Outcome::Done);
        }
        say(file.path().display())?;
        facts.iter().try_for_each(say)?;
        for (name, info) in &tensors {
            say(format!("  {:<5} {:<14} {:>12} bytes  {name}", info.dtype, format!("{:?}", info.shape), thousands(info.bytes)))?;
        }
        say(format!("{} tensors, {} numbers, {} bytes", tensors.len(), thousands(numbers), thousands(bytes)))?;
        Ok(Outcome::Done)
    }
}
