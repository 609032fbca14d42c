//! `lowrank bench epoch`: seconds of a training epoch and of an evaluation, without anything that happens once.

use super::base::checked;
use super::common::{count, length, say, say_json};
use super::device::{device_memory, kernel_path};
use super::head::BaseModel;
use super::method::MethodArgs;
use super::parts::Reader;
use super::training_args::TrainingArgs;
use clap::Args;
use lowrank::data::Tokenized;
use lowrank::nn::Outputs;
use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::DType;
use lowrank::text::thousands;
use lowrank::train::{AdamW, Evaluation, Observer, Recipe, StepReport, Training, evaluate};
use lowrank::{Error, Result};
use serde_json::json;
use std::time::Instant;

/// Arguments of `bench epoch`.
#[derive(Args)]
pub(super) struct Epoch {
    /// The last of `--epochs` is timed. Those before it load the kernels and choose algorithms.
    #[command(flatten)]
    args: TrainingArgs,
    #[command(flatten)]
    what: MethodArgs,
    /// Batch sizes of the evaluation; the fastest counts
    #[arg(long, value_delimiter = ',', default_value = "32,64,128,256", value_parser = count::<65_536>)]
    eval_batches: Vec<usize>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

/// The losses of the steps.
#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn step(&mut self, report: &StepReport) -> bool {
        self.0.push(report.loss);
        true
    }
}

/// The fastest evaluation.
struct Best {
    seconds: f64,
    batch: usize,
    result: Evaluation,
}

impl Epoch {
    /// Runs the command.
    pub(super) fn run(&self) -> Result<()> {
        let args = &self.args;
        let method = self.what.method(Config::open(&args.model.path)?.architecture, 0);
        let (lr, nested_rank) = (MethodArgs::learning_rate(&method), self.what.nested_rank()?);
        let recipe = Recipe { epochs: args.epochs, batch: args.batch, lr, nested_rank, ..Recipe::default() };
        if args.epochs < 2 {
            return Err(Error::invalid(format!(
                "--epochs {}: the first epoch warms up and the last is timed: give 2 or more",
                args.epochs
            )));
        }
        self.what.check()?;
        recipe.check()?;
        checked(&args.model.path, args.cache.folder().as_deref())?;
        let checkpoint = BaseModel {
            folder: &args.model.path,
            method: &method,
            dtype: args.dtype.into(),
            seed: 0,
            new_head: false,
            task: Outputs::Classes,
        };
        let opened = checkpoint.open()?;
        let cut = args.long.cut(length(args.max_length, opened.model.longest_text())?, None);
        let labels = args.source.labels(opened.names.as_deref())?;
        let (train, test) = Reader::new(args, &opened.model.config, labels, cut, 0)?.train_and_test(0.0)?;
        let mut model = checkpoint.with_head_for(opened, &train.label_names)?.0;
        method.apply(&mut model, 0)?;
        let machine = args.device.place(&mut model)?.unwrap_or_else(|| kernel_path(args.dtype.into()));
        let mut optimizer = self.what.optimizer(&recipe, &model)?;
        let (seconds, loss) = epoch_seconds(&mut model, &mut optimizer, &train, &recipe)?;
        let (best, all) = self.evaluation(&model, &test)?;
        let memory = device_memory(&model);
        if self.json {
            return say_json(&json!({
                "device": machine, "dtype": DType::from(args.dtype).to_string(), "epoch": args.epochs, "batch": args.batch, "max_length": cut.max_length,
                "train_texts": train.len(), "tokens": train.tokens(), "epoch_seconds": seconds, "tokens_per_second": train.tokens() as f64 / seconds,
                "loss": loss, "test_texts": test.len(), "eval_seconds": best.seconds, "eval_batch": best.batch,
                "eval_seconds_by_batch": all.iter().map(|(batch, s)| json!([batch, s])).collect::<Vec<_>>(), "accuracy": best.result.accuracy,
                "device_bytes": memory,
            }));
        }
        let (texts, tokens) = (thousands(train.len()), thousands(train.tokens()));
        say(&machine)?;
        say(format!(
            "epoch {} over {texts} texts, {tokens} tokens: {seconds:.3} s, {:.0} tokens/s",
            args.epochs,
            train.tokens() as f64 / seconds
        ))?;
        for (batch, seconds) in &all {
            say(format!("evaluation of {} texts in batches of {batch}: {seconds:.3} s", thousands(test.len())))?;
        }
        say(format!("best evaluation: {:.3} s, in batches of {}", best.seconds, best.batch))?;
        memory.map_or(Ok(()), |bytes| say(format!("memory on the GPU: {:.0} MB", bytes as f64 / 1e6)))
    }

    /// The fastest evaluation, and batch size and seconds of each. Every size runs twice, and the second run counts.
    fn evaluation(&self, model: &DistilBert, test: &Tokenized) -> Result<(Best, Vec<(usize, f64)>)> {
        let (mut best, mut all): (Option<Best>, _) = (None, Vec::new());
        for &batch in &self.eval_batches {
            evaluate(model, test, batch)?;
            wait(model)?;
            let started = Instant::now();
            let result = evaluate(model, test, batch)?;
            let seconds = started.elapsed().as_secs_f64();
            all.push((batch, seconds));
            if best.as_ref().is_none_or(|best| seconds < best.seconds) {
                best = Some(Best { seconds, batch, result });
            }
        }
        Ok((best.ok_or_else(|| Error::invalid("--eval-batches: give a batch size"))?, all))
    }
}

/// Seconds of the last epoch and the mean loss of its steps.
fn epoch_seconds(model: &mut DistilBert, optimizer: &mut AdamW, train: &Tokenized, recipe: &Recipe) -> Result<(f64, f64)> {
    let mut losses = Losses::default();
    let training = Training::new(model, train, recipe)?;
    training.run(model, optimizer, (recipe.epochs - 1) * recipe.steps_per_epoch(train.len()), &mut losses)?;
    losses.0.clear();
    wait(model)?;
    let started = Instant::now();
    training.run(model, optimizer, usize::MAX, &mut losses)?;
    wait(model)?;
    Ok((started.elapsed().as_secs_f64(), losses.0.iter().sum::<f64>() / losses.0.len().max(1) as f64))
}

/// Waits until a GPU is done.
fn wait(model: &DistilBert) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Some(device) = model.parameters().iter().find_map(|p| p.value().device()) {
        return device.synchronize();
    }
    let _ = model;
    Ok(())
}
