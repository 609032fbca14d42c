//! The parts of labelled data: training texts, held-out texts, and test texts.

use super::common::limited;
use super::notes::{note, warning};
use super::training_args::TrainingArgs;
use lowrank::data::{Dataset, Encoded, Found, Labels, Split, Tokenized, WordPiece, data_hash, find, sibling_split, text_key};
use lowrank::lora::TrainedOn;
use lowrank::text::thousands;
use lowrank::{Error, Result};
use std::path::{Path, PathBuf};

/// Default share of the texts that is held out for the test.
const TEST_FRACTION: f64 = 0.2;

/// The seed of the part that is held out: one for all runs, so that their figures can be compared.
const HELD_OUT_SEED: u64 = 0;

/// The rest of `data`, and the test part.
fn split<T: Default>(fraction: f64, data: Dataset<T>, key: impl Fn(&T) -> u64) -> Result<(Dataset<T>, Dataset<T>)> {
    data.split_off("test part", fraction, HELD_OUT_SEED, key)
        .map_err(|e| Error::invalid(format!("{e}; give labelled texts to test on with --test, or another --test-fraction")))
}

/// Whether the training texts of the data set at `path`, or all it has, are what was trained on.
pub fn is_trained_on(trained_on: &TrainedOn, path: &Path) -> Result<bool> {
    Ok(find(path, Split::Train)? != Found::Missing && data_hash(path, Split::Train)? == trained_on.data)
}

/// The part of what was trained on that was held out, or else the rest.
pub fn part_of(trained_on: &TrainedOn, data: Dataset<Encoded>, test: bool) -> Result<Dataset<Encoded>> {
    let Some(fraction) = trained_on.held_out else { return Ok(data) };
    let (rest, part) = split(fraction, data, |text| text.key)?;
    Ok(if test { part } else { rest })
}

/// Reads the parts of the data of a run.
pub struct Reader<'a> {
    pub args: &'a TrainingArgs,
    /// Names of the classes, if the model has names.
    pub labels: Labels,
    pub wordpiece: &'a WordPiece,
    /// Tokens kept of a text.
    pub max_length: usize,
    /// Seed of the sample that `--train-limit` draws, and of the development part.
    pub seed: u64,
}

