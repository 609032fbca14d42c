//! `lowrank train`: fine-tunes a checkpoint on labelled texts.

use super::base::{check_side_files, checked, side_files, unhashed_settings};
use super::common::{Outcome, count, length, say, say_json};
use super::figures::{AllFigures, outputs};
use super::head::{BaseModel, tell_model};
use super::held_out::HeldOutArgs;
use super::method::MethodArgs;
use super::notes::note;
use super::output::{Input, Output};
use super::parts::{Reader, digest};
use super::progress::StepProgress;
use super::ranks;
use super::recipe_args::RecipeArgs;
use super::run::{RunState, Texts, TrainingRun};
use super::run_page::page;
use super::signals::catch_signals;
use super::start::{self, Start};
use super::summary::Finished;
use super::suspects::{self, Doubts, SuspectArgs, doubts};
use super::task::{self, TaskArg};
use super::tested::Tested;
use super::training_args::TrainingArgs;
use crate::folder::{self, Lock};
use clap::Args;
use lowrank::cut::Cut;
use lowrank::data::hash_file;
use lowrank::files::write_file;
use lowrank::lora::{About, Method, adapter};
use lowrank::metrics::Metric;
use lowrank::nn::{Config, DistilBert, Outputs};
use lowrank::tensor::DType;
use lowrank::text::hex;
use lowrank::train::{AdamW, Recipe};
use lowrank::{Error, Result};
use serde_json::{Value, json};
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
    #[command(flatten)]
    how: RecipeArgs,
    #[command(flatten)]
    held_out: HeldOutArgs,
    #[command(flatten)]
    doubt: SuspectArgs,
    /// What the labels are [default: what the problem_type of the model says, else classes]
    #[arg(long, value_enum)]
    task: Option<TaskArg>,
    /// Replace the head of the checkpoint by a new one
    #[arg(long)]
    new_head: bool,
    /// Adapter to start from; the method, its options and the head are those of the adapter
    #[arg(long, value_name = "DIR", conflicts_with = "new_head")]
    init_from: Option<PathBuf>,
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
    /// Do not write report.html
    #[arg(long)]
    no_report: bool,
    /// Print one JSON object on standard output, and nothing else there
    #[arg(long)]
    json: bool,
}

impl Train {
    /// The settings on which the bytes of a run depend. A run is resumed only with the same ones.
    fn settings(&self, recipe: &Recipe, method: &Method, (base, model): (&str, &DistilBert), cut: Cut, texts: &Texts) -> Result<String> {
        let (mut settings, selection) = (json!(recipe), self.held_out.selection(outputs(&texts.train)));
        for (name, value) in [
            ("method", json!(format!("{method:?}"))),
            ("lora_plus_ratio", json!(self.what.lora_plus_ratio())),
            ("dtype", json!(DType::from(self.args.dtype).to_string())),
            ("max_length", json!(cut.max_length)),
            ("dev_fraction", json!(self.held_out.dev_fraction)),
            ("keep_best", json!(selection.keep_best)),
            ("eval_every_epoch", json!(self.held_out.eval_every_epoch)),
            ("labels", json!(texts.train.label_names)),
            ("training data", json!(digest(&texts.train))),
            ("held-out data", json!(texts.dev.as_ref().map(digest))),
            ("test data", json!(digest(&texts.test))),
            ("base", json!(base)),
        ] {
            settings[name] = value;
        }
        // Left out where they have their defaults, as in states that older versions saved.
        if selection.metric != Metric::default() {
            settings["metric"] = json!(selection.metric.name());
        }
        if let Some(truncate) = cut.truncate {
            settings["truncate"] = json!(truncate);
        }
        if cut.windows != 1 {
            settings["windows"] = json!(cut.windows);
        }
        task::add_setting(&mut settings, &texts.train);
        if let Some(patience) = selection.patience {
            settings["patience"] = json!(patience);
        }
        for (name, value) in unhashed_settings(model)? {
            settings[name] = value;
        }
        if let Some(directory) = &self.init_from {
            settings["init_from"] = json!(hex(&hash_file(&adapter::tensors_path(directory))?));
        }
        Ok(settings.to_string())
    }

    /// Refuses arguments that contradict each other, before anything is computed. Rank 0 locks the place of the result.
    fn check(&self, recipe: &Recipe, method: &Method, task: Outputs) -> Result<Option<Lock>> {
        let start = self.init_from.clone().map(|directory| Input::Model("the adapter", directory));
        let inputs: Vec<Input> = self.args.inputs().into_iter().chain(self.held_out.dev.as_deref().map(Input::test)).chain(start).collect();
        self.what.check()?;
        recipe.check()?;
        method.check(&Config::open(&self.args.model.path)?)?;
        self.held_out.check(task)?;
        self.how.check(task)?;
        task::only_for_classes(task, "--suspects", self.doubt.is_given())?;
        ranks::is_first().then(|| self.output.check_run(&inputs, self.resume, self.restart)).transpose()
    }

