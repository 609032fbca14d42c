//! Models for inference: a base with adapters.

use super::base::{check_same, checked};
use super::common::{Checkpoint, ComputeType, check_length, open_wordpiece, parsed, user_cache};
use super::cut_args::CutArgs;
use super::device::{DeviceArgs, DeviceChoice};
use super::notes::warning;
use super::output::Input;
use crate::hub::Hub;
use clap::Args;
use lowrank::cut::Cut;
use lowrank::data::WordPiece;
use lowrank::lora::{About, adapter, truncate};
use lowrank::nn::{DistilBert, Head, LoadOptions, Outputs, generic_label};
use lowrank::text::repeated;
use lowrank::train::scores;
use lowrank::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments that select a model for inference.
#[derive(Args)]
pub struct AdaptedArgs {
    /// Folder of the base checkpoint or of a checkpoint with a trained head, or the name of a fetched model
    #[arg(long, value_name = "DIR|NAME")]
    model: Checkpoint,
    /// Folder of the adapter, or the name of a fetched one (owner/name, perhaps with @revision); not needed if the checkpoint has a trained head.
    /// Several adapters share one base in memory
    #[arg(long, value_name = "[NAME=]DIR|NAME", value_parser = parsed(named))]
    adapter: Vec<Named>,
    /// Use only the first N ranks of each low-rank term; for adapters trained with --method dylora
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// Accept an adapter that was trained on another base of the same shapes
    #[arg(long)]
    any_base: bool,
    /// Only warn if the files of an adapter do not fit together, and load what can be loaded
    #[arg(long)]
    lenient: bool,
    /// The probabilities of the model itself, without the temperature, and labels from 1/2 on, without the thresholds, that were found on held-out texts
    #[arg(long)]
    raw: bool,
    /// Tokens kept of each text [default: as in training]
    #[arg(long)]
    max_length: Option<usize>,
    #[command(flatten)]
    long: CutArgs,
    /// Data type of the computation
    #[arg(long, value_enum, default_value_t = ComputeType::F32)]
    dtype: ComputeType,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The folder of an adapter, with the name that the user gave it.
#[derive(Clone)]
pub struct Named {
    pub name: Option<String>,
    /// The folder or the name on the hub, as given.
    pub given: String,
    pub directory: PathBuf,
}

/// Parses `NAME=DIR`, or a folder whose name may contain a `=`. A folder that is not there may be the name of a fetched adapter.
pub fn named(text: OsString) -> Result<Named> {
    let parts = text.to_str().and_then(|text| text.split_once('=')).filter(|(name, _)| !name.is_empty() && !name.contains(['/', '\\']));
    let (name, given) = match parts {
        Some((name, given)) if !Path::new(&text).exists() => (Some(name.to_string()), PathBuf::from(given)),
        _ => (None, PathBuf::from(&text)),
    };
    let directory = if given.exists() { given.clone() } else { Hub::from_env()?.adapter_path(&given)? };
    Ok(Named { name, given: given.display().to_string(), directory })
}

/// An adapted model, ready for inference.
pub struct Adapted {
    /// Name of the adapter, or its folder if it has no name.
    pub name: String,
    pub model: DistilBert,
    /// Hash of the base.
    pub base_hash: String,
    pub wordpiece: Arc<WordPiece>,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Meaning of the logits.
    pub outputs: Outputs,
    /// What the logits of classes are divided by: 1, or what training found on held-out texts.
    pub temperature: f64,
    /// Content of `lowrank.json`. Adapters from PEFT and checkpoints from elsewhere have none.
    pub about: Option<About>,
    /// How texts are cut.
    pub cut: Cut,
    /// The probability from which each of several labels is answered: the one that training chose, or 1/2: `[C]`.
    pub thresholds: Vec<f64>,
}

impl Adapted {
    /// Whether the classes have only generic names, so that `--labels` may name them.
    pub fn is_unnamed(&self) -> bool {
        self.labels.iter().enumerate().all(|(i, name)| *name == generic_label(i))
    }

