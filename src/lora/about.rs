//! `lowrank.json`, next to an adapter or a checkpoint: the facts that PEFT's files do not have.

use crate::cut::{Cut, SHORTEST};
use crate::files::{is_there, read_text, write_file};
use crate::nn::{Config, DistilBert, Outputs, in_head};
use crate::outputs::TEMPERATURES;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The version of the file's format that is written, and the newest that can be read.
const FORMAT: u64 = 1;

fn first_format() -> u64 {
    1
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Content of `lowrank.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Version of the format. A newer one than this crate knows is refused.
    #[serde(default = "first_format")]
    pub format: u64,
    /// Version of the crate that wrote the file.
    pub lowrank: String,
    /// Names of the classes: `[C]`.
    pub labels: Vec<String>,
    /// How long texts were cut: `max_length`, and if they were asked for `truncate` and `windows`.
    #[serde(flatten)]
    pub cut: Cut,
    /// Names and shapes of the base's encoder weights.
    pub base: BTreeMap<String, Vec<usize>>,
    /// Settings of the base that change its results and leave its weights as they are. Old files lack them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_settings: Option<BaseSettings>,
    /// Hash of the base's encoder: `nn::fingerprint`. Old files lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<String>,
    /// Seed of the run.
    pub seed: u64,
    /// The training data. Old files lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_on: Option<TrainedOn>,
    /// What the outputs mean, in transformers' words, if they are no classes: see [`Outputs::problem_type`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<String>,
    /// The probability from which each of several labels is answered, if it was chosen on held-out texts: `[C]`, see
    /// [`thresholds`](crate::metrics::thresholds()).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f64>>,
    /// Whether each example was a pair of texts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pairs: bool,
    /// Name of the column with the second text of each pair, in the table that was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair_column: Option<String>,
    /// What the logits are divided by before the softmax, if it was found on held-out texts: [`temperature`](crate::metrics::temperature()).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The command line of the run.
    pub command: Vec<String>,
}

/// Settings in a base's `config.json` that change its results and that neither the hash nor the shapes of its weights show.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaseSettings {
    /// H, the number of attention heads.
    pub n_heads: usize,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
}

impl BaseSettings {
    /// Those of `config`.
    pub fn of(config: &Config) -> BaseSettings {
        BaseSettings { n_heads: config.n_heads, layer_norm_eps: config.layer_norm_eps }
    }
}

/// The training data of a model, by their hash. A later evaluation can tell whether it uses other texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// SHA-256 of the files with the training texts.
    pub data: String,
    /// Share of these texts that was held out for the test. The same part can be held out again.
    pub held_out: Option<f64>,
}

impl About {
    /// Describes a run of this process.
    pub fn new(model: &DistilBert, labels: &[String], cut: impl Into<Cut>, seed: u64) -> About {
        let encoder = model.weights().into_iter().filter(|w| !in_head(w.name()));
        About {
            format: FORMAT,
            lowrank: env!("CARGO_PKG_VERSION").to_string(),
            labels: labels.to_vec(),
            cut: cut.into(),
            base: encoder.map(|w| (w.name().to_string(), w.shape().dims().to_vec())).collect(),
            base_settings: Some(BaseSettings::of(&model.config)),
            base_hash: None,
            seed,
            trained_on: None,
            problem_type: None,
            thresholds: None,
            pairs: false,
            text_pair_column: None,
            temperature: None,
            command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        }
    }

    /// The meaning of the outputs.
    pub fn outputs(&self) -> Outputs {
        self.problem_type.as_deref().and_then(Outputs::named).unwrap_or_default()
    }

    /// Checks that the model in `directory`, which this describes, was trained with the settings that the base in the folder `base` has now.
    ///
    /// # Errors
    /// If not. The weights fit all the same, and the results would silently be others.
    pub fn check_settings(&self, directory: &Path, base: &Path, config: &Config) -> Result<()> {
        let now = BaseSettings::of(config);
        let Some(trained) = self.base_settings.filter(|trained| *trained != now) else { return Ok(()) };
        let problem = format!(
            "it was trained with {} heads and the epsilon {:e} in layer norms, and {} says {} and {:e}: give the base that it was trained on",
            trained.n_heads,
            trained.layer_norm_eps,
            base.join("config.json").display(),
            now.n_heads,
            now.layer_norm_eps
        );
        Err(Error::file(directory, "lowrank.json", problem))
    }

    /// Writes the file into `directory`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join("lowrank.json");
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(&path, "json", e))?;
        write_file(&path, text.as_bytes())
    }

    /// Reads the file from `directory`. `None` if it is not there: PEFT's own adapters have none.
    ///
    /// # Errors
    /// If the file is malformed, has a newer format, a temperature that is not one of [`TEMPERATURES`], or no windows.
    pub fn open(directory: &Path) -> Result<Option<About>> {
        let path = directory.join("lowrank.json");
        if !is_there(&path) {
            return Ok(None);
        }
        let json = |e| Error::file(&path, "json", e);
        // A newer format may have other fields, so its number is read first.
        let value: serde_json::Value = serde_json::from_str(&read_text(&path)?).map_err(json)?;
        if let Some(format) = value.get("format")
            && format.as_u64().is_none_or(|format| format > FORMAT)
        {
            let problem =
                format!("is {format}: written by a newer lowrank, and this one reads forms up to {FORMAT}: install the newer one");
            return Err(Error::file(&path, "\"format\"", problem));
        }
        let about: About = serde_json::from_value(value).map_err(json)?;
        if about.cut.windows == 0 {
            return Err(Error::file(&path, "\"windows\"", "is 0, and must be at least 1"));
        }
        if about.cut.max_length < SHORTEST {
            let problem = format!("is {}, and must be at least {SHORTEST}: [CLS], a token and [SEP]", about.cut.max_length);
            return Err(Error::file(&path, "\"max_length\"", problem));
        }
        if let Some(task) = about.problem_type.as_ref().filter(|task| Outputs::named(task).is_none()) {
            return Err(Error::file(&path, "\"problem_type\"", format!("is {task:?}: it must be one that transformers knows")));
        }
        if about.thresholds.as_ref().is_some_and(|all| all.len() != about.labels.len() || all.iter().any(|t| !(0.0..=1.0).contains(t))) {
            let problem = format!("must have a probability for each of the {} labels", about.labels.len());
            return Err(Error::file(&path, "\"thresholds\"", problem));
        }
        match about.temperature.filter(|t| !TEMPERATURES.contains(t)) {
            Some(t) => {
                let (least, most) = (TEMPERATURES.start(), TEMPERATURES.end());
                Err(Error::file(&path, "\"temperature\"", format!("is {t:e}, and must be from {least:e} to {most:e}")))
            }
            None => Ok(Some(about)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::testing::small_model;

    #[test]
    fn what_was_written_is_read() {
        let model = small_model(DType::F32);
        let labels = ["no".to_string(), "yes".into()];
        let about = About { temperature: Some(1.5), pairs: true, ..About::new(&model, &labels, 100, 7) };
        let folder = tempfile::tempdir().unwrap();
        assert!(About::open(folder.path()).unwrap().is_none());
        about.write(folder.path()).unwrap();
        let again = About::open(folder.path()).unwrap().unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap(), serde_json::to_value(&about).unwrap());
        assert_eq!((again.labels, again.cut.max_length, again.seed, again.temperature), (labels.to_vec(), 100, 7, Some(1.5)));
        assert_eq!(again.base["distilbert.transformer.layer.0.ffn.lin1.weight"], [16, 8]);
    }
}
