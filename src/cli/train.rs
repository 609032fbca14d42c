//! `lowrank train`.

use super::Outcome;
use super::common::{About, Checkpoint, ComputeType, Source, length, open_wordpiece, say, say_json};
use super::device::{DeviceArgs, device_memory};
use super::method::MethodArgs;
use super::notes::{note, warning};
use super::parts::{Reader, TestArgs};
use super::progress::Progress;
use crate::data::Tokenized;
use crate::lora::{Counts, Method, adapter, thousands};
use crate::nn::{Config, DistilBert, Head, LoadReport, Outputs};
use crate::tensor::safetensors::{check_replaceable, write_directory, write_file};
use crate::tensor::simd::{self, Isa};
use crate::tensor::{DType, Tensor};
use crate::train::{
    AdamW, Evaluation, Observer, Recipe, StepReport, evaluate, fit, load_checkpoint, lora_plus, memory_by_category, peak_memory,
    save_checkpoint,
};
use crate::{Error, Result};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Arguments of `train`.
#[derive(Args)]
#[command(args_override_self = true)]
pub struct Train {
    /// Directory of the checkpoint: config.json, model.safetensors, vocab.txt or tokenizer.json
    #[arg(long, value_name = "DIR|NAME")]
    model: Checkpoint,
    #[command(flatten)]
    source: Source,
    /// Directory for what was trained: an adapter, or with full and selective a checkpoint; appears whole, or not at all
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    what: MethodArgs,
    /// Compute the output of the frozen layers once (head, selective); dropout in those layers is then off
    #[arg(long)]
    cache_trunk: bool,
    /// Factor of the learning rate for B and for vectors, LoRA+: 16 is its authors' advice
    #[arg(long, default_value_t = 1.0, value_name = "RATIO")]
    lora_plus_ratio: f64,
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Reviews of a micro-batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Micro-batches of an optimizer step
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Tokens kept of a review [default: 512, or as many as the model has positions for]
    #[arg(long)]
    max_length: Option<usize>,
    /// Highest learning rate [default: 3e-4 for the lora kinds, 2e-5 for full and selective, 1e-2 for prefix, prompt and intrinsic, else 1e-3]
    #[arg(long)]
    lr: Option<f64>,
    #[arg(long, default_value_t = 0.01)]
    weight_decay: f64,
    /// Share of the steps in which the learning rate rises
    #[arg(long, default_value_t = 0.1)]
    warmup: f64,
    /// Largest global gradient norm
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// Train on this many reviews, drawn with equal labels
    #[arg(long, value_name = "N")]
    train_limit: Option<usize>,
    /// Test on this many reviews, drawn with equal labels
    #[arg(long, value_name = "N")]
    test_limit: Option<usize>,
    #[command(flatten)]
    tests: TestArgs,
    /// Labelled texts to measure on after each epoch [default: validation.* beside train.*, if it is there]
    #[arg(long, value_name = "PATH")]
    dev: Option<PathBuf>,
    /// Share of the training reviews held out; measured after each epoch
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    dev_fraction: f64,
    /// Put a new head in place of the checkpoint's
    #[arg(long)]
    new_head: bool,
    /// Keep the epoch that is best on the held-out reviews (never chosen on the test set)
    #[arg(long)]
    keep_best: bool,
    /// Measure on the test set after each epoch too, not only at the end
    #[arg(long)]
    eval_every_epoch: bool,
    /// Batches of like length instead of plain shuffling
    #[arg(long)]
    group_by_length: bool,
    /// Compute each layer again in backward: less memory, more time, the same result
    #[arg(long)]
    recompute: bool,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Type to compute in
    #[arg(long, value_enum, default_value_t = ComputeType::F32)]
    dtype: ComputeType,
    #[command(flatten)]
    device: DeviceArgs,
    /// Go on from a run that was stopped, with the same arguments
    #[arg(long)]
    resume: bool,
    /// Print one JSON object on standard output, and nothing else there
    #[arg(long)]
    json: bool,
}

