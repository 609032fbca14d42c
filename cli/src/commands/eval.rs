//! `lowrank eval`: measures a model on labelled texts.

use super::adapted::{Adapted, AdaptedArgs};
use super::answer::scores;
use super::common::{CacheArgs, DataArgs, limited, say, say_json};
use super::figures::{AllFigures, Figures};
use super::notes::{in_line, note};
use super::output::Input;
use super::output_file::OutputFile;
use super::pair_column::pair_column;
use super::parts::{is_trained_on, part_of, tell};
use super::ranks::is_first;
use super::scored::{check_table, write_scored};
use clap::{Args, ValueEnum};
use lowrank::data::{Dataset, Encoded, Found, Labels, Split, Tokenized, find, text_key};
use lowrank::nn::Outputs;
use lowrank::text::thousands;
use lowrank::{Error, Result};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    adapted: AdaptedArgs,
    #[command(flatten)]
    source: DataArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// Part of the data to measure. If training held out a part of these texts for the test, `test` is that part
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    split: SplitArg,
    /// Measure on this many texts, the same number of each label
    #[arg(long, value_name = "N", value_parser = super::common::count::<{ usize::MAX }>)]
    limit: Option<usize>,
    /// Texts of a batch
    #[arg(long, default_value_t = 16, value_parser = super::common::count::<{ usize::MAX }>)]
    batch: usize,
    /// Write the texts with their labels, answers and scores as a table, .csv or .tsv
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file --out
    #[arg(long, requires = "out")]
    overwrite: bool,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

/// A part of a data set.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitArg {
    Train,
    Validation,
    Test,
    /// The whole data set, if it has no splits
    All,
}

impl SplitArg {
    /// The split, and its key in the JSON output.
    fn parts(self) -> (Split, &'static str) {
        match self {
            SplitArg::Train => (Split::Train, "train"),
            SplitArg::Validation => (Split::Validation, "validation"),
            SplitArg::Test | SplitArg::All => (Split::Test, "test"),
        }
    }
}

impl Eval {
    /// Runs the command.
    pub(super) fn run(mut self) -> Result<()> {
        let inputs: Vec<Input> = Input::of(&self.source, &self.cache).into_iter().chain(self.adapted.inputs()).collect();
        let out = self.out.as_deref().map(|out| check_table(out, self.overwrite, &inputs)).transpose()?;
        let mut all = self.adapted.open(self.cache.folder().as_deref())?;
        if out.is_some() && all.len() > 1 {
            return Err(Error::invalid("--out writes the answers of one model: give one adapter"));
        }
        self.source.text_pair_column = pair_column(&all, self.source.text_pair_column.as_deref())?;
        let given = self.source.labels(None)?.names;
        for adapted in all.iter_mut().filter(|adapted| adapted.outputs == Outputs::Classes && adapted.is_unnamed()) {
            if let Some(names) = given.as_ref().filter(|names| names.len() == adapted.labels.len()) {
                adapted.labels.clone_from(names);
            }
        }
        let mut results = Vec::new();
        for adapted in &all {
            let Measured { labels, result, metrics, lines } = self.measure(adapted, out.as_ref())?;
            if self.json {
                let mut object = json!({ "adapter": adapted.name, self.split.parts().1: result, "labels": labels });
                metrics.iter().for_each(|metrics| object["metrics"] = json!(metrics));
                results.push(object);
                continue;
            }
            metrics.iter().for_each(|metrics| note!("{}", metrics.of_intervals()));
            let name = if all.len() > 1 { format!("{}: ", adapted.name) } else { String::new() };
            lines.iter().try_for_each(|line| say(format!("{name}{line}")))?;
        }
        if self.json { say_one_or_all(results) } else { Ok(()) }
    }

    fn measure(&self, adapted: &Adapted, out: Option<&OutputFile>) -> Result<Measured> {
        let labels = self.labels(adapted)?;
        let part = self.part(adapted)?;
        let tokens = self.tokens(adapted, &labels, &part)?;
        let rows = scores(adapted, &tokens.windows(), self.batch, &mut |_| true)?.unwrap_or_default();
        let result = Figures::of(&tokens, &rows, Some(&adapted.thresholds))?;
        // Several numbers for each text have no figures but their errors.
        let several = adapted.outputs == Outputs::Numbers && adapted.labels.len() > 1;
        let metrics = if several { None } else { Some(AllFigures::of(&tokens, &rows, Some(&adapted.thresholds))?) };
        let mut lines = vec![format!("{}{}", result.describe(), part.remark())];
        if let Figures::Classes(result) = &result {
            for (label, row) in tokens.label_names.iter().zip(&result.confusion) {
                let cells: Vec<String> =
                    tokens.label_names.iter().zip(row).map(|(answer, n)| format!("{n} as {}", in_line(answer))).collect();
                lines.push(format!("{}: {}", in_line(label), cells.join(", ")));
            }
        }
        metrics.iter().for_each(|metrics| lines.extend(metrics.lines(&tokens.label_names)));
        if let Some(out) = out.filter(|_| is_first()) {
            let texts = self.selected(self.source.load(&self.source.data, part.split, &labels)?, &part, |text| text_key(text))?;
            if texts.keys() != tokens.keys {
                return Err(Error::file(&self.source.data, "data set", "was changed while it was measured: run this again"));
            }
            write_scored(out, adapted, (&texts, &tokens), &rows)?;
            note!("{} texts with their answers written to {}", thousands(texts.len()), out.given.display());
        }
        Ok(Measured { labels: tokens.label_names, result: json!(result), metrics, lines })
    }

