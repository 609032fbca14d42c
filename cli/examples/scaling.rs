//! How time and memory of a training step grow with tokens, texts, length, threads and rank, beside the counted operations:
//! `cargo run --release -p lowrank-cli --example scaling -- OUT --model BASE [--dtype bf16] [--steps 5]`.
//!
//! Prints a table, and writes `scaling.json` and a figure for each curve to the folder OUT. BASE is a checkpoint (`lowrank init --like
//! distilbert-base` makes one). The training is LoRA on Q and V with dropout. Each point is a process of its own, because a process has one
//! peak of memory.

use lowrank::autograd::Tape;
use lowrank::lora::{LoraConfig, adapt};
use lowrank::nn::{DistilBert, Head, LoadOptions, Pass};
use lowrank::tensor::philox::Stream;
use lowrank::tensor::{DType, Sequences};
use lowrank::train::{AdamW, peak_memory};
use lowrank_cli::study::figure::{Figure, Plot, Point, Series};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

const USAGE: &str = "where shall the figures go, and which checkpoint is measured? OUT --model BASE [--dtype f32|bf16] [--steps N]";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What one process measures.
#[derive(Clone, Copy)]
struct Setting {
    texts: usize,
    length: usize,
    threads: usize,
    rank: usize,
}

/// A curve: a file name, the quantity on the x axis, and its points with their settings.
type Curve = (&'static str, &'static str, Vec<(usize, Setting)>);

fn curves(threads: usize) -> Vec<Curve> {
    let usual = Setting { texts: 16, length: 128, threads, rank: 8 };
    let doubled = |from: usize, to: usize| std::iter::successors(Some(from), |x| Some(2 * x)).take_while(move |x| *x <= to);
    let curve = |setting: &dyn Fn(usize) -> Setting, values: Vec<usize>| values.into_iter().map(|x| (x, setting(x))).collect();
    vec![
        ("tokens", "tokens, in texts of 128", curve(&|x| Setting { texts: x / 128, ..usual }, doubled(128, 4096).collect())),
        ("texts", "texts that share 2,048 tokens", curve(&|x| Setting { texts: x, length: 2048 / x, ..usual }, doubled(4, 128).collect())),
        ("length", "tokens of each of 4 texts", curve(&|x| Setting { texts: 4, length: x, ..usual }, doubled(16, 512).collect())),
        ("threads", "threads", curve(&|x| Setting { threads: x, ..usual }, doubled(1, threads).collect())),
        ("rank", "rank", curve(&|x| Setting { rank: x, ..usual }, doubled(1, 256).collect())),
    ]
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned();
    let model = option("--model").ok_or(USAGE)?;
    let dtype = option("--dtype").unwrap_or_else(|| "f32".into());
    let steps = option("--steps").unwrap_or_else(|| "5".into()).parse::<usize>()?.max(1);
    if arguments[0].starts_with("--") {
        return Err(USAGE.into());
    }
    if arguments[0] == "point" {
        let numbers = arguments[1..].iter().take(3).map(|word| word.parse()).collect::<Result<Vec<usize>, _>>()?;
        let &[texts, length, rank] = &numbers[..] else { return Err(USAGE.into()) };
        println!("{}", measured([texts, length, rank], &model, &dtype, steps)?);
        return Ok(());
    }
    let out = Path::new(&arguments[0]);
    std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let threads = std::thread::available_parallelism()?.get();
    println!("| curve | | seconds a step | counted GFLOP | GFLOP/s | peak memory, MB |\n|---|---:|---:|---:|---:|---:|");
    let mut all = serde_json::Map::new();
    for (name, x, settings) in curves(threads) {
        let mut points = Vec::new();
        for (at, setting) in settings {
            let mut command = Command::new(std::env::current_exe()?);
            let numbers = [setting.texts, setting.length, setting.rank].map(|number| number.to_string());
            command.env("RAYON_NUM_THREADS", setting.threads.to_string());
            command.arg("point").args(numbers).args(["--model", &model, "--dtype", &dtype, "--steps", &steps.to_string()]);
            let output = command.stderr(std::process::Stdio::inherit()).output()?;
            if !output.status.success() {
                return Err(format!("{x} {at}: the process ended with {}", output.status).into());
            }
            let point: Value = serde_json::from_slice(&output.stdout)?;
            let [seconds, operations, bytes] = ["seconds", "operations", "peak_bytes"].map(|key| point[key].as_f64().unwrap_or(f64::NAN));
            println!("| {x} | {at} | {seconds:.4} | {:.1} | {:.0} | {:.0} |", operations / 1e9, operations / 1e9 / seconds, bytes / 1e6);
            points.push((at as f64, [seconds, operations, bytes]));
        }
        let file = out.join(format!("scaling-{name}.svg"));
        std::fs::write(&file, figure(x, &points).file()).map_err(|e| format!("{}: {e}", file.display()))?;
        let rows = points
            .iter()
            .map(|(x, [seconds, operations, bytes])| json!({ "x": x, "seconds": seconds, "operations": operations, "peak_bytes": bytes }));
        all.insert(name.into(), json!({ "x": x, "points": rows.collect::<Vec<_>>() }));
    }
    let file = out.join("scaling.json");
    std::fs::write(&file, serde_json::to_string_pretty(&all)?).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(())
}

