//! A text classifier: DistilBERT with its tokenizer and the names of its classes. Texts go in, classes come out.

use crate::cut::{Cut, Truncate, Windows};
use crate::data::{Dataset, Encoder, Tokenized, WordPiece};
use crate::lora::{About, Counts, Method, adapter};
use crate::metrics::Metrics;
use crate::nn::{DistilBert, Head, LoadOptions, Outputs};
use crate::train::{self, AdamW, Evaluation, Observer, Recipe};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Largest length of a text, in tokens, if the model has positions for it.
const LONGEST: usize = 512;
/// Texts that are evaluated together.
const BATCH: usize = 16;

/// A DistilBERT that classifies texts. The [prelude](crate::prelude) has an example.
pub struct TextClassifier {
    /// The network.
    pub model: DistilBert,
    /// Its tokenizer.
    pub wordpiece: WordPiece,
    /// Names of the classes: `[C]`.
    pub labels: Vec<String>,
    /// Largest length of a text, in tokens. Longer texts are cut.
    pub max_length: usize,
    /// The part of a longer text that is kept. `None`: the side that the tokenizer's files name, the head unless they say otherwise.
    pub truncate: Option<Truncate>,
    /// Largest number of windows of a text when it is measured or classified: see [`Windows`]. Training sees one window of each text.
    pub windows: usize,
    /// What the logits are divided by before the softmax: 1, or what [`TextClassifier::calibrate`] found.
    pub temperature: f64,
    /// Folder of the base checkpoint.
    base: PathBuf,
    /// What trains.
    method: Option<Method>,
    /// Seed that `save` records: that of new weights, and after `fit` that of the data's order and of dropout.
    seed: u64,
}

impl TextClassifier {
    /// Opens the checkpoint in the folder `base`, in f32, with a class for each label of `data`. If the checkpoint's head has another number of
    /// classes, the head is new, drawn with seed 0. Texts are cut to 512 tokens, or to the model's positions if these are fewer.
    ///
    /// # Errors
    /// If a file is missing or malformed, or `data` has fewer than two labels.
    pub fn open(base: impl AsRef<Path>, data: &Dataset) -> Result<TextClassifier> {
        if data.label_names.len() < 2 {
            return Err(Error::invalid(format!("all texts have the label {:?}: there is nothing to learn", data.label_names.concat())));
        }
        TextClassifier::open_with(base.as_ref(), &data.label_names, &LoadOptions { head: Head::Fitting, ..LoadOptions::default() })
    }

    /// Opens the checkpoint in the folder `base` with a class for each of `labels`, whatever `options.classes` is.
    ///
    /// # Errors
    /// If a file is missing or malformed.
    pub fn open_with(base: &Path, labels: &[String], options: &LoadOptions) -> Result<TextClassifier> {
        let (mut model, _) = DistilBert::open_with(base, &LoadOptions { classes: Some(labels.len()), ..*options })?;
        model.config.set_outputs(Outputs::Classes);
        let wordpiece = WordPiece::open(base)?;
        wordpiece.check_fits(model.config.vocab_size)?;
        let max_length = LONGEST.min(model.longest_text());
        Ok(TextClassifier {
            model,
            wordpiece,
            labels: labels.to_vec(),
            max_length,
            truncate: None,
            windows: 1,
            temperature: 1.0,
            base: base.into(),
            method: None,
            seed: options.seed,
        })
    }

    /// Opens the checkpoint in the folder `base` with the adapter in the folder `adapter`: one that [`TextClassifier::save`] or the program
    /// wrote, or one of PEFT's.
    ///
    /// # Errors
    /// If a file is missing or malformed, or the adapter was trained on another base.
    pub fn load(base: impl AsRef<Path>, adapter: impl AsRef<Path>) -> Result<TextClassifier> {
        let (base, adapter) = (base.as_ref(), adapter.as_ref());
        let (about, classes) = (About::open(adapter)?, adapter::classes(adapter)?);
        let generic = || (0..classes).map(crate::nn::generic_label).collect();
        let labels = about.as_ref().map_or_else(generic, |about| about.labels.clone());
        if labels.len() != classes {
            return Err(Error::file(adapter, "lowrank.json", format!("{} labels for a classifier of {classes} classes", labels.len())));
        }
        if let Some(task) = about.as_ref().and_then(|about| about.problem_type.as_ref()) {
            return Err(Error::file(adapter, "lowrank.json", format!("the adapter is for {task}, and a text classifier is for classes")));
        }
        let mut all = TextClassifier::open_with(base, &labels, &LoadOptions { head: Head::Fitting, ..LoadOptions::default() })?;
        if let Some(about) = about {
            about.check_settings(adapter, base, &all.model.config)?;
            let hash = all.base_hash()?;
            if about.base_hash.is_some() && hash.is_some() && about.base_hash != hash {
                let problem = format!("the adapter was trained on another base than {}", base.display());
                return Err(Error::file(adapter, "lowrank.json", problem));
            }
            (all.max_length, all.truncate, all.windows) = (about.cut.max_length, about.cut.truncate, about.cut.windows);
            (all.seed, all.temperature) = (about.seed, about.temperature.unwrap_or(1.0));
        }
        all.method = Some(adapter::load(&mut all.model, adapter)?);
        all.max_length = all.max_length.min(all.model.longest_text());
        Ok(all)
    }

    /// Chooses what trains: a [`LoraConfig`](crate::lora::LoraConfig) or another [`Method`].
    ///
    /// # Errors
    /// If a number is out of its range, or the model lacks what the method names.
    pub fn adapt(&mut self, method: impl Into<Method>) -> Result<()> {
        let method = method.into();
        method.apply(&mut self.model, self.seed)?;
        self.method = Some(method);
        self.max_length = self.max_length.min(self.model.longest_text());
        Ok(())
    }

