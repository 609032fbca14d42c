//! The arguments of `train` for held-out texts, and what is chosen by them: the epoch that is kept, and when to stop.

use super::common::count;
use super::figures::outputs;
use super::task;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lowrank::data::Tokenized;
use lowrank::metrics::Metric;
use lowrank::nn::Outputs;
use lowrank::{Error, Result};
use std::path::PathBuf;

/// Held-out texts, and what they are for.
#[derive(Args)]
pub struct HeldOutArgs {
    /// Labelled texts to measure on after each epoch [default: validation.* in the folder of train.*, if it exists]
    #[arg(long, value_name = "PATH")]
    pub dev: Option<PathBuf>,
    /// Share of the training texts that is held out and measured after each epoch
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub dev_fraction: f64,
    /// Keep the epoch that is best on the held-out texts (never chosen on the test set)
    #[arg(long)]
    keep_best: bool,
    /// Stop after this many epochs that were not better on the held-out texts, and keep the best
    #[arg(long, value_name = "EPOCHS", value_parser = count::<{ usize::MAX }>)]
    patience: Option<usize>,
    /// What "best" means for --keep-best and --patience: a figure of the held-out texts [default: accuracy; for --task labels and numbers the loss]
    #[arg(long, value_name = "NAME", value_parser = metric())]
    metric: Option<Metric>,
    /// Measure on the test set after each epoch too, not only at the end
    #[arg(long)]
    pub eval_every_epoch: bool,
}

/// Which epoch is kept, and when a run stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection {
    /// Keep the best epoch, not the last.
    pub keep_best: bool,
    /// What the best epoch is best in.
    pub metric: Metric,
    /// Epochs without a better one after which the run ends.
    pub patience: Option<usize>,
}

fn metric() -> impl TypedValueParser<Value = Metric> {
    let find = |name: String| Metric::ALL.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric).unwrap_or_default();
    PossibleValuesParser::new(Metric::ALL.map(|(name, _)| name)).map(find)
}

impl HeldOutArgs {
    /// Refuses arguments that contradict each other.
    ///
    /// # Errors
    /// If some do.
    pub fn check(&self, task: Outputs) -> Result<()> {
        if !(0.0..1.0).contains(&self.dev_fraction) {
            return Err(Error::invalid(format!("--dev-fraction {} must lie in [0, 1)", self.dev_fraction)));
        }
        if self.dev.is_some() && self.dev_fraction > 0.0 {
            return Err(Error::invalid("--dev-fraction does not go with --dev: give one of them"));
        }
        let known = Metric::of_outputs(task);
        if let Some(metric) = self.metric.filter(|metric| !known.contains(metric)) {
            let names: Vec<&str> = known.iter().map(|metric| metric.name()).collect();
            let (name, task) = (metric.name(), task::name(task));
            return Err(Error::invalid(format!("--metric {name} is not a figure of --task {task}, which has {}", names.join(", "))));
        }
        match self.metric.is_some() && !self.selection(task).keep_best {
            true => Err(Error::invalid("--metric says what the best epoch is: give --keep-best or --patience too")),
            false => Ok(()),
        }
    }

    /// What is chosen by the held-out texts.
    pub fn selection(&self, task: Outputs) -> Selection {
        let keep_best = self.keep_best || self.patience.is_some();
        Selection { keep_best, metric: self.metric.unwrap_or(Metric::of_outputs(task)[0]), patience: self.patience }
    }
}

impl Selection {
    /// Checks that there are held-out texts to choose by, that they are not the test texts, and that the figure can be computed of them.
    ///
    /// # Errors
    /// If not; the message says what to give.
    pub fn check(&self, dev: Option<&Tokenized>, test: &Tokenized) -> Result<()> {
        if !self.keep_best {
            return Ok(());
        }
        let option = if self.patience.is_some() { "--patience" } else { "--keep-best" };
        let Some(dev) = dev else {
            let problem = format!("{option} needs texts to choose by: give --dev, --dev-fraction, or a validation.* beside train.*");
            return Err(Error::invalid(problem));
        };
        let shared = dev.shared_with(test);
        if 2 * shared > dev.len() {
            return Err(Error::invalid(format!(
                "{option} would choose on the test set: {shared} of the held-out texts are test texts; give others with --dev"
            )));
        }
        // A figure may not be defined if a class has no text. Any probabilities show it, so it is known before hours of training.
        let even = vec![vec![1.0 / dev.label_names.len() as f64; dev.label_names.len()]; dev.len()];
        let hint = |e| Error::invalid(format!("--metric on the held-out texts: {e}; give another --metric, or other texts"));
        let value = match outputs(dev) {
            Outputs::Classes => self.metric.of(&even, &dev.labels, 0.0),
            Outputs::Labels => self.metric.of_targets(Outputs::Labels, &even, &dev.wanted(), 0.0),
            // A correlation needs numbers that differ.
            Outputs::Numbers => {
                let found: Vec<Vec<f64>> = (0..dev.len()).map(|i| vec![i as f64]).collect();
                self.metric.of_targets(Outputs::Numbers, &found, &dev.wanted(), 0.0)
            }
        };
        value.map(drop).map_err(hint)
    }
}
