//! `lowrank train`.

use super::Outcome;
use super::base::checked;
use super::common::{Checkpoint, ComputeType, Source, count, length, open_wordpiece, say, say_json};
use super::device::{DeviceArgs, device_memory};
use super::method::MethodArgs;
use super::notes::{note, warning};
use super::output::{Found, Input, Output, found};
use super::parts::{Reader, TestArgs};
use super::progress::Progress;
use super::run::{Run, Taken};
use super::signals::interrupt_flag;
use super::study::digest;
use clap::Args;
use lowrank::data::Tokenized;
use lowrank::lora::{About, Counts, Method, adapter, thousands};
use lowrank::nn::{Config, DistilBert, Head, LoadOptions, LoadReport, Outputs};
use lowrank::tensor::DType;
use lowrank::tensor::safetensors::{remove_flat, write_directory, write_file};
use lowrank::tensor::simd::{self, Isa};
use lowrank::train::{AdamW, Evaluation, Recipe, lora_plus, memory_by_category, peak_memory};
use lowrank::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `train`.
#[derive(Args)]
#[command(args_override_self = true)]
pub struct Train {
    /// Directory of the checkpoint: config.json, model.safetensors, vocab.txt or tokenizer.json
    #[arg(long, value_name = "DIR|NAME")]
    model: Checkpoint,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    what: MethodArgs,
    /// Compute the output of the frozen layers once (head, selective); dropout in those layers is then off
    #[arg(long)]
    cache_trunk: bool,
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
    #[arg(long, value_name = "N", value_parser = count::<{ usize::MAX }>)]
    train_limit: Option<usize>,
    /// Test on this many reviews, drawn with equal labels
    #[arg(long, value_name = "N", value_parser = count::<{ usize::MAX }>)]
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
    /// Go on from the saved state of a run that was stopped or killed, with the same arguments
    #[arg(long)]
    resume: bool,
    /// Throw away the saved state of a run that was stopped or killed, and begin anew
    #[arg(long, conflicts_with = "resume")]
    restart: bool,
    /// Steps from one saved state to the next [default: 100, and 1000 for full and selective, whose state is three times the model]
    #[arg(long, value_name = "STEPS", value_parser = count::<{ usize::MAX }>)]
    checkpoint_every: Option<usize>,
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

    /// What must be the same for a run to go on: all that its bytes depend on.
    fn settings(&self, recipe: &Recipe, base: &str, max_length: usize, data: [Option<&Tokenized>; 3]) -> String {
        let mut settings = json!(recipe);
        let [train, dev, test] = data.map(|data| data.map(digest));
        for (name, value) in [
            ("method", json!(format!("{:?}", self.method()))),
            ("lora_plus_ratio", json!(self.what.lora_plus_ratio())),
            ("dtype", json!(DType::from(self.dtype).to_string())),
            ("max_length", json!(max_length)),
            ("dev_fraction", json!(self.dev_fraction)),
            ("keep_best", json!(self.keep_best)),
            ("eval_every_epoch", json!(self.eval_every_epoch)),
            ("labels", json!(data[0].map(|train| &train.label_names))),
            ("training data", json!(train)),
            ("held-out data", json!(dev)),
            ("test data", json!(test)),
            ("base", json!(base)),
        ] {
            settings[name] = value;
        }
        settings.to_string()
    }

    /// The base, with what the method trains in full as exact as the checkpoint has it.
    fn open(&self, classes: usize, head: Head) -> Result<(DistilBert, LoadReport)> {
        let method = self.method();
        let head = if self.new_head { Head::New } else { head };
        let exact = |name: &str| method.trains(name);
        let options = LoadOptions { classes: Some(classes), dtype: self.dtype.into(), seed: self.seed, head, exact: &exact };
        DistilBert::open_with(&self.model, &options)
    }