    /// How texts are cut.
    fn cut(&self, start: &Start, method: &Method) -> Result<Cut> {
        let (longest, before) = (start.model().longest_text(), start.cut());
        let max_length = length(self.args.max_length.or(before.map(|cut| cut.max_length)), longest)?;
        let max_length = match (start, method) {
            // The virtual tokens of a prompt need positions too. A model with an adapter has counted them.
            (Start::Checkpoint(_), Method::Prompt { tokens }) => max_length.min(longest.saturating_sub(*tokens)),
            _ => max_length,
        };
        Ok(self.args.long.cut(max_length, before))
    }

    /// Reads the texts. `names` are the classes of the head, if they have names.
    fn texts(&self, reader: &Reader, names: Option<&[String]>) -> Result<Texts> {
        let hint = |e: Error| match (names, &e) {
            (Some(names), Error::File { problem, .. }) if problem.contains("none of the classes") => {
                let advice = if self.init_from.is_some() { "those of the adapter stay" } else { "--new-head makes a new one" };
                Error::invalid(format!("{e}; the head's classes are {}: {advice}", names.join(", ")))
            }
            _ => e,
        };
        let (fraction, path) = (self.held_out.dev_fraction, self.held_out.dev.as_deref());
        let (train, test) = reader.train_and_test(fraction).map_err(hint)?;
        if test.is_empty() {
            return Err(Error::file(&self.args.source.data, "test texts", "there are none: give some with --test"));
        }
        let dev = reader.dev(path, fraction, &train, &test)?;
        self.held_out.selection(outputs(&train)).check(dev.as_ref(), &test)?;
        Ok(Texts { train, test, dev })
    }