/// Each quantity as a multiple of its first point.
fn figure(x: &str, points: &[(f64, [f64; 3])]) -> Figure {
    let names = ["seconds a step", "counted operations", "peak memory"];
    let line = |i: usize| points.iter().map(move |(x, y)| Point { x: *x, y: y[i] / points[0].1[i], interval: None }).collect();
    let lines = names.iter().enumerate().map(|(i, name)| Series { name: (*name).into(), points: line(i) }).collect();
    let caption = "Each line is a multiple of its first point.";
    Figure::linear("A training step", caption, [x, "times the first point"], Plot::Lines(lines)).log_x().log_y()
}

/// The median of `steps` training steps, the counted operations of one, and the peak of this process's memory.
fn measured([texts, length, rank]: [usize; 3], model: &str, dtype: &str, steps: usize) -> Outcome<Value> {
    let dtype = match dtype {
        "f32" => DType::F32,
        "bf16" => DType::BF16,
        other => return Err(format!("--dtype {other}: f32 or bf16").into()),
    };
    let options = LoadOptions { classes: Some(2), dtype, head: Head::Fitting, ..LoadOptions::default() };
    let mut model = DistilBert::open_with(model.as_ref(), &options)?.0;
    adapt(&mut model, &LoraConfig::new(rank, &["q_lin", "v_lin"]), 0)?;
    let mut optimizer = AdamW::new(0.01);
    let mut random = Stream::new(0, "ids");
    let ids: Vec<u32> = (0..texts * length).map(|_| random.below(model.config.vocab_size) as u32).collect();
    let labels: Vec<u32> = (0..texts as u32).map(|i| i % 2).collect();
    let sequences = Arc::new(Sequences::new(&vec![length; texts], (0..texts as u32).collect())?);
    let (mut seconds, mut operations) = (Vec::new(), 0);
    // The first step fills the pool of buffers, and counts.
    for step in 0..=steps {
        let start = Instant::now();
        let mut tape = if step == 0 { Tape::with_ledger() } else { Tape::new() };
        let pass = Pass { dropout_seed: Some(step as u64), ..Pass::evaluation(sequences.clone()) };
        let logits = model.forward(&mut tape, &ids, &pass)?;
        let loss = tape.cross_entropy(&logits, &labels, labels.len())?;
        operations += tape.ledger().iter().map(|record| record.flops[0] + record.flops[1]).sum::<u64>();
        let grads = tape.backward(&loss)?;
        optimizer.update(&mut model.parameters_mut(), grads, 3e-4, 1.0)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    Ok(json!({ "seconds": seconds[steps / 2], "operations": operations, "peak_bytes": peak_memory() }))
}
