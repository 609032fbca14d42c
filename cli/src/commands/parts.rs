//! The parts of labelled data: training texts, held-out texts, and test texts.

use super::common::{limited, open_wordpiece};
use super::figures::outputs;
use super::notes::{note, warning};
use super::task;
use super::training_args::TrainingArgs;
use lowrank::cut::Cut;
use lowrank::data::{Dataset, Found, Labels, Split, Tokenized, WordPiece, data_hash, find, location, sibling_split, text_key};
use lowrank::lora::TrainedOn;
use lowrank::nn::{Config, Outputs};
use lowrank::text::{hex, thousands};
use lowrank::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Default share of the texts that is held out for the test.
const TEST_FRACTION: f64 = 0.2;

/// The seed of the part that is held out: one for all runs, so that their figures can be compared.
const HELD_OUT_SEED: u64 = 0;

/// The test part of `data` if the share `held_out` of it was held out, or else the rest; all of `data` if nothing was.
pub fn part_of<T: Default>(held_out: Option<f64>, data: Dataset<T>, test: bool, key: impl Fn(&T) -> u64) -> Result<Dataset<T>> {
    let Some(fraction) = held_out else { return Ok(data) };
    let hint = |e| Error::invalid(format!("{e}; give labelled texts to test on with --test, or another --test-fraction"));
    let (rest, part) = data.split_off("test part", fraction, HELD_OUT_SEED, key).map_err(hint)?;
    Ok(if test { part } else { rest })
}

/// Whether the training texts of the data set at `path`, or all it has, are what was trained on.
pub fn is_trained_on(trained_on: &TrainedOn, path: &Path) -> Result<bool> {
    Ok(find(path, Split::Train)? != Found::Missing && data_hash(path, Split::Train)? == trained_on.data)
}

/// Path and split of the texts of `split` for the data set at `data`: those at `given`, else a table beside `train.*`, else a split of the data set.
/// `None` if there are none.
///
/// # Errors
/// If there is no data set at `data`, or several tables are named after the split.
pub fn part_at(data: &Path, given: Option<&Path>, split: Split) -> Result<Option<(PathBuf, Split)>> {
    let apart = match given {
        Some(path) => Some(path.to_path_buf()),
        None => sibling_split(data, split)?,
    };
    Ok(match apart {
        Some(path) => Some((path, split)),
        None => (find(data, split)? == Found::There).then(|| (data.to_path_buf(), split)),
    })
}

/// Reads the parts of the data of a run.
pub struct Reader<'a> {
    args: &'a TrainingArgs,
    /// Names of the classes, if the model has names.
    labels: Labels,
    wordpiece: WordPiece,
    /// How texts are cut.
    cut: Cut,
    /// Seed of the sample that `--train-limit` draws, and of the development part.
    seed: u64,
    /// Path and split of the test texts.
    test: (PathBuf, Split),
    /// The share of the training texts that is held out for the test; `None` if the data have test texts.
    held_out: Option<f64>,
}

impl<'a> Reader<'a> {
    /// Opens the tokenizer and finds the test texts; reads no texts yet.
    ///
    /// # Errors
    /// If there are test texts and `--test-fraction` is given, or the tokenizer does not fit the model.
    pub fn new(args: &'a TrainingArgs, config: &Config, labels: Labels, cut: Cut, seed: u64) -> Result<Reader<'a>> {
        let wordpiece = open_wordpiece(&args.model.path, config)?;
        let data = &args.source.data;
        let test = part_at(data, args.test.as_deref(), Split::Test)?;
        if test.is_some() && args.test_fraction.is_some() {
            return Err(Error::invalid("--test-fraction is for data without a test split: here are texts to test on"));
        }
        let held_out = test.is_none().then_some(args.test_fraction.unwrap_or(TEST_FRACTION));
        Ok(Reader { args, labels, wordpiece, cut, seed, test: test.unwrap_or((data.clone(), Split::Train)), held_out })
    }

    /// Identifies the training texts, for later measurements.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn trained_on(&self) -> Result<TrainedOn> {
        Ok(TrainedOn { data: data_hash(&self.args.source.data, Split::Train)?, held_out: self.held_out })
    }

