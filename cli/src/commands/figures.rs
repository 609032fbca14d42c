//! Figures of a part of the data, by the kind of its labels.

use super::common::describe;
use super::in_words::{self, of_class, percent, perhaps, plain};
use lowrank::Result;
use lowrank::data::Tokenized;
use lowrank::metrics::{Estimate, LabelMetrics, Metric, Metrics, NumberMetrics};
use lowrank::nn::Outputs;
use lowrank::text::thousands;
use lowrank::train::{Evaluation, LabelsFound, NumberErrors, labels_found, measure, number_errors};
use serde::Serialize;

/// The meaning of the labels of tokenised texts.
pub fn outputs(data: &Tokenized) -> Outputs {
    data.targets.as_ref().map_or(Outputs::Classes, |targets| targets.outputs)
}

/// The threshold of each label: those chosen, or 1/2.
fn cut(thresholds: Option<&[f64]>, data: &Tokenized) -> Vec<f64> {
    thresholds.map_or_else(|| vec![0.5; data.label_names.len()], <[f64]>::to_vec)
}

/// The figures that each epoch has.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Figures {
    Classes(Evaluation),
    Labels(LabelsFound),
    Numbers(NumberErrors),
}

impl Figures {
    /// Of scores `[N][C]`. `thresholds`: the chosen ones, if there are some.
    ///
    /// # Errors
    /// If a score is not finite, or a label is not a class.
    pub fn of(data: &Tokenized, scores: &[Vec<f64>], thresholds: Option<&[f64]>) -> Result<Figures> {
        Ok(match outputs(data) {
            Outputs::Classes => Figures::Classes(measure(scores, &data.labels)?.0),
            Outputs::Labels => Figures::Labels(labels_found(scores, &data.wanted(), &cut(thresholds, data))),
            Outputs::Numbers => Figures::Numbers(number_errors(scores, &data.wanted())),
        })
    }

    /// The loss that training minimises.
    pub fn loss(&self) -> f64 {
        match self {
            Figures::Classes(e) => e.loss,
            Figures::Labels(e) => e.loss,
            Figures::Numbers(e) => e.mean_squared_error,
        }
    }

    /// The figure by which epochs are chosen; NaN if it is not defined.
    pub fn value(&self, metric: Metric, data: &Tokenized, scores: &[Vec<f64>]) -> f64 {
        let value = match self {
            Figures::Classes(e) => metric.of(scores, &data.labels, e.loss),
            _ => metric.of_targets(outputs(data), scores, &data.wanted(), self.loss()),
        };
        value.unwrap_or(f64::NAN)
    }

    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Figures::Classes(e) => describe(e),
            Figures::Labels(e) => {
                let [all, low, high, each] = [e.accuracy, e.interval.0, e.interval.1, e.label_accuracy].map(|x| 100.0 * x);
                let texts = thousands(e.examples);
                format!(
                    "all labels right {all:.2} % ({low:.2}–{high:.2}), each label right {each:.2} % on {texts} texts, loss {:.4}",
                    e.loss
                )
            }
            Figures::Numbers(e) => format!(
                "mean squared error {:.4}, mean absolute error {:.4} on {} texts",
                e.mean_squared_error,
                e.mean_absolute_error,
                thousands(e.examples)
            ),
        }
    }
}

/// All figures, with their intervals.
#[derive(Serialize)]
#[serde(untagged)]
// There is one for each process, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub enum AllFigures {
    Classes(Metrics),
    Labels(LabelMetrics),
    Numbers(NumberMetrics),
}

impl AllFigures {
    /// Of scores `[N][C]`.
    ///
    /// # Errors
    /// As [`Figures::of`], and if there are several numbers for each text.
    pub fn of(data: &Tokenized, scores: &[Vec<f64>], thresholds: Option<&[f64]>) -> Result<AllFigures> {
        Ok(match outputs(data) {
            Outputs::Classes => AllFigures::Classes(Metrics::new(scores, &data.labels)?),
            Outputs::Labels => AllFigures::Labels(LabelMetrics::new(scores, &data.wanted(), &cut(thresholds, data))?),
            Outputs::Numbers => AllFigures::Numbers(NumberMetrics::new(scores, &data.wanted())?),
        })
    }

    /// Names and values of the figures of all outputs together.
    pub fn overall(&self) -> Vec<(&'static str, String)> {
        match self {
            AllFigures::Classes(metrics) => in_words::overall(metrics),
            AllFigures::Labels(m) => vec![
                ("all labels right", percent(&m.accuracy)),
                ("micro F1", percent(&m.micro_f1)),
                ("macro F1", percent(&m.macro_f1)),
                ("ROC-AUC", perhaps(&m.roc_auc)),
                ("average precision", plain(&m.average_precision)),
            ],
            AllFigures::Numbers(m) => {
                let number = |e: &Estimate| format!("{:.4} ({:.4}–{:.4})", e.value, e.interval.0, e.interval.1);
                vec![
                    ("mean squared error", number(&m.mean_squared_error)),
                    ("mean absolute error", number(&m.mean_absolute_error)),
                    ("Pearson", perhaps(&m.pearson)),
                    ("Spearman", perhaps(&m.spearman)),
                    ("R²", perhaps(&m.r2)),
                ]
            }
        }
    }

    /// Names and values of the figures of each label; none for numbers.
    pub fn of_labels(&self) -> Vec<Vec<(&'static str, String)>> {
        match self {
            AllFigures::Classes(metrics) => metrics.classes.iter().map(of_class).collect(),
            AllFigures::Labels(m) => {
                let one = |(class, t): (_, &f64)| std::iter::once(("threshold", format!("{t:.3}"))).chain(of_class(class)).collect();
                m.classes.iter().zip(&m.thresholds).map(one).collect()
            }
            AllFigures::Numbers(_) => Vec::new(),
        }
    }

    /// A line for all outputs and one for each label. The accuracy of classes is left out: [`Figures::describe`] has it.
    pub fn lines(&self, names: &[String]) -> Vec<String> {
        let line =
            |figures: &[(&str, String)]| figures.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ");
        let said = usize::from(matches!(self, AllFigures::Classes(_)));
        let of = |(name, figures): (&String, &Vec<(&'static str, String)>)| format!("{name}: {}", line(figures));
        std::iter::once(line(&self.overall()[said..])).chain(names.iter().zip(&self.of_labels()).map(of)).collect()
    }

    /// How the intervals were computed.
    pub fn of_intervals(&self) -> String {
        match self {
            AllFigures::Classes(metrics) => in_words::of_intervals(metrics),
            AllFigures::Labels(LabelMetrics { resamples, .. }) => format!(
                "Intervals are 95 %: Wilson's for the share of texts, precision and recall, else of a bootstrap with {} resamples of the texts.",
                thousands(*resamples)
            ),
            AllFigures::Numbers(NumberMetrics { resamples, .. }) => {
                format!("Intervals are 95 %, of a bootstrap with {} resamples of the texts.", thousands(*resamples))
            }
        }
    }
}