impl Reader<'_> {
    /// A separate data set of test texts, if there is one.
    fn test_set(&self) -> Result<Option<PathBuf>> {
        match &self.args.test {
            Some(path) => Ok(Some(path.clone())),
            None => sibling_split(&self.args.source.data, Split::Test),
        }
    }

    /// The share of the training texts that is held out for the test; `None` if the data have test texts.
    fn held_out(&self) -> Result<Option<f64>> {
        let none = self.test_set()?.is_none() && find(&self.args.source.data, Split::Test)? != Found::There;
        match self.args.test_fraction {
            Some(_) if !none => Err(Error::invalid("--test-fraction is for data without a test split: here are texts to test on")),
            fraction => Ok(none.then_some(fraction.unwrap_or(TEST_FRACTION))),
        }
    }

    /// Identifies the training texts, for later measurements.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn trained_on(&self) -> Result<TrainedOn> {
        Ok(TrainedOn { data: data_hash(&self.args.source.data, Split::Train)?, held_out: self.held_out()? })
    }

    /// The training texts. If `dev_fraction` is above 0 they are split: `dev` selects the held-out part, else the rest.
    fn training(&self, dev_fraction: f64, dev: bool) -> Result<Tokenized> {
        let held_out = self.held_out()?;
        let selection = format!("rest {held_out:?} limit {:?} dev {dev_fraction} seed {} {dev}", self.args.train_limit, self.seed);
        self.tokens(&self.args.source.data, Split::Train, &self.labels, &selection, |data| {
            let data = match held_out {
                Some(fraction) => split(fraction, data, |text| text.key)?.0,
                None => data,
            };
            let data = limited(data, self.args.train_limit, self.seed)?;
            if dev_fraction == 0.0 {
                return Ok(data);
            }
            let (rest, part) = data.split_off("development split", dev_fraction, self.seed, |text| text.key)?;
            Ok(if dev { part } else { rest })
        })
    }

    /// Training and test texts.
    ///
    /// # Errors
    /// If a file is missing or wrong, or the training texts have only one class.
    pub fn train_and_test(&self, dev_fraction: f64) -> Result<(Tokenized, Tokenized)> {
        let train = self.training(dev_fraction, false)?;
        let counts = train.class_counts();
        if let ([one], true) = (&present(&train)[..], train.label_names.len() > 1) {
            let problem = format!("all {} texts to train on have the label {one:?}: there is nothing to learn", train.len());
            return Err(Error::file(&self.args.source.data, "labels", problem));
        }
        if train.label_names.len() < 2 {
            let problem = format!("all texts have the label {:?}: there is nothing to learn", train.label_names.concat());
            return Err(Error::file(&self.args.source.data, "labels", problem));
        }
        let test = self.test_texts(&train)?;
        note!("classes: {}", list(&train.label_names, &counts));
        for (name, _) in train.label_names.iter().zip(&counts).filter(|(_, count)| **count == 0) {
            warning!("no text to train on has the label {name:?}");
        }
        if let Some(share) = self.held_out()? {
            let of = self.args.source.data.display();
            note!("{of} has no test split: {share} of its different texts of each class are held out to test on, the same in every run");
        }
        self.tell("training", &train, None);
        self.tell("test", &test, Some(&train));
        Ok((train, test))
    }

    /// Texts to measure after each epoch: those at `dev`, else a share of the training texts, else the validation split; `None` if there are none.
    ///
    /// # Errors
    /// If a file is missing or wrong.
    pub fn dev(&self, dev: Option<&Path>, dev_fraction: f64, train: &Tokenized, test: &Tokenized) -> Result<Option<Tokenized>> {
        let labels = self.as_in(train);
        let beside = if dev.is_none() && dev_fraction == 0.0 { sibling_split(&self.args.source.data, Split::Validation)? } else { None };
        let part = match dev.or(beside.as_deref()) {
            Some(path) => self.tokens(path, Split::Validation, &labels, "", Ok)?,
            None if dev_fraction > 0.0 => self.training(dev_fraction, true)?,
            None if find(&self.args.source.data, Split::Validation)? == Found::There => {
                self.tokens(&self.args.source.data, Split::Validation, &labels, "", Ok)?
            }
            None => return Ok(None),
        };
        self.tell("held-out", &part, Some(train));
        note!("{} of them also stand among the test texts", thousands(part.shared_with(test)));
        Ok(Some(part))
    }

    /// Path and split of the test texts, and the held-out share if they are a part of the training texts.
    fn test_place(&self) -> Result<(PathBuf, Split, Option<f64>)> {
        let held_out = self.held_out()?;
        let split = if held_out.is_some() { Split::Train } else { Split::Test };
        Ok((self.test_set()?.unwrap_or(self.args.source.data.clone()), split, held_out))
    }

    fn test_texts(&self, train: &Tokenized) -> Result<Tokenized> {
        let (labels, (path, split, held_out)) = (self.as_in(train), self.test_place()?);
        // Seed 0 always, so that the test sample does not depend on the seed of training.
        let selection = format!("part {held_out:?} limit {:?} seed 0", self.args.test_limit);
        self.tokens(&path, split, &labels, &selection, |data| self.select_test(data, held_out, |text| text.key))
    }

    /// The test texts as strings.
    ///
    /// # Errors
    /// As [`Reader::train_and_test`].
    pub fn texts(&self, train: &Tokenized) -> Result<Vec<String>> {
        let (labels, (path, split, held_out)) = (self.as_in(train), self.test_place()?);
        Ok(self.select_test(self.args.source.load(&path, split, &labels)?, held_out, |text| text_key(text))?.texts)
    }

    fn select_test<T: Default>(&self, data: Dataset<T>, held_out: Option<f64>, key: impl Fn(&T) -> u64) -> Result<Dataset<T>> {
        let part = match held_out {
            Some(fraction) => split(fraction, data, key)?.1,
            None => data,
        };
        limited(part, self.args.test_limit, 0)
    }

    /// The labels, with the classes in the order of the training texts.
    fn as_in(&self, train: &Tokenized) -> Labels {
        Labels { names: Some(train.label_names.clone()), ..self.labels.clone() }
    }

    fn tokens(
        &self,
        path: &Path,
        split: Split,
        labels: &Labels,
        selection: &str,
        select: impl FnOnce(Dataset<Encoded>) -> Result<Dataset<Encoded>>,
    ) -> Result<Tokenized> {
        self.args.source.tokens((path, split), labels, self.wordpiece, self.max_length, selection, select)
    }

    /// Warns about odd texts of a part, and says how many are also training texts.
    fn tell(&self, name: &str, part: &Tokenized, train: Option<&Tokenized>) {
        tell(name, part, self.max_length);
        if let Some(train) = train {
            let shared = thousands(part.shared_with(train));
            note!("{shared} of the {} {name} texts also stand, word for word, among the training texts", thousands(part.len()));
        }
    }
}

/// Says how many texts of a part are empty, truncated, or not decodable.
pub fn tell(name: &str, part: &Tokenized, max_length: usize) {
    let (of, odd) = (thousands(part.len()), part.oddities);
    if odd.empty > 0 {
        warning!("{} of the {of} {name} texts are empty", thousands(odd.empty));
    }
    if odd.cut > 0 {
        note!("{} of the {of} {name} texts are longer than {max_length} tokens, and are cut there", thousands(odd.cut));
    }
    if odd.lossy > 0 {
        warning!("{} of the texts had bytes that could not be decoded; they became replacement characters", thousands(odd.lossy));
    }
}

/// The labels that occur.
fn present(data: &Tokenized) -> Vec<&str> {
    data.label_names.iter().zip(data.class_counts()).filter(|(_, count)| *count > 0).map(|(name, _)| name.as_str()).collect()
}

/// Counts by class: `negative 400, positive 380`.
fn list(names: &[String], counts: &[usize]) -> String {
    names.iter().zip(counts).map(|(name, count)| format!("{name} {}", thousands(*count))).collect::<Vec<_>>().join(", ")
}
