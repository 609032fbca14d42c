//! Training steps and inference on given token ids: `cargo bench --bench step -- --model DIR [--dtype bf16] [--shape 16x128]
//! [--recompute] [--threads N]`.
//!
//! `serve` in place of a shape answers one JSON request per line of standard input (see `benches/peers`), so that another program can be
//! measured in turn with this one: `{"do":"train","ids":[[…]],"labels":[…],"repeat":R}`, `{"do":"infer",…}`, `{"do":"quit"}`.

use lowrank::autograd::Tape;
use lowrank::lora::{LoraConfig, Method};
use lowrank::nn::{DistilBert, Head, LoadOptions, Pass};
use lowrank::tensor::philox::Stream;
use lowrank::tensor::{DType, Sequences, Tensor};
use lowrank::train::AdamW;
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Bench {
    model: DistilBert,
    optimizer: AdamW,
    /// Ordinal of the next sequence: dropout masks differ from step to step.
    next: u32,
    recompute: bool,
}

impl Bench {
    fn new(model: &str, dtype: DType, method: &str, recompute: bool) -> Outcome<Bench> {
        let method = match method {
            "lora" => Method::Lora(LoraConfig::new(8, &["q_lin", "v_lin"])),
            "head" => Method::Head { pre_classifier: true },
            "full" => Method::Full,
            other => return Err(format!("--method {other}: lora, head or full").into()),
        };
        let exact = |name: &str| method.trains(name);
        let options = LoadOptions { classes: Some(2), dtype, head: Head::Fitting, exact: &exact, ..LoadOptions::default() };
        let mut model = DistilBert::open_with(model.as_ref(), &options)?.0;
        method.apply(&mut model, 0)?;
        Ok(Bench { model, optimizer: AdamW::new(0.01), next: 0, recompute })
    }

    fn pass(&mut self, ids: &[Vec<u32>], dropout: Option<u64>) -> Outcome<(Vec<u32>, Pass)> {
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let examples = (0..ids.len() as u32).map(|i| self.next + i).collect();
        self.next += ids.len() as u32;
        let sequences = Arc::new(Sequences::new(&lengths, examples)?);
        Ok((ids.concat(), Pass { dropout_seed: dropout, recompute: self.recompute, ..Pass::evaluation(sequences) }))
    }

    fn train(&mut self, ids: &[Vec<u32>], labels: &[u32]) -> Outcome<f64> {
        let (ids, pass) = self.pass(ids, Some(0))?;
        let mut tape = Tape::new();
        let logits = self.model.forward(&mut tape, &ids, &pass)?;
        let loss = tape.cross_entropy(&logits, labels, labels.len())?;
        let grads = tape.backward(&loss)?;
        self.optimizer.update(&mut self.model.parameters_mut(), grads, 3e-4, 1.0)?;
        Ok(loss.value().item()?)
    }

    fn infer(&mut self, ids: &[Vec<u32>]) -> Outcome<Tensor> {
        let (ids, pass) = self.pass(ids, None)?;
        Ok(self.model.forward(&mut Tape::inference(), &ids, &pass)?.value().clone())
    }

    fn answer(&mut self, request: &Value) -> Outcome<Value> {
        let ids: Vec<Vec<u32>> = serde_json::from_value(request.get("ids").cloned().unwrap_or(json!([])))?;
        let labels: Vec<u32> = serde_json::from_value(request.get("labels").cloned().unwrap_or(json!([])))?;
        let (mut seconds, mut losses, mut logits) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..request["repeat"].as_u64().unwrap_or(1) {
            let start = Instant::now();
            match request["do"].as_str() {
                Some("train") => losses.push(self.train(&ids, &labels)?),
                Some("infer") => logits = self.infer(&ids)?.to_f64()?,
                other => return Err(format!("unknown request {other:?}").into()),
            }
            seconds.push(start.elapsed().as_secs_f64());
        }
        let classes = logits.len() / ids.len().max(1);
        let rows: Vec<&[f64]> = logits.chunks_exact(classes.max(1)).collect();
        Ok(json!({ "seconds": seconds, "loss": losses, "logits": rows }))
    }
}

/// The most memory that this process ever held, as Linux counts it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? * 1024)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let option = |name: &str, default: &str| {
        let place = arguments.iter().position(|a| a == name);
        place.and_then(|i| arguments.get(i + 1).cloned()).unwrap_or(default.to_string())
    };
    let dtype = match option("--dtype", "f32").as_str() {
        "f32" => DType::F32,
        "bf16" => DType::BF16,
        other => return Err(format!("--dtype {other}: f32 or bf16").into()),
    };
    let threads = option("--threads", "0").parse()?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let model = option("--model", "");
    if model.is_empty() {
        println!("skipped: give --model DIR, a checkpoint (`lowrank init --like distilbert-base` makes one)");
        return Ok(());
    }
    let mut bench = Bench::new(&model, dtype, &option("--method", "lora"), arguments.iter().any(|a| a == "--recompute"))?;
    if arguments.first().is_some_and(|a| a == "serve") {
        for line in std::io::stdin().lock().lines() {
            let request: Value = serde_json::from_str(&line?)?;
            if request["do"] == "quit" {
                break;
            }
            println!("{}", bench.answer(&request)?);
            std::io::stdout().flush()?;
        }
        return Ok(());
    }
    let shape = option("--shape", "16x128");
    let (batch, length) = shape.split_once('x').ok_or("--shape is BxT")?;
    let (batch, length): (usize, usize) = (batch.parse()?, length.parse()?);
    let mut random = Stream::new(0, "ids");
    let vocabulary = bench.model.config.vocab_size;
    let mut draw = |n: usize| -> Vec<u32> { (0..n).map(|_| random.below(vocabulary) as u32).collect() };
    let ids: Vec<Vec<u32>> = (0..batch).map(|_| draw(length)).collect();
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % 2).collect();
    let tokens = (batch * length) as f64;
    let repeat: usize = option("--repeat", "5").parse()?;
    let mut median = |f: &mut dyn FnMut(&mut Bench) -> Outcome<()>| -> Outcome<f64> {
        f(&mut bench)?;
        let mut seconds = Vec::new();
        for _ in 0..repeat {
            let start = Instant::now();
            f(&mut bench)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[repeat / 2])
    };
    let step = median(&mut |b| b.train(&ids, &labels).map(|_| ()))?;
    let infer = median(&mut |b| b.infer(&ids).map(|_| ()))?;
    println!(
        "{shape} {dtype}: training {:.0} tokens/s ({step:.3} s), inference {:.0} tokens/s ({infer:.3} s), peak memory {:.0} MB",
        tokens / step,
        tokens / infer,
        peak_memory().unwrap_or(0) as f64 / 1e6
    );
    Ok(())
}
