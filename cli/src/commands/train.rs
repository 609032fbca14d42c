//! `lowrank train`: fine-tunes a checkpoint on labelled texts.

use super::base::checked;
use super::common::{Outcome, count, describe, length, say, say_json};
use super::device::{device_memory, kernel_path};
use super::head::{BaseModel, tell_model};
use super::method::MethodArgs;
use super::notes::note;
use super::output::{Input, Output};
use super::parts::{Reader, digest};
use super::progress::StepProgress;
use super::ranks;
use super::run::{RunState, Texts, TrainingRun};
use super::signals::catch_signals;
use super::training_args::TrainingArgs;
use crate::folder::{self, Lock};
use clap::Args;
use lowrank::files::write_file;
use lowrank::lora::{About, Counts, Method, adapter};
use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::DType;
use lowrank::train::{AdamW, Evaluation, Recipe, lora_plus, memory_by_category, peak_memory};
use lowrank::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `train`.
#[derive(Args)]
#[command(args_override_self = true)]
pub struct Train {
    #[command(flatten)]
    args: TrainingArgs,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    what: MethodArgs,
    /// Compute the output of the frozen layers once (head, selective); dropout in those layers is then off
    #[arg(long)]
    cache_trunk: bool,
    /// Micro-batches of an optimizer step
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
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
    /// Labelled texts to measure on after each epoch [default: validation.* in the folder of train.*, if it exists]
    #[arg(long, value_name = "PATH")]
    dev: Option<PathBuf>,
    /// Share of the training texts that is held out and measured after each epoch
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    dev_fraction: f64,
    /// Replace the head of the checkpoint by a new one
    #[arg(long)]
    new_head: bool,
    /// Keep the epoch that is best on the held-out texts (never chosen on the test set)
    #[arg(long)]
    keep_best: bool,
    /// Measure on the test set after each epoch too, not only at the end
    #[arg(long)]
    eval_every_epoch: bool,
    /// Batch texts of similar length instead of plain shuffling
    #[arg(long)]
    group_by_length: bool,
    /// Compute each layer again in backward: less memory, more time, the same result
    #[arg(long)]
    recompute: bool,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Resume a run that was stopped or killed from its saved state, with the same arguments
    #[arg(long)]
    resume: bool,
    /// Discard the saved state of a run that was stopped or killed, and start again
    #[arg(long, conflicts_with = "resume")]
    restart: bool,
    /// Steps between two saved states [default: 100, and 1000 for full and selective, whose state is three times the model]
    #[arg(long, value_name = "STEPS", value_parser = count::<{ usize::MAX }>)]
    checkpoint_every: Option<usize>,
    /// Print one JSON object on standard output, and nothing else there
    #[arg(long)]
    json: bool,
}