    fn base_model<'a>(&'a self, method: &'a Method, task: Outputs) -> BaseModel<'a> {
        let (folder, dtype) = (&self.args.model.path, self.args.dtype.into());
        BaseModel { folder, method, dtype, seed: self.seed, new_head: self.new_head, task }
    }

    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let args = &self.args;
        let architecture = Config::open(&args.model.path)?.architecture;
        let method = start::method(self.init_from.as_deref(), &self.what, architecture, self.seed)?;
        let mut recipe = self.how.recipe((args.epochs, args.batch, self.seed), &self.what, &method)?;
        let task = task::of_run(self.task, &args.model.path, self.init_from.as_deref(), self.new_head)?;
        let _lock = self.check(&recipe, &method, task)?;
        ranks::meet()?;
        let (base, checkpoint) = (checked(&args.model.path, args.cache.folder().as_deref())?, self.base_model(&method, task));
        let start = Start::open(&checkpoint, self.init_from.as_deref(), &base)?;
        let (cut, names) = (self.cut(&start, &method)?, start.names());
        task::check_pairs(args.source.text_pair_column.as_deref(), cut)?;
        let reader = Reader::new(args, &start.model().config, task::labels(task, &args.source, names.as_deref())?, cut, self.seed)?;
        // The hash is taken before the training: the files can be gone when it is over.
        let (texts, trained_on) = (self.texts(&reader, names.as_deref())?, reader.trained_on()?);
        recipe.class_weights = self.how.class_weights(&texts.train)?;
        let (mut model, report, adapted, method) = start.ready(&checkpoint, &texts.train.label_names)?;
        model.config.set_outputs(task);
        tell_model(&args.model.path, &model, &report, &adapted);
        let machine = args.device.place_and_tell(&mut model)?;
        let new_optimizer = |model: &DistilBert| self.what.optimizer(&recipe, model);
        let (mut optimizer, folds) = (new_optimizer(&model)?, self.doubt.folds(&model, &texts.train, self.seed)?);
        catch_signals()?;
        let mut run = TrainingRun {
            out: &self.output.out,
            every: self.checkpoint_every.unwrap_or(if method.makes_checkpoint() { 1000 } else { 100 }),
            settings: self.settings(&recipe, &method, (&base, &model), cut, &texts)?,
            side_files: side_files(&args.model.path)?,
            machine: format!("lowrank {} on {machine}", env!("CARGO_PKG_VERSION")),
            recipe: &recipe,
            texts: &texts,
            test_each_epoch: self.held_out.eval_every_epoch,
            selection: self.held_out.selection(task),
            progress: StepProgress::new(recipe.steps(texts.train.len())?),
            state: RunState::default(),
        };
        run.check_ranks()?;
        if self.resume {
            run.resume(&mut model, &mut optimizer)?;
        }
        let tested = run.train_and_test(&mut model, &mut optimizer);
        let (tested, doubts) = match doubts(folds, tested, &run, (&mut model, &optimizer), &new_optimizer) {
            Ok(Some(found)) => found,
            stopped_or_failed => return run.ended_early(&model, &optimizer, stopped_or_failed.err()),
        };
        if !ranks::is_first() {
            return Ok(Outcome::Done);
        }
        let about = About {
            trained_on: Some(trained_on),
            base_hash: Some(base),
            temperature: tested.temperature,
            problem_type: (task != Outputs::Classes).then(|| task.problem_type().to_string()),
            thresholds: tested.thresholds.clone(),
            pairs: texts.train.has_pairs(),
            text_pair_column: args.source.text_pair_column.clone(),
            ..About::new(&model, &texts.train.label_names, cut, self.seed)
        };
        self.finish(&run, (&model, &optimizer, &method), (&tested, doubts.as_ref()), &about, &reader)
    }

    /// Writes and prints the result.
    fn finish(
        &self,
        run: &TrainingRun,
        (model, optimizer, method): (&DistilBert, &AdamW, &Method),
        (tested, doubts): (&Tested, Option<&Doubts>),
        about: &About,
        reader: &Reader,
    ) -> Result<Outcome> {
        let finished = Finished {
            model,
            texts: run.texts,
            recipe: run.recipe,
            method,
            dtype: DType::from(self.args.dtype).to_string(),
            cut: about.cut,
            chosen_by: run.selection.keep_best.then_some(run.selection.metric.name()),
            state: &run.state,
            figures: &AllFigures::of(&run.texts.test, &tested.probabilities, tested.thresholds.as_deref())?,
            tested,
        };
        let (mut summary, table) =
            (finished.summary(), doubts.and_then(|doubts| doubts.table_or_warning(reader, run, self.held_out.dev_fraction)));
        summary["suspects"] = json!(doubts.filter(|_| table.is_some()).map(Doubts::summary));
        let unchanged = check_side_files(&self.args.model.path, &run.side_files);
        if let Err(e) = unchanged.and_then(|()| self.save(&finished, about, reader, (&summary, table.as_deref()))) {
            return run.ended_early(model, optimizer, Some(e));
        }
        self.print(&finished, summary)?;
        note!("{} written to {}", if method.makes_checkpoint() { "checkpoint" } else { "adapter" }, self.output.out.display());
        Ok(Outcome::Done)
    }

    /// Prints the result, or with `--json` one object with all numbers, and says how much memory was used.
    fn print(&self, run: &Finished, mut summary: Value) -> Result<()> {
        let mega = |bytes: f64| format!("{:.0} MB", bytes / 1e6);
        if let Some(bytes) = summary["peak_memory_bytes"].as_f64() {
            let parts = summary["memory_bytes"].as_object().into_iter().flatten();
            let parts: Vec<_> = parts.filter_map(|(name, bytes)| Some(format!("{} {name}", mega(bytes.as_f64()?)))).collect();
            note!("peak memory {}: {}", mega(bytes), parts.join(", "));
        }
        if let Some(bytes) = summary["device_memory_bytes"].as_f64() {
            note!("memory on the GPU: {}", mega(bytes));
        }
        if !self.json {
            return say(format!("trained in {:.0} s; {}", run.state.seconds, run.tested.test.describe()));
        }
        summary["out"] = json!(self.output.out.display().to_string());
        say_json(&summary)
    }

    fn save(&self, run: &Finished, about: &About, reader: &Reader, (summary, table): (&Value, Option<&[u8]>)) -> Result<()> {
        let pretty = serde_json::to_string_pretty(summary).map_err(|e| Error::invalid(format!("summary.json: {e}")))?;
        let page = (!self.no_report).then(|| page(run, &reader.texts(&run.texts.train, &run.texts.test)));
        folder::write_directory(&self.output.out, |directory| {
            adapter::save_trained(run.model, run.method, &self.args.model.path, &self.args.model.name, &about.labels, directory)?;
            about.write(directory)?;
            write_file(&directory.join("metrics.jsonl"), run.state.metrics.as_bytes())?;
            write_file(&directory.join("summary.json"), pretty.as_bytes())?;
            table.iter().try_for_each(|table| write_file(&directory.join(suspects::FILE), table))?;
            page.iter().try_for_each(|page| write_file(&directory.join("report.html"), page.as_bytes()))
        })
    }
}