    /// Names that the classes of the checkpoint's head have, if it is kept.
    fn classes(&self, report: &LoadReport) -> Result<Option<Vec<String>>> {
        let config = Config::open(&self.model)?;
        if self.new_head || !has_head(report) {
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
        let given = [&self.tests.test, &self.dev].into_iter().flatten().map(|path| Input::test(path));
        let inputs = Input::of(&self.source).into_iter().chain(given).chain([Input::Model("the model", &self.model)]);
        self.output.check_run(&inputs.collect::<Vec<_>>(), self.resume, self.restart)?;
        self.what.check()?;
        let recipe = self.recipe()?;
        recipe.check()?;
        self.method().check(&Config::open(&self.model)?)?;
        let base = checked(&self.model, self.source.cache_folder().as_deref())?;
        let of_head = Config::open(&self.model)?.labels().len();
        let (mut model, mut report) = self.open(of_head, Head::Kept)?;
        let mut max_length = length(self.max_length, model.longest_text())?;
        if let Method::Prompt { tokens } = self.method() {
            // The prompt's rows take positions from the text.
            max_length = max_length.min(model.longest_text().saturating_sub(tokens));
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
        if !(0.0..1.0).contains(&self.dev_fraction) {
            return Err(Error::invalid(format!("--dev-fraction {} must lie in [0, 1)", self.dev_fraction)));
        }
        if self.dev.is_some() && self.dev_fraction > 0.0 {
            return Err(Error::invalid("--dev-fraction does not go with --dev: give one of them"));
        }
        let hint = |e: Error| match (&named, &e) {
            (Some(names), Error::File { problem, .. }) if problem.contains("none of the classes") => {
                Error::invalid(format!("{e}; the head's classes are {}: a new head takes its place with --new-head", names.join(", ")))
            }
            _ => e,
        };
        let (train, test) = reader.train_and_test(self.dev_fraction).map_err(hint)?;
        let dev = reader.dev(self.dev.as_deref(), self.dev_fraction, &train, &test)?;
        if self.keep_best && dev.is_none() {
            return Err(Error::invalid(
                "--keep-best needs texts to choose by: give --dev, --dev-fraction, or a validation.* beside train.*",
            ));
        }
        let shared = dev.as_ref().map_or(0, |dev| dev.shared_with(&test));
        if self.keep_best && dev.as_ref().is_some_and(|dev| 2 * shared > dev.len()) {
            return Err(Error::invalid(format!(
                "--keep-best would choose on the test set: {shared} of the held-out texts are test texts; give others with --dev"
            )));
        }
        let classes = train.label_names.len();
        if named.is_none() && classes == of_head && has_head(&report) && !self.new_head {
            let order = train.label_names.join(", ");
            warning!(
                "the classes of the checkpoint's head have no names: they are taken for {order}, in this order; --labels gives another, --new-head a new head"
            );
        }
        if classes != of_head {
            let had_head = has_head(&report);
            (model, report) = self.open(classes, Head::Fitting)?;
            if had_head {
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

        let device = self.device.place(&mut model)?;
        match &device {
            Some(name) => note!("computing in {} on {name}", DType::from(self.dtype)),
            None => note!("computing in {}", path(self.dtype.into())),
        }

        let mut optimizer = AdamW::new(self.weight_decay);
        if self.what.lora_plus_ratio() != 1.0 {
            optimizer.group = lora_plus(&model.parameters(), self.what.lora_plus_ratio())?;
        }
        let mut run = Run {
            out: &self.output.out,
            every: self.checkpoint_every.unwrap_or(if method.makes_checkpoint() { 1000 } else { 100 }),
            settings: self.settings(&recipe, &base, max_length, [Some(&train), dev.as_ref(), Some(&test)]),
            machine: format!("lowrank {} on {}", env!("CARGO_PKG_VERSION"), device.unwrap_or_else(|| path(self.dtype.into()))),
            stop: interrupt_flag()?,
            batch: self.batch,
            dev: dev.as_ref(),
            test: self.eval_every_epoch.then_some(&test),
            keep_best: self.keep_best,
            progress: Progress::new(recipe.steps(train.len())?),
            taken: Taken::default(),
        };
        if self.resume {
            run.resume(&mut model, &mut optimizer)?;
            note!("going on after step {}", optimizer.steps());
        } else if self.restart && found(run.out)? == Found::Unfinished {
            remove_flat(run.out)?;
        }
        let ended = run.train(&mut model, &train, &recipe, &mut optimizer);
        run.progress.finish();
        let result = match ended {
            Ok(true) => run.evaluate_best(&mut model, &test),
            other => other.map(|_| None),
        };
        let result = match result {
            Ok(Some(result)) => result,
            Ok(None) => return stopped(&run, &model, &optimizer, None),
            Err(e) => return stopped(&run, &model, &optimizer, Some(e)),
        };
        let seconds = run.taken.seconds;
        let about = About {
            trained_on: Some(reader.trained_on()?),
            base_hash: Some(base),
            ..About::new(&model, &train.label_names, max_length, self.seed)
        };
        self.save(&model, &method, &about, &run.taken.metrics)?;
        let (peak, on_device) = (peak_memory(), device_memory(&model));
        let by_category =
            peak.map(|peak| memory_by_category(&model, peak, run.taken.kept, train.bytes() + test.bytes())).unwrap_or_default();
        let summary = json!({
            "trainable": counts.trainable, "base": counts.base, "train_reviews": train.len(), "tokens_per_epoch": train.tokens(),
            "seconds": seconds, "tokens_per_second": (train.tokens() * recipe.epochs) as f64 / seconds, "test": result,
            "out": self.output.out, "seed": self.seed, "peak_memory_bytes": peak, "memory_bytes": by_category.iter().copied().collect::<BTreeMap<_, _>>(),
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
        note!("{} written to {}", if method.makes_checkpoint() { "checkpoint" } else { "adapter" }, self.output.out.display());
        Ok(Outcome::Done)
    }

    fn save(&self, model: &DistilBert, method: &Method, about: &About, metrics: &str) -> Result<()> {
        write_directory(&self.output.out, |directory| {
            match method.makes_checkpoint() {
                true => model.save(&self.model, &about.labels, directory)?,
                false => adapter::save(model, method, &self.model.name, directory)?,
            }
            about.write(directory)?;
            write_file(&directory.join("metrics.jsonl"), metrics.as_bytes())
        })
    }
}

/// Saves the state of a run that was stopped, or ended by an error, and says how to go on.
fn stopped(run: &Run, model: &DistilBert, optimizer: &AdamW, error: Option<Error>) -> Result<Outcome> {
    let step = optimizer.steps();
    let saved = if step > 0 { Some(run.save(model, optimizer)) } else { None };
    let file = run.file();
    match (error, saved) {
        (Some(e), saved) => {
            match saved {
                Some(Ok(())) => warning!(
                    "the state after step {step} is saved to {}: run again with --resume to go on with the same arguments, or with --restart to begin anew with others",
                    file.display()
                ),
                Some(Err(problem)) => warning!("the state after step {step} could not be saved: {problem}"),
                None => {}
            }
            Err(e)
        }
        (None, Some(saved)) => {
            saved?;
            note!("stopped after step {step}; saved to {}: run again with --resume to go on", file.display());
            Ok(Outcome::Interrupted)
        }
        (None, None) => {
            note!("stopped before the first step: there is nothing to save");
            Ok(Outcome::Interrupted)
        }
    }
}

/// Whether the checkpoint has a classifier.
fn has_head(report: &LoadReport) -> bool {
    report.initialised.iter().all(|name| name != "classifier.weight")
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

/// `accuracy 86.20 % (84.62–87.64) on 2,000 reviews, loss 0.3312`.
pub fn describe(e: &Evaluation) -> String {
    let percent = |x: f64| 100.0 * x;
    let (low, high) = e.interval;
    let (accuracy, low, high) = (percent(e.accuracy), percent(low), percent(high));
    format!("accuracy {accuracy:.2} % ({low:.2}–{high:.2}) on {} reviews, loss {:.4}", thousands(e.examples), e.loss)
}