impl Train {
    fn recipe(&self) -> Result<Recipe> {
        Ok(Recipe {
            epochs: self.epochs,
            batch: self.batch,
            accumulate: self.accumulate,
            lr: self.lr.unwrap_or(self.what.learning_rate()),
            weight_decay: self.weight_decay,
            warmup: self.warmup,
            clip: self.clip,
            seed: self.seed,
            group_by_length: self.group_by_length,
            recompute: self.recompute,
            cache_trunk: self.cache_trunk,
            nested_rank: self.what.nested_rank()?,
        })
    }

    fn method(&self) -> Method {
        self.what.method(self.seed)
    }

    /// What must be the same for a run to go on.
    fn settings(&self, recipe: &Recipe, tokens: &Tokenized) -> String {
        format!(
            "{:?} {:?} {} {} {} tokens of {} reviews",
            recipe,
            self.method(),
            self.lora_plus_ratio,
            self.model.display(),
            tokens.tokens(),
            tokens.len()
        )
    }

    /// The base, with what the method trains in full as exact as the checkpoint has it.
    fn open(&self, classes: usize, head: Head) -> Result<(DistilBert, LoadReport)> {
        let method = self.method();
        let head = if self.new_head { Head::New } else { head };
        DistilBert::open_to_train(&self.model, classes, self.dtype.into(), self.seed, head, &|name| method.trains(name))
    }

    /// Names that the classes of the checkpoint's head have, if it is kept.
    fn classes(&self, report: &LoadReport) -> Result<Option<Vec<String>>> {
        let config = Config::open(&self.model)?;
        if self.new_head || report.initialised.iter().any(|name| name == "classifier.weight") {
            return Ok(None);
        }
        let (labels, path) = (config.labels(), self.model.join("config.json"));
        match config.outputs(labels.len()) {
            Outputs::Classes => Ok(config.names_classes().then_some(labels)),
            _ => {
                let kind = config.problem_type.unwrap_or_else(|| "one class".to_string());
                let problem = format!(
                    "the head is for {kind}, and only one of several classes can be trained; a new head takes its place with --new-head"
                );
                Err(Error::file(path, "\"problem_type\"", problem))
            }
        }
    }

    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        check_replaceable(&self.out)?;
        let of_head = Config::open(&self.model)?.labels().len();
        let (mut model, mut report) = self.open(of_head, Head::Kept)?;
        let mut max_length = length(self.max_length, model.longest_text())?;
        if let Method::Prompt { tokens } = self.method() {
            // The prompt's rows take positions from the text.
            let left = model.longest_text().saturating_sub(tokens);
            max_length = max_length.min(left);
            if left < 3 {
                return Err(Error::invalid(format!("--virtual-tokens {tokens} leaves {left} positions for a text, which needs 3")));
            }
        }
        let named = self.classes(&report)?;
        let reader = Reader {
            source: &self.source,
            test: &self.tests,
            labels: self.source.labels(named.as_deref())?,
            wordpiece: &open_wordpiece(&self.model, &model.config)?,
            max_length,
            train_limit: self.train_limit,
            test_limit: self.test_limit,
            seed: self.seed,
        };
        if !(0.0..1.0).contains(&self.dev_fraction) || (self.dev.is_some() && self.dev_fraction > 0.0) {
            return Err(Error::invalid("--dev-fraction must lie in [0, 1), and does not go with --dev"));
        }
        let hint = |e: Error| match &named {
            Some(names) => {
                Error::invalid(format!("{e}; the head's classes are {}: a new head takes its place with --new-head", names.join(", ")))
            }
            None => e,
        };
        let (train, test) = reader.train_and_test(self.dev_fraction).map_err(hint)?;
        let dev = reader.dev(self.dev.as_deref(), self.dev_fraction, &train)?;
        if self.keep_best && dev.is_none() {
            return Err(Error::invalid(
                "--keep-best needs texts to choose by: give --dev, --dev-fraction, or a validation.* beside train.*",
            ));
        }
        let classes = train.label_names.len();
        if classes != of_head {
            (model, report) = self.open(classes, Head::Fitting)?;
            if report.initialised.iter().all(|name| name != "pre_classifier.weight") {
                warning!("the checkpoint's head has {of_head} classes and the data have {classes}: a new head takes its place");
            }
        }
        let method = self.method();
        let adapted = method.apply(&mut model, self.seed)?;
        let counts = Counts::of(&model);
        note!("{}: {} weights, newly initialised: {}", self.model.display(), model.weights().len(), list(&report.initialised));
        if !report.unused.is_empty() {
            note!("unused tensors of the checkpoint: {}", list(&report.unused));
        }
        if !adapted.is_empty() {
            note!("low-rank terms on {} linears: {}", adapted.len(), list(&adapted));
        }
        note!("{}", counts.peft_line());
        note!("{:.2} % of the model's own {} parameters", counts.percent(), thousands(counts.base));
        note!("{} reviews to train on ({} tokens), {} to test", train.len(), thousands(train.tokens()), test.len());