    /// The labels whose probability `[C]` reaches their threshold.
    pub fn answered(&self, row: &[f64]) -> Vec<&str> {
        let all = self.labels.iter().zip(row).zip(&self.thresholds);
        all.filter(|((_, p), t)| p >= t).map(|((label, _), _)| label.as_str()).collect()
    }

    /// The scores of rows of logits `[N][C]`.
    pub fn scores(&self, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        rows.iter().map(|row| scores(self.outputs, row, self.temperature)).collect()
    }
}

impl AdaptedArgs {
    /// The folders that are read.
    pub fn inputs(&self) -> Vec<Input> {
        let adapters = self.adapter.iter().map(|named| Input::Model("the adapter", named.directory.clone()));
        std::iter::once(Input::Model("the model", self.model.path.clone())).chain(adapters).collect()
    }

    /// f32 models on the CPU.
    pub fn on_cpu(model: Checkpoint, adapter: Vec<Named>, any_base: bool) -> AdaptedArgs {
        let device = DeviceArgs { device: DeviceChoice::Cpu };
        AdaptedArgs {
            model,
            adapter,
            rank: None,
            any_base,
            lenient: false,
            raw: false,
            max_length: None,
            long: CutArgs::default(),
            dtype: ComputeType::F32,
            device,
        }
    }

    /// Folder of the base.
    #[cfg(feature = "serve")]
    pub fn base(&self) -> &Path {
        &self.model.path
    }

    /// Data type of the computation.
    #[cfg(feature = "serve")]
    pub fn dtype(&self) -> String {
        lowrank::tensor::DType::from(self.dtype).to_string().to_lowercase()
    }

    /// Opens one model for each adapter; all share one base. Without adapters, opens a checkpoint with its own head. The hash of the base is kept
    /// in `cache`.
    pub fn open(&self, cache: Option<&Path>) -> Result<Vec<Adapted>> {
        let hash = checked(&self.model.path, cache)?;
        let mut all = match self.adapter.first() {
            Some(first) => self.open_adapters(adapter::classes(&first.directory)?, &hash)?,
            None => vec![self.open_whole(hash)?],
        };
        for adapted in &mut all {
            if let Some(rank) = self.rank {
                truncate(&mut adapted.model, rank)?;
            }
            // Moves the adapter's weights; a shared base is on the device already.
            self.device.place(&mut adapted.model)?;
        }
        Ok(all)
    }

    /// Loads the base with a head of `classes`, and shares it between models with one adapter each.
    fn open_adapters(&self, classes: usize, hash: &str) -> Result<Vec<Adapted>> {
        let base = &self.model.path;
        // Each adapter brings a head of its own.
        let options = LoadOptions { classes: Some(classes), dtype: self.dtype.into(), head: Head::Fitting, ..LoadOptions::default() };
        let mut shared = DistilBert::open_with(base, &options)?.0;
        self.device.place(&mut shared)?;
        let wordpiece = Arc::new(open_wordpiece(base, &shared.config)?);
        let open = |named: &Named| {
            let directory = &named.directory;
            let (about, classes) = (About::open(directory)?, adapter::classes(directory)?);
            let mut model = shared.share(classes)?;
            if let Some(about) = &about {
                check_base(about, &model, classes, directory, base)?;
                if !self.any_base {
                    check_same(about, directory, (base, &model.config), hash)?;
                }
            }
            let warnings = adapter::load_with(&mut model, directory, self.lenient)?.1;
            warnings.iter().for_each(|warning| warning!("{}: {warning}", directory.display()));
            // Without lowrank.json (PEFT): names and kind of head come from the base.
            let of_base = || match shared.config.labels() {
                labels if labels.len() == classes => labels,
                _ => (0..classes).map(generic_label).collect(),
            };
            let labels = about.as_ref().map_or_else(of_base, |about| about.labels.clone());
            check_names(&labels, base, "config.json", "id2label")?;
            let outputs = about.as_ref().map_or_else(|| shared.config.outputs(classes), About::outputs);
            model.config.set_outputs(outputs);
            let name = named.name.as_ref().unwrap_or(&named.given).clone();
            self.adapted(name, model, (labels, outputs), about, (hash.to_string(), wordpiece.clone()))
        };
        self.adapter.iter().map(open).collect()
    }