    /// The training texts. If `dev_fraction` is above 0 they are split: `dev` selects the held-out part, else the rest.
    fn training(&self, dev_fraction: f64, dev: bool) -> Result<Tokenized> {
        let (args, limit, held_out) = (self.args, self.args.train_limit, self.held_out);
        let selection = format!("rest {held_out:?} limit {limit:?} dev {dev_fraction} seed {} {dev}", self.seed);
        // Only texts that are measured may have several windows.
        let cut = if dev { self.cut } else { self.cut.one_window() };
        args.cache.tokens((&args.source, &args.source.data, Split::Train), &self.labels, &self.wordpiece, cut, &selection, |data| {
            self.select_training(data, dev_fraction, dev, |text| text.key)
        })
    }

    fn select_training<T: Default>(&self, data: Dataset<T>, dev_fraction: f64, dev: bool, key: impl Fn(&T) -> u64) -> Result<Dataset<T>> {
        let data = limited(part_of(self.held_out, data, false, &key)?, self.args.train_limit, self.seed)?;
        if dev_fraction == 0.0 {
            return Ok(data);
        }
        let (rest, part) = data.split_off("development split", dev_fraction, self.seed, key)?;
        Ok(if dev { part } else { rest })
    }

    /// The file or folder of the training texts, and the texts as strings.
    ///
    /// # Errors
    /// As [`Reader::train_and_test`].
    pub fn training_texts(&self, dev_fraction: f64) -> Result<(PathBuf, Dataset)> {
        let path = &self.args.source.data;
        let data = self.args.source.load(path, Split::Train, &self.labels)?;
        let file = location(path, Split::Train).unwrap_or_else(|| path.clone());
        Ok((file, self.select_training(data, dev_fraction, false, |text| text_key(text))?))
    }

    /// Training and test texts.
    ///
    /// # Errors
    /// If a file is missing or wrong, or the training texts have only one class.
    pub fn train_and_test(&self, dev_fraction: f64) -> Result<(Tokenized, Tokenized)> {
        let train = self.training(dev_fraction, false)?;
        let classes: Vec<(&String, usize)> = train.label_names.iter().zip(train.class_counts()).collect();
        let present: Vec<&String> = classes.iter().filter(|(_, count)| *count > 0).map(|(name, _)| *name).collect();
        let only = match (&present[..], classes.len()) {
            ([one], 2..) => Some(format!("all {} texts to train on have the label {one:?}", train.len())),
            (_, 0 | 1) => Some(format!("all texts have the label {:?}", train.label_names.concat())),
            _ => None,
        };
        let only = if train.targets.is_some() { task::nothing_to_learn(&train) } else { only };
        if let Some(only) = only {
            return Err(Error::file(&self.args.source.data, "labels", format!("{only}: there is nothing to learn")));
        }
        let test = self.test_texts(&train)?;
        let counts: Vec<String> = classes.iter().map(|(name, count)| format!("{name} {}", thousands(*count))).collect();
        note!("{}", task::in_words(&train).unwrap_or_else(|| format!("classes: {}", counts.join(", "))));
        let numbers = outputs(&train) == Outputs::Numbers;
        for (name, _) in classes.iter().filter(|(_, count)| *count == 0 && !numbers) {
            warning!("no text to train on has the label {name:?}");
        }
        if let Some(share) = self.held_out {
            let of = self.args.source.data.display();
            let each = if train.targets.is_none() { " of each class" } else { "" };
            note!("{of} has no test split: {share} of its different texts{each} are held out to test on, the same in every run");
        }
        note!("{} reviews to train on ({} tokens), {} to test", train.len(), thousands(train.tokens()), test.len());
        tell("training", &train, self.cut.one_window());
        self.tell("test", &test, &train);
        Ok((train, test))
    }

    /// Texts to measure after each epoch: those at `dev`, else a share of the training texts, else the validation split; `None` if there are none.
    ///
    /// # Errors
    /// If a file is missing or wrong.
    pub fn dev(&self, dev: Option<&Path>, dev_fraction: f64, train: &Tokenized, test: &Tokenized) -> Result<Option<Tokenized>> {
        let TrainingArgs { source, cache, .. } = self.args;
        let part = if dev_fraction > 0.0 {
            self.training(dev_fraction, true)?
        } else {
            let Some((path, split)) = part_at(&source.data, dev, Split::Validation)? else { return Ok(None) };
            cache.tokens((source, &path, split), &self.as_in(train), &self.wordpiece, self.cut, "", Ok)?
        };
        self.tell("held-out", &part, train);
        note!("{} of them also stand among the test texts", thousands(part.shared_with(test)));
        Ok(Some(part))
    }

