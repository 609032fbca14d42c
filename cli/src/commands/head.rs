//! The classifier head of the checkpoint that `train` starts from: kept, or replaced by a new one.

use super::notes::{note, warning};
use lowrank::lora::{Counts, Method};
use lowrank::nn::{Config, DistilBert, Head, LoadOptions, LoadReport, Outputs};
use lowrank::tensor::DType;
use lowrank::text::thousands;
use lowrank::{Error, Result};
use std::path::Path;

/// How the checkpoint is opened.
pub struct BaseModel<'a> {
    pub folder: &'a Path,
    /// Weights that this method trains are loaded in the precision of the checkpoint.
    pub method: &'a Method,
    pub dtype: DType,
    /// Seed of a new head.
    pub seed: u64,
    /// Replace the head of the checkpoint.
    pub new_head: bool,
    /// What is trained.
    pub task: Outputs,
}

/// A checkpoint with the head that its files have.
pub struct Opened {
    pub model: DistilBert,
    report: LoadReport,
    /// Number of classes in the checkpoint's `config.json`.
    classes: usize,
    /// Names of these classes, if the head is kept and has names.
    pub names: Option<Vec<String>>,
}

impl BaseModel<'_> {
    /// Opens the checkpoint with its own head.
    ///
    /// # Errors
    /// If it cannot be read, or its head is not a classifier of several classes.
    pub fn open(&self) -> Result<Opened> {
        let config = Config::open(self.folder)?;
        let classes = config.labels().len();
        let (model, report) = self.load(classes, Head::Kept)?;
        let names = if self.new_head || !has_head(&report) { None } else { self.names(config)? };
        Ok(Opened { model, report, classes, names })
    }

    fn load(&self, classes: usize, head: Head) -> Result<(DistilBert, LoadReport)> {
        let head = if self.new_head { Head::New } else { head };
        let exact = |name: &str| self.method.trains(name);
        let options = LoadOptions { classes: Some(classes), dtype: self.dtype, seed: self.seed, head, exact: &exact };
        DistilBert::open_with(self.folder, &options)
    }

    fn names(&self, config: Config) -> Result<Option<Vec<String>>> {
        let labels = config.labels();
        // The names of classes are no names of numbers.
        let named = config.names_classes() && (self.task != Outputs::Numbers || labels.len() == 1);
        if self.task != Outputs::Classes || config.outputs(labels.len()) == Outputs::Classes {
            return Ok(named.then_some(labels));
        }
        let problem = "the head has one output, and --task classes needs several classes; a new head takes its place with --new-head";
        Err(Error::file(self.folder.join("config.json"), "\"problem_type\"", problem))
    }

    /// The model with a head for the classes of the data, `labels`, and what was loaded. Warns if the head of the checkpoint is not used, or if
    /// the order of its classes is a guess.
    pub fn with_head_for(&self, opened: Opened, labels: &[String]) -> Result<(DistilBert, LoadReport)> {
        let Opened { model, report, classes: of_head, names } = opened;
        let (classes, had_head) = (labels.len(), has_head(&report));
        if classes == of_head {
            if names.is_none() && had_head && !self.new_head && self.task != Outputs::Numbers {
                let order = labels.join(", ");
                warning!(
                    "the classes of the checkpoint's head have no names: they are taken for {order}, in this order; --labels gives another, --new-head a new head"
                );
            }
            return Ok((model, report));
        }
        let loaded = self.load(classes, Head::Fitting)?;
        if had_head {
            warning!("the checkpoint's head has {of_head} classes and the data have {classes}: a new head takes its place");
        }
        Ok(loaded)
    }
}

/// Whether the checkpoint has a classifier.
fn has_head(report: &LoadReport) -> bool {
    report.initialised.iter().all(|name| name != "classifier.weight")
}

/// Says what was loaded from `checkpoint`, which linears are `adapted`, and how many parameters train.
pub fn tell_model(checkpoint: &Path, model: &DistilBert, report: &LoadReport, adapted: &[String]) {
    let list = |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
    note!("{}: {} weights, newly initialised: {}", checkpoint.display(), model.weights().len(), list(&report.initialised));
    if !report.unused.is_empty() {
        note!("unused tensors of the checkpoint: {}", list(&report.unused));
    }
    if !adapted.is_empty() {
        note!("low-rank terms on {} linears: {}", adapted.len(), list(adapted));
    }
    let counts = Counts::of(model);
    note!("{}", counts.peft_line());
    note!("{:.2} % of the model's own {} parameters", counts.percent(), thousands(counts.base));
}
