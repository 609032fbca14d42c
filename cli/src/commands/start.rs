//! The model that `train` starts from: a checkpoint, or an adapter on its base.

use super::adapted::check_base;
use super::base::check_same;
use super::head::{BaseModel, Opened};
use super::method::MethodArgs;
use super::notes::{note, warning};
use lowrank::cut::Cut;
use lowrank::files::is_there;
use lowrank::lora::{About, Method, adapter};
use lowrank::nn::{Architecture, DistilBert, Head, LoadOptions, LoadReport};
use lowrank::{Error, Result};
use std::path::Path;

/// What a run starts from.
// There is one for each process, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub enum Start {
    Checkpoint(Opened),
    Adapter { model: DistilBert, report: LoadReport, about: Option<About>, method: Method },
}

/// The method of a run: that of the adapter at `init_from`, or else that of the arguments, for a base of `architecture`.
///
/// # Errors
/// If the adapter cannot be read, or the arguments give another method.
pub fn method(init_from: Option<&Path>, what: &MethodArgs, architecture: Architecture, seed: u64) -> Result<Method> {
    let Some(directory) = init_from else { return Ok(what.method(architecture, seed)) };
    if !is_there(&directory.join("adapter_config.json")) {
        let problem = "has no adapter_config.json, so it is no adapter; a whole checkpoint is given with --model";
        return Err(Error::file(directory, "--init-from", problem));
    }
    let own = adapter::method(directory)?;
    if what.is_given() && what.method(architecture, seed) != own {
        let problem = format!("is an adapter of the method {own:?}, and the arguments give another: leave out --method and its options");
        return Err(Error::file(directory, "--init-from", problem));
    }
    Ok(own)
}

impl Start {
    /// Opens the checkpoint `base`, or the adapter at `init_from` on it. `hash` is that of the base.
    ///
    /// # Errors
    /// If a file cannot be read, or the adapter was trained on another base.
    pub fn open(base: &BaseModel, init_from: Option<&Path>, hash: &str) -> Result<Start> {
        let Some(directory) = init_from else { return Ok(Start::Checkpoint(base.open()?)) };
        let (classes, about) = (adapter::classes(directory)?, About::open(directory)?);
        let exact = |name: &str| base.method.trains(name);
        let options = LoadOptions { classes: Some(classes), dtype: base.dtype, seed: base.seed, head: Head::Fitting, exact: &exact };
        let (mut model, report) = DistilBert::open_with(base.folder, &options)?;
        if let Some(about) = &about {
            check_base(about, &model, classes, directory, base.folder)?;
            check_same(about, directory, (base.folder, &model.config), hash)?;
        }
        let method = adapter::load(&mut model, directory)?;
        note!("starting from the adapter {}", directory.display());
        Ok(Start::Adapter { model, report, about, method })
    }

    /// The model, whose head may still have other classes than the data.
    pub fn model(&self) -> &DistilBert {
        match self {
            Start::Checkpoint(opened) => &opened.model,
            Start::Adapter { model, .. } => model,
        }
    }

    /// Names of the classes of the head, if it has names.
    pub fn names(&self) -> Option<Vec<String>> {
        match self {
            Start::Checkpoint(opened) => opened.names.clone(),
            Start::Adapter { about: Some(about), .. } => Some(about.labels.clone()),
            // As `eval` and `predict` name the classes of an adapter of PEFT's.
            Start::Adapter { model, .. } => {
                Some(model.config.labels()).filter(|labels| model.config.names_classes() && labels.len() == model.classifier.dims().0)
            }
        }
    }

    /// How texts are cut where the user says nothing: as in the training of the adapter. Its virtual tokens are counted already.
    pub fn cut(&self) -> Option<Cut> {
        match self {
            Start::Checkpoint(_) => None,
            Start::Adapter { about, model, .. } => {
                let cut = about.as_ref()?.cut;
                Some(Cut { max_length: cut.max_length.min(model.longest_text()), ..cut })
            }
        }
    }

    /// The model with a head for the classes `labels` of the data, ready to train; what was loaded; the linears that got a low-rank term; and the method.
    ///
    /// # Errors
    /// If an adapter has a head for another number of classes, or the method does not fit the model.
    pub fn ready(self, base: &BaseModel, labels: &[String]) -> Result<(DistilBert, LoadReport, Vec<String>, Method)> {
        match self {
            Start::Checkpoint(opened) => {
                let (mut model, report) = base.with_head_for(opened, labels)?;
                let adapted = base.method.apply(&mut model, base.seed)?;
                Ok((model, report, adapted, base.method.clone()))
            }
            Start::Adapter { model, report, about, method } => {
                let (classes, order) = (model.classifier.dims().0, labels.join(", "));
                if classes != labels.len() {
                    let problem = format!("the adapter's head has {classes} classes, and the data have {}: {order}", labels.len());
                    return Err(Error::invalid(format!("--init-from: {problem}")));
                }
                if about.is_none() && !model.config.names_classes() {
                    warning!(
                        "the classes of the adapter's head have no names: they are taken for {order}, in this order; --labels gives another"
                    );
                }
                Ok((model, report, Vec::new(), method))
            }
        }
    }
}