    /// What the labels of the data are, with the names that the model has.
    fn labels(&self, adapted: &Adapted) -> Result<Labels> {
        match adapted.outputs {
            Outputs::Classes => self.source.labels(Some(&adapted.labels)),
            outputs => Ok(Labels { names: Some(adapted.labels.clone()), outputs, ..self.source.labels(None)? }),
        }
    }

    /// The part of the data to measure.
    fn part(&self, adapted: &Adapted) -> Result<Part> {
        let path = &self.source.data;
        let (wanted, _) = self.split.parts();
        let found = find(path, wanted)?;
        if self.split == SplitArg::All && found != Found::Undivided {
            return Err(Error::invalid("--split all is for a data set without splits; this one has some"));
        }
        // If the data set has no test split, the test texts may be a part of the training texts that was held out.
        let known = adapted.about.as_ref().and_then(|a| a.trained_on.as_ref());
        let trained_on = match known.filter(|_| self.split == SplitArg::Train || found != Found::There) {
            Some(trained_on) if is_trained_on(trained_on, path)? => Some(trained_on),
            _ => None,
        };
        if found == Found::Undivided && (self.split == SplitArg::Validation || (self.split == SplitArg::Train && trained_on.is_none())) {
            let problem = match self.split {
                SplitArg::Validation => "has no validation split: leave out --split",
                _ => "has no splits, and is not what the model was trained on: leave out --split",
            };
            return Err(Error::file(path, "data set", problem));
        }
        let held_out = trained_on.filter(|t| t.held_out.is_some() && matches!(self.split, SplitArg::Train | SplitArg::Test));
        let test = self.split == SplitArg::Test && held_out.is_some();
        let split = if test { Split::Train } else { wanted };
        if test {
            note!("{} was trained on: measuring on the part of it that was held out", path.display());
        }
        let key = format!("{held_out:?} {test} limit {:?} seed 0", self.limit);
        Ok(Part { split, held_out: held_out.and_then(|t| t.held_out), test, key, trained_on: trained_on.is_some() && !test })
    }

    /// Reads the texts of a part as tokens.
    fn tokens(&self, adapted: &Adapted, labels: &Labels, part: &Part) -> Result<Tokenized> {
        let (path, cut) = (&self.source.data, adapted.cut);
        let select = |data| self.selected(data, part, |text: &Encoded| text.key);
        let tokens = self.cache.tokens((&self.source, path, part.split), labels, &adapted.wordpiece, cut, &part.key, select)?;
        tell("measured", &tokens, cut);
        Ok(tokens)
    }

    /// The texts of a part, from all of its split.
    fn selected<T: Default>(&self, data: Dataset<T>, part: &Part, key: impl Fn(&T) -> u64) -> Result<Dataset<T>> {
        limited(part_of(part.held_out, data, part.test, key)?, self.limit, 0)
    }
}

/// What was found of one model.
struct Measured {
    /// Names of the labels.
    labels: Vec<String>,
    result: Value,
    metrics: Option<AllFigures>,
    /// The result as text.
    lines: Vec<String>,
}

/// A part of the data.
struct Part {
    split: Split,
    /// Share that training held out for the test, and whether that part is meant, or the rest.
    held_out: Option<f64>,
    test: bool,
    /// All of this as a key of the cache.
    key: String,
    /// Whether the model was trained on it.
    trained_on: bool,
}

impl Part {
    /// Printed after the numbers.
    fn remark(&self) -> &'static str {
        if self.trained_on { ": measured on texts that it was trained on" } else { "" }
    }
}

/// Prints the result of one model, or those of several as `{"adapters": […]}`.
pub(super) fn say_one_or_all(mut results: Vec<Value>) -> Result<()> {
    match results.len() {
        1 => say_json(&results.remove(0)),
        _ => say_json(&json!({ "adapters": results })),
    }
}
