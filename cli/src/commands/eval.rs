//! `lowrank eval`: measures a model on labelled texts.

use super::adapted::{Adapted, AdaptedArgs};
use super::common::{DataArgs, describe, limited, say, say_json};
use super::notes::note;
use super::parts::{is_trained_on, part_of, tell};
use super::ranks::{check_inference, ranks};
use clap::{Args, ValueEnum};
use lowrank::data::{Found, Labels, Split, Tokenized, find};
use lowrank::nn::Outputs;
use lowrank::train::{evaluate_across, labels_found, logits_across, number_errors, scores, target};
use lowrank::{Error, Result};
use serde_json::{Value, json};

/// Arguments of `eval`.
#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    adapted: AdaptedArgs,
    #[command(flatten)]
    source: DataArgs,
    /// Part of the data to measure. If training held out a part of these texts for the test, `test` is that part
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    split: SplitArg,
    /// Measure on this many texts, the same number of each label
    #[arg(long, value_name = "N", value_parser = super::common::count::<{ usize::MAX }>)]
    limit: Option<usize>,
    /// Texts of a batch
    #[arg(long, default_value_t = 16, value_parser = super::common::count::<{ usize::MAX }>)]
    batch: usize,
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
    pub(super) fn run(self) -> Result<()> {
        let all = self.adapted.open(self.source.cache_folder().as_deref())?;
        let mut results = Vec::new();
        for adapted in &all {
            let (labels, result, lines) = self.measure(adapted)?;
            if self.json {
                results.push(json!({ "adapter": adapted.name, self.split.parts().1: result, "labels": labels }));
                continue;
            }
            let name = if all.len() > 1 { format!("{}: ", adapted.name) } else { String::new() };
            lines.iter().try_for_each(|line| say(format!("{name}{line}")))?;
        }
        if self.json { say_one_or_all(results) } else { Ok(()) }
    }

    /// Names of the labels, the result as JSON, and the result as lines of text.
    fn measure(&self, adapted: &Adapted) -> Result<(Vec<String>, Value, Vec<String>)> {
        if adapted.outputs != Outputs::Classes {
            return self.measure_scores(adapted);
        }
        let given = self.source.labels(None)?.names.filter(|names| adapted.is_unnamed() && names.len() == adapted.labels.len());
        let labels = match given {
            Some(names) => Labels::named(&names),
            None => self.source.labels(Some(&adapted.labels))?,
        };
        let (tokens, remark) = self.texts(adapted, &labels)?;
        check_inference(&adapted.model, &tokens.sequences())?;
        let result = evaluate_across(&*ranks(), &adapted.model, &tokens, self.batch)?;
        let mut lines = vec![format!("{}{remark}", describe(&result))];
        for (label, row) in tokens.label_names.iter().zip(&result.confusion) {
            let cells: Vec<String> = tokens.label_names.iter().zip(row).map(|(answer, n)| format!("{n} as {answer}")).collect();
            lines.push(format!("{label}: {}", cells.join(", ")));
        }
        Ok((tokens.label_names, json!(result), lines))
    }

    /// [`Eval::measure`] for a head whose outputs are not classes.
    fn measure_scores(&self, adapted: &Adapted) -> Result<(Vec<String>, Value, Vec<String>)> {
        let (names, count) = (Labels::named(&adapted.labels), adapted.labels.len());
        let (tokens, remark) = self.texts(adapted, &Labels { verbatim: true, ..self.source.labels(None)? })?;
        let wanted = tokens.label_names.iter().map(|label| target(adapted.outputs, label, count, &|name| names.class_of(name)));
        let wanted: Vec<Vec<f64>> = wanted.collect::<Result<_>>().map_err(|e| Error::file(&self.source.data, "labels", e))?;
        let wanted: Vec<Vec<f64>> = tokens.labels.iter().map(|&label| wanted[label as usize].clone()).collect();
        check_inference(&adapted.model, &tokens.sequences())?;
        let rows = logits_across(&*ranks(), &adapted.model, &tokens.sequences(), self.batch)?;
        let found: Vec<Vec<f64>> = rows.iter().map(|row| scores(adapted.outputs, row)).collect();
        let (result, line) = match adapted.outputs {
            Outputs::Numbers => {
                let e = number_errors(&found, &wanted);
                let line = format!(
                    "mean squared error {:.4}, mean absolute error {:.4} on {} texts{remark}",
                    e.mean_squared_error, e.mean_absolute_error, e.examples
                );
                (json!(e), line)
            }
            _ => {
                let e = labels_found(&found, &wanted);
                let (all, each) = (100.0 * e.accuracy, 100.0 * e.label_accuracy);
                (json!(e), format!("all labels right {all:.2} %, each label right {each:.2} % on {} texts{remark}", e.examples))
            }
        };
        Ok((adapted.labels.clone(), result, vec![line]))
    }

    /// Reads the texts to measure. The remark is printed after the numbers; it is not empty if the model was trained on these texts.
    fn texts(&self, adapted: &Adapted, labels: &Labels) -> Result<(Tokenized, &'static str)> {
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
        let selection = format!("{held_out:?} {test} limit {:?} seed 0", self.limit);
        let tokens = self.source.tokens((path, split), labels, &adapted.wordpiece, adapted.max_length, &selection, |data| {
            limited(part_of(held_out.and_then(|t| t.held_out), data, test, |text| text.key)?, self.limit, 0)
        })?;
        tell("measured", &tokens, adapted.max_length);
        let remark = if trained_on.is_some() && !test { ": measured on texts that it was trained on" } else { "" };
        Ok((tokens, remark))
    }
}

/// Prints the result of one model, or those of several as `{"adapters": […]}`.
pub(super) fn say_one_or_all(mut results: Vec<Value>) -> Result<()> {
    match results.len() {
        1 => say_json(&results.remove(0)),
        _ => say_json(&json!({ "adapters": results })),
    }
}