impl Train {
    fn recipe(&self) -> Result<Recipe> {
        Ok(Recipe {
            epochs: self.args.epochs,
            batch: self.args.batch,
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

    /// The settings on which the bytes of a run depend. A run is resumed only with the same ones.
    fn settings(&self, recipe: &Recipe, method: &Method, base: &str, max_length: usize, texts: &Texts) -> String {
        let mut settings = json!(recipe);
        for (name, value) in [
            ("method", json!(format!("{method:?}"))),
            ("lora_plus_ratio", json!(self.what.lora_plus_ratio())),
            ("dtype", json!(DType::from(self.args.dtype).to_string())),
            ("max_length", json!(max_length)),
            ("dev_fraction", json!(self.dev_fraction)),
            ("keep_best", json!(self.keep_best)),
            ("eval_every_epoch", json!(self.eval_every_epoch)),
            ("labels", json!(texts.train.label_names)),
            ("training data", json!(digest(&texts.train))),
            ("held-out data", json!(texts.dev.as_ref().map(digest))),
            ("test data", json!(digest(&texts.test))),
            ("base", json!(base)),
        ] {
            settings[name] = value;
        }
        settings.to_string()
    }

    /// Refuses arguments that contradict each other, before anything is computed. Rank 0 locks the place of the result.
    fn check(&self, recipe: &Recipe, method: &Method) -> Result<Option<Lock>> {
        let inputs: Vec<Input> = self.args.inputs().into_iter().chain(self.dev.as_deref().map(Input::test)).collect();
        self.what.check()?;
        recipe.check()?;
        method.check(&Config::open(&self.args.model.path)?)?;
        if !(0.0..1.0).contains(&self.dev_fraction) {
            return Err(Error::invalid(format!("--dev-fraction {} must lie in [0, 1)", self.dev_fraction)));
        }
        match self.dev.is_some() && self.dev_fraction > 0.0 {
            true => Err(Error::invalid("--dev-fraction does not go with --dev: give one of them")),
            false => ranks::is_first().then(|| self.output.check_run(&inputs, self.resume, self.restart)).transpose(),
        }
    }

    /// Tokens kept of each text.
    fn max_length(&self, model: &DistilBert, method: &Method) -> Result<usize> {
        let max_length = length(self.args.max_length, model.longest_text())?;
        Ok(match method {
            // The virtual tokens of a prompt need positions too.
            Method::Prompt { tokens } => max_length.min(model.longest_text().saturating_sub(*tokens)),
            _ => max_length,
        })
    }

    /// Reads the texts. `names` are the classes of the head, if they have names.
    fn texts(&self, reader: &Reader, names: Option<&[String]>) -> Result<Texts> {
        let hint = |e: Error| match (names, &e) {
            (Some(names), Error::File { problem, .. }) if problem.contains("none of the classes") => {
                Error::invalid(format!("{e}; the head's classes are {}: a new head takes its place with --new-head", names.join(", ")))
            }
            _ => e,
        };
        let (train, test) = reader.train_and_test(self.dev_fraction).map_err(hint)?;
        let dev = reader.dev(self.dev.as_deref(), self.dev_fraction, &train, &test)?;
        if self.keep_best {
            let Some(dev) = &dev else {
                let problem = "--keep-best needs texts to choose by: give --dev, --dev-fraction, or a validation.* beside train.*";
                return Err(Error::invalid(problem));
            };
            let shared = dev.shared_with(&test);
            if 2 * shared > dev.len() {
                return Err(Error::invalid(format!(
                    "--keep-best would choose on the test set: {shared} of the held-out texts are test texts; give others with --dev"
                )));
            }
        }
        Ok(Texts { train, test, dev })
    }

    /// Moves the model to its device. Returns its name, or data type and instruction set on the CPU.
    fn place(&self, model: &mut DistilBert) -> Result<String> {
        let device = self.args.device.place(model)?;
        match &device {
            Some(name) => note!("computing in {} on {name}", DType::from(self.args.dtype)),
            None => note!("computing in {}", kernel_path(self.args.dtype.into())),
        }
        Ok(device.unwrap_or_else(|| kernel_path(self.args.dtype.into())))
    }

    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let (args, recipe, method) = (&self.args, self.recipe()?, self.what.method(self.seed));
        let _lock = self.check(&recipe, &method)?;
        ranks::meet()?;
        let base = checked(&args.model.path, args.source.cache_folder().as_deref())?;
        let checkpoint =
            BaseModel { folder: &args.model.path, method: &method, dtype: args.dtype.into(), seed: self.seed, new_head: self.new_head };
        let opened = checkpoint.open()?;
        let max_length = self.max_length(&opened.model, &method)?;
        let labels = args.source.labels(opened.names.as_deref())?;
        let reader = Reader::new(args, &opened.model.config, labels, max_length, self.seed)?;
        let texts = self.texts(&reader, opened.names.as_deref())?;
        let (mut model, report) = checkpoint.with_head_for(opened, &texts.train.label_names)?;
        let adapted = method.apply(&mut model, self.seed)?;
        tell_model(&args.model.path, &model, &report, &adapted);
        let machine = self.place(&mut model)?;
        let mut optimizer = AdamW::new(self.weight_decay);
        if self.what.lora_plus_ratio() != 1.0 {
            optimizer.lr_factor = lora_plus(&model.parameters(), self.what.lora_plus_ratio())?;
        }
        catch_signals()?;
        let mut run = TrainingRun {
            out: &self.output.out,
            every: self.checkpoint_every.unwrap_or(if method.makes_checkpoint() { 1000 } else { 100 }),
            settings: self.settings(&recipe, &method, &base, max_length, &texts),
            machine: format!("lowrank {} on {machine}", env!("CARGO_PKG_VERSION")),
            recipe: &recipe,
            texts: &texts,
            test_each_epoch: self.eval_every_epoch,
            keep_best: self.keep_best,
            progress: StepProgress::new(recipe.steps(texts.train.len())?),
            state: RunState::default(),
        };
        run.check_ranks()?;
        if self.resume {
            run.resume(&mut model, &mut optimizer)?;
            note!("going on after step {}", optimizer.steps());
        }
        let result = match run.train_and_test(&mut model, &mut optimizer) {
            Ok(Some(result)) => result,
            stopped_or_failed => return run.ended_early(&model, &optimizer, stopped_or_failed.err()),
        };
        if !ranks::is_first() {
            return Ok(Outcome::Done);
        }
        let about = About {
            trained_on: Some(reader.trained_on()?),
            base_hash: Some(base),
            ..About::new(&model, &texts.train.label_names, max_length, self.seed)
        };
        self.save(&model, &method, &about, &run.state.metrics)?;
        self.print(&model, &texts, &result, &run.state)?;
        note!("{} written to {}", if method.makes_checkpoint() { "checkpoint" } else { "adapter" }, self.output.out.display());
        Ok(Outcome::Done)
    }

    /// Prints the result, or with `--json` one object with all numbers, and says how much memory was used.
    fn print(&self, model: &DistilBert, texts: &Texts, result: &Evaluation, state: &RunState) -> Result<()> {
        let (train, counts, seconds, peak) = (&texts.train, Counts::of(model), state.seconds, peak_memory());
        let data_bytes = train.bytes() + texts.test.bytes();
        let by_category = peak.map(|peak| memory_by_category(model, peak, state.kept, data_bytes)).unwrap_or_default();
        let mega = |bytes: usize| format!("{:.0} MB", bytes as f64 / 1e6);
        if let Some(bytes) = peak {
            let parts: Vec<_> = by_category.iter().map(|&(name, bytes)| format!("{} {name}", mega(bytes))).collect();
            note!("peak memory {}: {}", mega(bytes), parts.join(", "));
        }
        let on_device = device_memory(model);
        if let Some(bytes) = on_device {
            note!("memory on the GPU: {}", mega(bytes));
        }
        if !self.json {
            return say(format!("trained in {seconds:.0} s; {}", describe(result)));
        }
        say_json(&json!({
            "trainable": counts.trainable, "base": counts.base, "train_reviews": train.len(), "tokens_per_epoch": train.tokens(),
            "seconds": seconds, "tokens_per_second": (train.tokens() * self.args.epochs) as f64 / seconds, "test": result,
            "out": self.output.out, "seed": self.seed, "peak_memory_bytes": peak, "memory_bytes": by_category.iter().copied().collect::<BTreeMap<_, _>>(),
            "device_memory_bytes": on_device,
        }))
    }

    fn save(&self, model: &DistilBert, method: &Method, about: &About, metrics: &str) -> Result<()> {
        folder::write_directory(&self.output.out, |directory| {
            adapter::save_trained(model, method, &self.args.model.path, &self.args.model.name, &about.labels, directory)?;
            about.write(directory)?;
            write_file(&directory.join("metrics.jsonl"), metrics.as_bytes())
        })
    }
}