        match self.device.place(&mut model)? {
            Some(name) => note!("computing in {} on {name}", DType::from(self.dtype)),
            None => note!("computing in {}", path(self.dtype.into())),
        }

        let recipe = self.recipe()?;
        let settings = self.settings(&recipe, &train);
        let checkpoint = self.out.join("checkpoint.safetensors");
        let mut optimizer = AdamW::new(self.weight_decay);
        if self.lora_plus_ratio != 1.0 {
            optimizer.group = lora_plus(&model.parameters(), self.lora_plus_ratio)?;
        }
        let mut metrics = String::new();
        if self.resume {
            let path = self.out.join("metrics.jsonl");
            metrics = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
            load_checkpoint(&checkpoint, &mut model, &mut optimizer, &settings)?;
            note!("going on after step {}", optimizer.steps());
        }
        let mut watch = Watch {
            progress: Progress::new(recipe.steps_per_epoch(train.len()) * recipe.epochs),
            metrics,
            stop: interrupt_flag()?,
            dev: dev.as_ref(),
            test: self.eval_every_epoch.then_some(&test),
            batch: self.batch,
            best: None,
            keep_best: self.keep_best,
            kept: 0,
        };
        let started = Instant::now();
        let ended = fit(&mut model, &train, &recipe, &mut optimizer, &mut watch);
        watch.progress.finish();
        let (ended, error) = match ended {
            Ok(ended) => (ended, None),
            Err(e) => (false, Some(e)),
        };
        if !ended && optimizer.steps() > 0 {
            if let Err(problem) = self.save_stopped(&model, &optimizer, &settings, &watch.metrics) {
                return Err(error.unwrap_or(problem));
            }
            note!("stopped after step {}; saved to {}: run again with --resume to go on", optimizer.steps(), checkpoint.display());
        }
        if let Some(e) = error {
            return Err(e);
        }
        if !ended {
            return Ok(Outcome::Interrupted);
        }
        let seconds = started.elapsed().as_secs_f64();
        if let Some((_, values)) = watch.best.take() {
            model.parameters_mut().into_iter().zip(values).for_each(|(p, value)| p.set(value));
        }
        let result = evaluate_on(&model, &test, self.batch)?;
        let about = About { held_out: reader.record()?, ..About::new(&model, &train.label_names, max_length, self.seed) };
        self.save(&model, &method, &about, &watch.metrics)?;
        let (peak, on_device) = (peak_memory(), device_memory(&model));
        let by_category = peak.map(|peak| memory_by_category(&model, peak, watch.kept, train.bytes() + test.bytes())).unwrap_or_default();
        let summary = json!({
            "trainable": counts.trainable, "base": counts.base, "train_reviews": train.len(), "tokens_per_epoch": train.tokens(),
            "seconds": seconds, "tokens_per_second": (train.tokens() * recipe.epochs) as f64 / seconds, "test": result,
            "out": self.out, "seed": self.seed, "peak_memory_bytes": peak, "memory_bytes": by_category.iter().copied().collect::<BTreeMap<_, _>>(),
            "device_memory_bytes": on_device,
        });
        if let Some(bytes) = peak {
            let mega = |bytes: usize| format!("{:.0} MB", bytes as f64 / 1e6);
            let parts: Vec<_> = by_category.iter().map(|&(name, bytes)| format!("{} {name}", mega(bytes))).collect();
            note!("peak memory {}: {}", mega(bytes), parts.join(", "));
        }
        if let Some(bytes) = on_device {
            note!("memory on the GPU: {:.0} MB", bytes as f64 / 1e6);
        }
        if self.json { say_json(&summary) } else { say(format!("trained in {seconds:.0} s; {}", describe(&result))) }?;
        note!("{} written to {}", if method.makes_checkpoint() { "checkpoint" } else { "adapter" }, self.out.display());
        Ok(Outcome::Done)
    }

    fn save(&self, model: &DistilBert, method: &Method, about: &About, metrics: &str) -> Result<()> {
        write_directory(&self.out, |directory| {
            match method.makes_checkpoint() {
                true => model.save(&self.model, &about.labels, directory)?,
                false => adapter::save(model, method, &self.model.name, directory)?,
            }
            about.write(directory)?;
            write_file(&directory.join("metrics.jsonl"), metrics.as_bytes())
        })
    }

    fn save_stopped(&self, model: &DistilBert, optimizer: &AdamW, settings: &str, metrics: &str) -> Result<()> {
        write_directory(&self.out, |directory: &Path| {
            write_file(&directory.join("metrics.jsonl"), metrics.as_bytes())?;
            save_checkpoint(&directory.join("checkpoint.safetensors"), model, optimizer, settings)
        })
    }
}

