//! Models that answer: a base with adapters on it.

use super::base::{check_same, checked};
use super::common::{Checkpoint, ComputeType, check_length, open_wordpiece};
use super::device::DeviceArgs;
use super::notes::warning;
use clap::Args;
use lowrank::data::WordPiece;
use lowrank::lora::{About, adapter, truncate};
use lowrank::nn::{DistilBert, Head, LoadOptions, Outputs, generic_label};
use lowrank::tensor::DType;
use lowrank::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which model answers.
#[derive(Args)]
pub struct AdaptedArgs {
    /// Directory of the base checkpoint, or of one that has a trained head
    #[arg(long, value_name = "DIR|NAME")]
    model: Checkpoint,
    /// Directory of the adapter, unless the checkpoint has a trained head; several with names, over one base in memory
    #[arg(long, value_name = "[NAME=]DIR", value_parser = named)]
    adapter: Vec<Named>,
    /// Use the first ranks of each low-rank term alone, as training with --method dylora makes possible
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// Take an adapter that was trained on another base of the same shapes
    #[arg(long)]
    any_base: bool,
    /// Warn where an adapter's files do not fit together, and take what can be taken
    #[arg(long)]
    lenient: bool,
    /// Tokens kept of a text [default: as in training]
    #[arg(long)]
    max_length: Option<usize>,
    /// Type to compute in
    #[arg(long, value_enum, default_value_t = ComputeType::F32)]
    dtype: ComputeType,
    #[command(flatten)]
    device: DeviceArgs,
}

/// An adapter's directory, and the name it was given.
#[derive(Clone)]
pub struct Named {
    pub name: Option<String>,
    pub directory: PathBuf,
}

/// `NAME=DIR`, or a directory whose name may hold a `=` itself.
pub fn named(text: &str) -> std::result::Result<Named, String> {
    let name = text.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains(['/', '\\']) && !Path::new(text).exists());
    Ok(match name {
        Some((name, directory)) => Named { name: Some(name.to_string()), directory: directory.into() },
        None => Named { name: None, directory: text.into() },
    })
}

/// An adapted model, ready to answer.
pub struct Adapted {
    /// Its adapter's name, or else its directory, where there are several.
    pub name: String,
    pub model: DistilBert,
    pub wordpiece: Arc<WordPiece>,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// What the logits mean.
    pub outputs: Outputs,
    /// What is known of the training: an adapter of PEFT's own and a checkpoint from elsewhere have nothing.
    pub about: Option<About>,
    pub max_length: usize,
}

impl Adapted {
    /// Whether the classes have no names of their own, so that others may be given.
    pub fn is_unnamed(&self) -> bool {
        self.labels.iter().enumerate().all(|(i, name)| *name == generic_label(i))
    }
}

impl AdaptedArgs {
    /// Whether there are several adapters.
    pub fn several(&self) -> bool {
        self.adapter.len() > 1
    }

    /// Opens what was asked for: one model for each adapter, over one base. What is known of the base is kept in `cache`.
    pub fn open(&self, cache: Option<&Path>) -> Result<Vec<Adapted>> {
        let hash = checked(&self.model, cache)?;
        let hash = (!self.any_base).then_some(&hash[..]);
        let place = |model: &mut DistilBert| self.device.place(model).map(|_| ());
        let mut all = open_adapted(&self.model, &self.adapter, hash, self.max_length, self.dtype.into(), self.lenient, &place)?;
        for adapted in &mut all {
            if let Some(rank) = self.rank {
                truncate(&mut adapted.model, rank)?;
            }
            // What the adapter brought; the base is there.
            place(&mut adapted.model)?;
        }
        Ok(all)
    }
}

/// Loads a base model with adapters on it, or a checkpoint that has a head of its own. Adapters must have been trained on a base of the hash `hash`,
/// if one is given. `place` moves the base, before the adapters share it.
pub fn open_adapted(
    base: &Path,
    adapters: &[Named],
    hash: Option<&str>,
    max_length: Option<usize>,
    dtype: DType,
    lenient: bool,
    place: &dyn Fn(&mut DistilBert) -> Result<()>,
) -> Result<Vec<Adapted>> {
    let Some(first) = adapters.first() else { return Ok(vec![open_whole(base, max_length, dtype)?]) };
    // Each adapter brings a head of its own.
    let options = LoadOptions { classes: Some(adapter::classes(&first.directory)?), dtype, head: Head::Fitting, ..LoadOptions::default() };
    let mut shared = DistilBert::open_with(base, &options)?.0;
    place(&mut shared)?;
    let wordpiece = Arc::new(open_wordpiece(base, &shared.config)?);
    let open = |named: &Named| {
        let directory = &named.directory;
        let (about, classes) = (About::open(directory)?, adapter::classes(directory)?);
        let mut model = shared.share(classes)?;
        if let Some(about) = &about {
            check_base(about, &model, classes, directory, base)?;
            hash.map_or(Ok(()), |hash| check_same(about, directory, base, hash))?;
        }
        let warnings = adapter::load_with(&mut model, directory, lenient)?.1;
        warnings.iter().for_each(|warning| warning!("{}: {warning}", directory.display()));
        // PEFT takes the names and the kind of head from the base. What was trained here was trained for classes.
        let of_base = || match shared.config.labels() {
            labels if labels.len() == classes => labels,
            _ => (0..classes).map(generic_label).collect(),
        };
        let labels = about.as_ref().map_or_else(of_base, |about| about.labels.clone());
        let outputs = if about.is_some() { Outputs::Classes } else { shared.config.outputs(classes) };
        let longest = model.longest_text();
        let max_length = check_length(max_length.or(about.as_ref().map(|a| a.max_length)).unwrap_or(longest), longest)?;
        let name = named.name.clone().unwrap_or_else(|| directory.display().to_string());
        Ok(Adapted { name, model, wordpiece: wordpiece.clone(), labels, outputs, about, max_length })
    };
    adapters.iter().map(open).collect()
}

/// Loads a checkpoint that has a head of its own.
fn open_whole(base: &Path, max_length: Option<usize>, dtype: DType) -> Result<Adapted> {
    let (model, report) = DistilBert::open_with(base, &LoadOptions { dtype, ..LoadOptions::default() })?;
    let labels = model.config.labels();
    if let Some(name) = report.initialised.first() {
        let problem = "is missing: the checkpoint has no trained head; give an adapter with --adapter";
        return Err(Error::file(base, format!("tensor {name:?}"), problem));
    }
    let (about, outputs) = (About::open(base)?, model.config.outputs(labels.len()));
    let max_length = max_length.or(about.as_ref().map(|a| a.max_length)).unwrap_or(model.longest_text());
    let max_length = check_length(max_length, model.longest_text())?;
    let wordpiece = Arc::new(open_wordpiece(base, &model.config)?);
    Ok(Adapted { name: base.display().to_string(), wordpiece, max_length, model, labels, outputs, about })
}

/// The adapter must have been trained on a base of these shapes.
fn check_base(about: &About, model: &DistilBert, classes: usize, adapter: &Path, base: &Path) -> Result<()> {
    let problem = if About::new(model, &[], 0, 0).base != about.base {
        format!("the adapter was trained on a base of other shapes than {}", base.display())
    } else if about.labels.len() != classes {
        format!("{} labels for a classifier of {classes} classes", about.labels.len())
    } else if let Some(i) = (1..classes).find(|&i| about.labels[..i].contains(&about.labels[i])) {
        format!("\"labels\" has the name {:?} twice: two classes could not be told apart", about.labels[i])
    } else {
        return Ok(());
    };
    Err(Error::file(adapter, "lowrank.json", problem))
}
