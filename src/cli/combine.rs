//! `lowrank combine`.

use super::Outcome;
use super::adapted::{Adapted, Named, open_adapted};
use super::common::{About, Checkpoint, say};
use crate::lora::{Combination, Method, adapter, combine};
use crate::nn::DistilBert;
use crate::tensor::DType;
use crate::tensor::safetensors::{check_replaceable, write_directory};
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Arguments of `combine`.
#[derive(Args)]
pub struct Combine {
    /// Directory of the base checkpoint, or the name of a model that was fetched
    #[arg(long, value_name = "DIR|NAME")]
    model: Checkpoint,
    /// Directory of a LoRA adapter, with its weight [default: 1]; give it several times
    #[arg(long = "adapter", value_name = "[WEIGHT=]DIR", required = true, value_parser = super::adapted::named)]
    adapters: Vec<Named>,
    /// How
    #[arg(long, value_enum, default_value_t = How::Svd)]
    how: How,
    /// svd: rank of the result
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// Directory for the adapter; appears whole, or not at all
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Names of [`Combination`].
#[derive(Clone, Copy, ValueEnum)]
enum How {
    /// The weighted sum of the A's and of the B's: ranks must be equal
    Linear,
    /// Side by side: the sum exactly, its rank the sum of the ranks
    Cat,
    /// The sum cut to its largest singular values
    Svd,
}

impl Combine {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        check_replaceable(&self.out)?;
        let weight = |named: &Named| match &named.name {
            Some(text) => text.parse::<f64>().map_err(|_| Error::invalid(format!("--adapter {text}=…: the weight must be a number"))),
            None => Ok(1.0),
        };
        let weights: Vec<f64> = self.adapters.iter().map(weight).collect::<Result<_>>()?;
        let all = open_adapted(&self.model, &self.adapters, None, DType::F32, false, &|_| Ok(()))?;
        let Some(Adapted { labels, max_length, .. }) = all.first() else { return Ok(Outcome::Failed) };
        let (labels, max_length) = (labels.clone(), *max_length);
        if let Some(other) = all.iter().find(|a| a.labels != labels) {
            return Err(Error::invalid(format!("{}: its labels are {:?}, those of the first {labels:?}", other.name, other.labels)));
        }
        let how = match self.how {
            How::Linear => Combination::Linear,
            How::Cat => Combination::Cat,
            How::Svd => Combination::Svd { rank: self.rank },
        };
        let mut model = DistilBert::open(&self.model, labels.len(), DType::F32, 0)?.0;
        let config = combine(&mut model, all.into_iter().map(|a| a.model).zip(weights).collect(), how)?;
        let about = About::new(&model, &labels, max_length, 0);
        write_directory(&self.out, |directory| {
            adapter::save(&model, &Method::Lora(config.clone()), &self.model.name, directory)?;
            about.write(directory)
        })?;
        say(format!("{} adapters on {} linears joined; written to {}", self.adapters.len(), config.targets.len(), self.out.display()))?;
        Ok(Outcome::Done)
    }
}