/// The type and the instruction set that a run computes with.
fn path(dtype: DType) -> String {
    match (dtype, simd::isa()) {
        (DType::BF16, isa @ Isa::Avx512Bf16) => format!("bf16, multiplied as such ({isa})"),
        (DType::BF16, isa) => format!("bf16, widened to f32 in the kernels ({isa})"),
        (other, isa) => format!("{} ({isa})", other.to_string().to_lowercase()),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

/// Set by Ctrl-C.
pub fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            // Asked twice: leave at once.
            std::process::exit(130);
        }
    })
    .map_err(|e| Error::invalid(format!("ctrl-c: {e}")))?;
    Ok(flag)
}

/// Evaluates on tokenised reviews.
pub fn evaluate_on(model: &DistilBert, data: &Tokenized, batch: usize) -> Result<Evaluation> {
    let sequences: Vec<&[u32]> = (0..data.len()).map(|i| data.sequence(i)).collect();
    evaluate(model, &sequences, &data.labels, batch)
}

/// `accuracy 86.20 % (84.62–87.64) on 2,000 reviews, loss 0.3312`.
pub fn describe(e: &Evaluation) -> String {
    let percent = |x: f64| 100.0 * x;
    let (low, high) = e.interval;
    let (accuracy, low, high) = (percent(e.accuracy), percent(low), percent(high));
    format!("accuracy {accuracy:.2} % ({low:.2}–{high:.2}) on {} reviews, loss {:.4}", thousands(e.examples), e.loss)
}

/// Keeps metrics, the best epoch and the wish to stop.
struct Watch<'a> {
    progress: Progress,
    metrics: String,
    stop: Arc<AtomicBool>,
    dev: Option<&'a Tokenized>,
    test: Option<&'a Tokenized>,
    batch: usize,
    best: Option<(f64, Vec<Tensor>)>,
    keep_best: bool,
    /// Most bytes that a micro-batch kept for backward.
    kept: usize,
}

impl Watch<'_> {
    fn log(&mut self, value: &serde_json::Value) {
        self.metrics.push_str(&format!("{value}\n"));
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, report: &StepReport) -> bool {
        self.progress.step(report);
        self.kept = self.kept.max(report.kept_bytes);
        self.log(&json!(report));
        !self.stop.load(Ordering::Relaxed)
    }

    fn epoch(&mut self, epoch: usize, model: &DistilBert) -> Result<()> {
        for (name, data) in [("held-out", self.dev), ("test", self.test)] {
            let Some(data) = data else { continue };
            let result = evaluate_on(model, data, self.batch)?;
            self.progress.line(&format!("epoch {epoch}, {name}: {}", describe(&result)));
            self.log(&json!({ "epoch": epoch, name: result }));
            if name == "held-out" && self.keep_best && self.best.as_ref().is_none_or(|(best, _)| result.accuracy > *best) {
                self.best = Some((result.accuracy, model.parameters().iter().map(|p| p.value().clone()).collect()));
            }
        }
        Ok(())
    }
}
