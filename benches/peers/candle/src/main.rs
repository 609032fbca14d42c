//! candle's DistilBERT, answering `compare.py --peer` as `benches/step.rs` does, inference alone and in f32.

use candle_core::{DType, Device, IndexOp, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear};
use candle_transformers::models::distilbert::{Config, DistilBertModel};
use serde_json::{Value, json};
use std::io::BufRead;
use std::time::Instant;

struct Classifier {
    trunk: DistilBertModel,
    head: [Linear; 2],
}

impl Classifier {
    fn open(dir: &str) -> Result<Self> {
        let config = std::fs::read_to_string(format!("{dir}/config.json"))?;
        let mut config: Value = serde_json::from_str(&config).map_err(candle_core::Error::wrap)?;
        // Needed to parse, not to compute.
        config["pad_token_id"] = json!(0);
        let config: Config = serde_json::from_value(config).map_err(candle_core::Error::wrap)?;
        let weights = candle_core::safetensors::load(format!("{dir}/model.safetensors"), &Device::Cpu)?;
        let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
        let trunk = DistilBertModel::load(weights.pp("distilbert"), &config)?;
        let head = [linear(config.dim, config.dim, weights.pp("pre_classifier"))?, linear(config.dim, 2, weights.pp("classifier"))?];
        Ok(Classifier { trunk, head })
    }

    /// Logits `[B, 2]` of sequences of one length.
    fn infer(&self, ids: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        let (b, t) = (ids.len(), ids[0].len());
        let nothing_masked = Tensor::zeros((1, 1, 1, t), DType::U8, &Device::Cpu)?;
        let hidden = self.trunk.forward(&Tensor::from_vec(ids.concat(), (b, t), &Device::Cpu)?, &nothing_masked)?;
        let pooled = self.head[0].forward(&hidden.i((.., 0))?.contiguous()?)?.relu()?;
        self.head[1].forward(&pooled)?.to_vec2()
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let model = arguments.iter().position(|a| a == "--model").and_then(|i| arguments.get(i + 1)).ok_or("give --model DIR")?;
    if arguments.iter().any(|a| a == "bf16") {
        return Err("f32 alone is measured here".into());
    }
    let model = Classifier::open(model)?;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let reply = match request["do"].as_str() {
            Some("infer") => {
                let ids: Vec<Vec<u32>> = serde_json::from_value(request["ids"].clone())?;
                let (mut seconds, mut logits) = (Vec::new(), Vec::new());
                for _ in 0..request["repeat"].as_u64().unwrap_or(1) {
                    let start = Instant::now();
                    logits = model.infer(&ids)?;
                    seconds.push(start.elapsed().as_secs_f64());
                }
                json!({ "seconds": seconds, "logits": logits })
            }
            _ => return Ok(()),
        };
        println!("{reply}");
    }
    Ok(())
}