    /// The number of trained parameters, in PEFT's words: `trainable params: … || all params: … || trainable%: …`.
    pub fn trainable(&self) -> String {
        Counts::of(&self.model).peft_line()
    }

    /// Trains on `data`.
    ///
    /// # Errors
    /// If a label is not one of the classes, and those of [`train::fit`].
    pub fn fit(&mut self, data: &Dataset, recipe: &Recipe) -> Result<()> {
        self.fit_observed(data, recipe, &mut ()).map(|_| ())
    }

    /// [`TextClassifier::fit`] with an observer, which may stop it. Returns whether the end was reached.
    ///
    /// # Errors
    /// As [`TextClassifier::fit`].
    pub fn fit_observed(&mut self, data: &Dataset, recipe: &Recipe, observer: &mut dyn Observer) -> Result<bool> {
        (self.seed, self.temperature) = (recipe.seed, 1.0);
        let tokens = self.tokens(data, self.cut().one_window())?;
        train::fit(&mut self.model, &tokens, recipe, &mut AdamW::of(recipe), observer)
    }

    /// Chooses the temperature by texts that the model was not trained on, so that the probabilities are as true as one number can make them. Answers
    /// do not change. See [`metrics::temperature`](crate::metrics::temperature()); it stays 1 if there is none.
    ///
    /// # Errors
    /// If a label is not one of the classes, and those of the model.
    pub fn calibrate(&mut self, held_out: &Dataset) -> Result<f64> {
        let tokens = self.tokens(held_out, self.cut())?;
        let logits = self.logits(&tokens.windows())?;
        self.temperature = crate::metrics::temperature(&logits, &tokens.labels)?.unwrap_or(1.0);
        Ok(self.temperature)
    }

    /// Accuracy, loss and confusion matrix on `data`.
    ///
    /// # Errors
    /// If a label is not one of the classes, and those of the model.
    pub fn evaluate(&self, data: &Dataset) -> Result<Evaluation> {
        let tokens = self.tokens(data, self.cut())?;
        Ok(train::measure(&self.probabilities(&tokens.windows())?, &tokens.labels)?.0)
    }

    /// All figures on `data`, with their intervals.
    ///
    /// # Errors
    /// If there are no texts or a label is not one of the classes, and those of the model.
    pub fn metrics(&self, data: &Dataset) -> Result<Metrics> {
        let tokens = self.tokens(data, self.cut())?;
        Metrics::new(&self.probabilities(&tokens.windows())?, &tokens.labels)
    }

    /// The probability of each class, for each text: `[N][C]`.
    ///
    /// # Errors
    /// Those of the model.
    pub fn predict(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f64>>> {
        let mut encoder = Encoder::new(&self.wordpiece);
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| encoder.encode(text.as_ref(), self.cut())).collect();
        self.probabilities(&Windows::of(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>(), self.cut().window()))
    }

    /// How texts are cut.
    fn cut(&self) -> Cut {
        Cut { max_length: self.max_length, truncate: self.truncate, windows: self.windows }
    }

    fn logits(&self, windows: &Windows) -> Result<Vec<Vec<f64>>> {
        Ok(train::mean_logits(&train::OneRank, &self.model, windows, BATCH, &mut |_| true)?.unwrap_or_default())
    }

    fn probabilities(&self, windows: &Windows) -> Result<Vec<Vec<f64>>> {
        let rows = self.logits(windows)?;
        Ok(rows.iter().map(|row| train::scores(Outputs::Classes, row, self.temperature)).collect())
    }

    /// Writes what was trained into the folder `directory`, which is created: PEFT's two files of an adapter (or, if whole layers trained, a
    /// checkpoint), and `lowrank.json` with the names of the classes.
    ///
    /// # Errors
    /// If nothing was chosen to train, a number is not finite, or a file cannot be written.
    pub fn save(&self, directory: impl AsRef<Path>) -> Result<()> {
        let directory = directory.as_ref();
        let method = self.method.as_ref().ok_or_else(|| Error::invalid("save: nothing was trained; call adapt and fit first"))?;
        std::fs::create_dir_all(directory).map_err(|e| Error::io(directory, e))?;
        adapter::save_trained(&self.model, method, &self.base, &self.base.display().to_string(), &self.labels, directory)?;
        let about = About::new(&self.model, &self.labels, self.cut(), self.seed);
        let temperature = (self.temperature != 1.0).then_some(self.temperature);
        About { base_hash: self.base_hash()?, temperature, ..about }.write(directory)
    }

    /// Hash of the base's encoder.
    #[cfg(feature = "data")]
    fn base_hash(&self) -> Result<Option<String>> {
        let file = crate::tensor::safetensors::SafeTensors::open(&self.base)?;
        crate::nn::fingerprint(&file, &self.model.config).map(Some)
    }

    #[cfg(not(feature = "data"))]
    fn base_hash(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// The tokens of `data`, with the model's number for each label.
    fn tokens(&self, data: &Dataset, cut: Cut) -> Result<Tokenized> {
        let class = |name: &String| {
            let found = self.labels.iter().position(|label| label == name);
            let problem = || format!("the label {name:?} is none of the model's classes {}", self.labels.join(", "));
            found.ok_or_else(|| Error::invalid(problem()))
        };
        let classes = data.label_names.iter().map(class).collect::<Result<Vec<usize>>>()?;
        let mut tokens = Tokenized::new(data, &self.wordpiece, cut);
        tokens.labels.iter_mut().for_each(|label| *label = classes[*label as usize] as u32);
        Ok(Tokenized { label_names: self.labels.clone(), ..tokens })
    }
}