    /// Loads a checkpoint with its own head.
    fn open_whole(&self, base_hash: String) -> Result<Adapted> {
        let base = &self.model.path;
        let (model, report) = DistilBert::open_with(base, &LoadOptions { dtype: self.dtype.into(), ..LoadOptions::default() })?;
        if let Some(name) = report.initialised.first() {
            let problem = "is missing: the checkpoint has no trained head; give an adapter with --adapter";
            return Err(Error::file(base, format!("tensor {name:?}"), problem));
        }
        let (labels, about) = (model.config.labels(), About::open(base)?);
        check_names(&labels, base, "config.json", "id2label")?;
        about.iter().try_for_each(|about| about.check_settings(base, base, &model.config))?;
        let outputs = model.config.outputs(labels.len());
        let wordpiece = Arc::new(open_wordpiece(base, &model.config)?);
        self.adapted(base.display().to_string(), model, (labels, outputs), about, (base_hash, wordpiece))
    }

    /// A loaded model with the numbers that go with it: those of training, or what the arguments say.
    fn adapted(
        &self,
        name: String,
        model: DistilBert,
        (labels, outputs): (Vec<String>, Outputs),
        about: Option<About>,
        (base_hash, wordpiece): (String, Arc<WordPiece>),
    ) -> Result<Adapted> {
        let cut = self.cut(&model, about.as_ref())?;
        let known = about.as_ref().filter(|_| !self.raw);
        let temperature = known.and_then(|about| about.temperature).unwrap_or(1.0);
        let thresholds = known.and_then(|about| about.thresholds.clone()).unwrap_or_else(|| vec![0.5; labels.len()]);
        Ok(Adapted { name, model, base_hash, wordpiece, labels, outputs, temperature, about, cut, thresholds })
    }

    /// How texts are cut: as the arguments say, else as in training. If that is not known, to the number of positions that the model has for a text.
    fn cut(&self, model: &DistilBert, about: Option<&About>) -> Result<Cut> {
        let (longest, trained) = (model.longest_text(), about.map(|about| about.cut));
        let max_length = check_length(self.max_length.or(trained.map(|cut| cut.max_length)).unwrap_or(longest), longest)?;
        Ok(self.long.cut(max_length, trained))
    }
}

/// A base whose adapters a command changes.
#[derive(Args)]
pub struct BaseArgs {
    /// Folder of the base checkpoint, or the name of a fetched model
    #[arg(long, value_name = "DIR|NAME")]
    pub model: Checkpoint,
    /// Accept adapters that were trained on another base of the same shapes
    #[arg(long)]
    any_base: bool,
}

impl BaseArgs {
    /// One f32 model on the CPU for each adapter.
    pub fn open(&self, adapter: Vec<Named>) -> Result<Vec<Adapted>> {
        AdaptedArgs::on_cpu(self.model.clone(), adapter, self.any_base).open(user_cache().as_deref())
    }
}

/// Checks that the adapter was trained on a base of these shapes, and that its labels fit its head.
///
/// # Errors
/// If not.
pub fn check_base(about: &About, model: &DistilBert, classes: usize, adapter: &Path, base: &Path) -> Result<()> {
    let problem = if About::new(model, &[], 0, 0).base != about.base {
        format!("the adapter was trained on a base of other shapes than {}", base.display())
    } else if about.labels.len() != classes {
        format!("{} labels for a classifier of {classes} classes", about.labels.len())
    } else {
        return check_names(&about.labels, adapter, "lowrank.json", "labels");
    };
    Err(Error::file(adapter, "lowrank.json", problem))
}

/// Checks that the classes `names`, which are under `key` in the file `file` of `folder`, have different names.
///
/// # Errors
/// If two have the same.
fn check_names(names: &[String], folder: &Path, file: &str, key: &str) -> Result<()> {
    let Some(twice) = repeated(names) else { return Ok(()) };
    let problem = format!("\"{key}\" has the name {twice:?} twice: two classes could not be told apart");
    Err(Error::file(folder, file, problem))
}