    fn test_texts(&self, train: &Tokenized) -> Result<Tokenized> {
        let (path, split) = &self.test;
        // Seed 0 always, so that the test sample does not depend on the seed of training.
        let selection = format!("part {:?} limit {:?} seed 0", self.held_out, self.args.test_limit);
        self.args.cache.tokens((&self.args.source, path, *split), &self.as_in(train), &self.wordpiece, self.cut, &selection, |data| {
            self.select_test(data, |text| text.key)
        })
    }

    /// The test texts as strings, those of the tokens `test`, for the report of a run that is over. The two texts of a pair are joined by an empty line. Data that
    /// cannot be read any more, or were changed, do not lose the run: then there is a warning and no text.
    pub fn texts(&self, train: &Tokenized, test: &Tokenized) -> Vec<String> {
        self.same_texts(train, test).unwrap_or_else(|e| {
            warning!("the report shows no texts: {e}");
            Vec::new()
        })
    }

    fn same_texts(&self, train: &Tokenized, test: &Tokenized) -> Result<Vec<String>> {
        let (path, split) = &self.test;
        let data = self.select_test(self.args.source.load(path, *split, &self.as_in(train))?, |text| text_key(text))?;
        if data.keys() != test.keys {
            return Err(Error::file(path, "data set", "was changed since it was read"));
        }
        Ok((0..data.len()).map(|i| data.whole_text(i).into_owned()).collect())
    }

    fn select_test<T: Default>(&self, data: Dataset<T>, key: impl Fn(&T) -> u64) -> Result<Dataset<T>> {
        limited(part_of(self.held_out, data, true, key)?, self.args.test_limit, 0)
    }

    /// The labels, with the classes in the order of the training texts.
    fn as_in(&self, train: &Tokenized) -> Labels {
        Labels { names: Some(train.label_names.clone()), ..self.labels.clone() }
    }

    /// Warns about odd texts of a part that is measured, and says how many are also training texts.
    fn tell(&self, name: &str, part: &Tokenized, train: &Tokenized) {
        tell(name, part, self.cut);
        let shared = thousands(part.shared_with(train));
        note!("{shared} of the {} {name} texts also stand, word for word, among the training texts", thousands(part.len()));
    }
}

/// Says how many texts of a part are empty, truncated, or not decodable.
pub fn tell(name: &str, part: &Tokenized, cut: Cut) {
    let (of, odd) = (thousands(part.len()), part.oddities);
    let check = match outputs(part) {
        Outputs::Classes => "lowrank data check".to_string(),
        other => format!("lowrank data check --task {}", task::name(other)),
    };
    if odd.empty > 0 {
        warning!("{} of the {of} {name} texts are empty: {check} names them", thousands(odd.empty));
    }
    let contradictory = part.contradictory();
    if contradictory > 0 {
        warning!("{} of the {of} {name} texts also stand there with another label: {check} names them", thousands(contradictory));
    }
    if odd.cut > 0 {
        let share = 100.0 * odd.cut as f64 / part.len() as f64;
        note!("{} of the {of} {name} texts are {} ({share:.1} %)", thousands(odd.cut), cut.in_words());
    }
    if odd.lossy > 0 {
        warning!(
            "{} of the texts had bytes that could not be decoded; they became replacement characters: {check} names them",
            thousands(odd.lossy)
        );
    }
}

/// SHA-256 of the ids, labels and offsets of a part, of where the second texts of pairs begin, and of what labels mean that are no classes.
pub fn digest(data: &Tokenized) -> String {
    let mut hash = Sha256::new();
    data.ids.iter().chain(&data.labels).for_each(|id| hash.update(id.to_le_bytes()));
    data.targets.iter().flat_map(|targets| targets.rows.iter().flatten()).for_each(|y| hash.update(y.to_le_bytes()));
    data.offsets.iter().chain(&data.seconds).for_each(|offset| hash.update((*offset as u64).to_le_bytes()));
    hex(&hash.finalize())
}
