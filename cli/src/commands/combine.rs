//! `lowrank combine`: makes one adapter of several.

use super::adapted::{Adapted, BaseArgs, Named, named};
use super::common::{parsed, say};
use super::output::{Input, Output};
use crate::folder::write_directory;
use clap::{Args, ValueEnum};
use lowrank::lora::{About, Combination, Method, adapter, combine};
use lowrank::nn::{DistilBert, Head, LoadOptions};
use lowrank::{Error, Result};

/// Arguments of `combine`.
#[derive(Args)]
pub struct Combine {
    #[command(flatten)]
    base: BaseArgs,
    /// Folder of a LoRA adapter, with its weight [default: 1]; can be given several times
    #[arg(long = "adapter", value_name = "[WEIGHT=]DIR|NAME", required = true, value_parser = parsed(named))]
    adapters: Vec<Named>,
    /// How the adapters are combined
    #[arg(long, value_enum, default_value_t = How::Svd)]
    how: How,
    /// svd: rank of the result [default: 8]
    #[arg(long)]
    rank: Option<usize>,
    #[command(flatten)]
    output: Output,
}

/// Names of [`Combination`].
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// Weighted sums of all A and of all B; the ranks must be equal
    Linear,
    /// Concatenation: the exact sum, whose rank is the sum of the ranks
    Cat,
    /// The sum, truncated to its largest singular values
    Svd,
}

impl Combine {
    /// Runs the command.
    pub(super) fn run(self) -> Result<()> {
        if self.rank.is_some() && self.how != How::Svd {
            return Err(Error::invalid("--rank is used by --how svd alone: the other ways leave no choice of a rank; leave it out"));
        }
        let adapters = self.adapters.iter().map(|named| Input::Model("the adapter", named.directory.clone()));
        let inputs = adapters.chain([Input::Model("the model", self.base.model.path.clone())]).collect::<Vec<_>>();
        let _lock = self.output.check(&inputs)?;
        let weight = |named: &Named| match &named.name {
            Some(text) => text.parse::<f64>().map_err(|_| Error::invalid(format!("--adapter {text}=…: the weight must be a number"))),
            None => Ok(1.0),
        };
        let weights: Vec<f64> = self.adapters.iter().map(weight).collect::<Result<_>>()?;
        let all = self.base.open(self.adapters)?;
        let (labels, cut, base_hash) = (all[0].labels.clone(), all[0].cut, Some(all[0].base_hash.clone()));
        if let Some(other) = all.iter().find(|a| a.labels != labels) {
            return Err(Error::invalid(format!("{}: its labels are {:?}, those of the first {labels:?}", other.name, other.labels)));
        }
        let reads = |adapted: &Adapted| adapted.about.as_ref().map(|about| (about.problem_type.clone(), about.pairs)).unwrap_or_default();
        let (problem_type, pairs) = reads(&all[0]);
        let text_pair_column = all[0].about.as_ref().and_then(|about| about.text_pair_column.clone());
        if let Some(other) = all.iter().find(|a| reads(a) != (problem_type.clone(), pairs)) {
            let problem =
                "was trained for another task than the first, or one of them on pairs of texts: only adapters for the same can be combined";
            return Err(Error::invalid(format!("{}: {problem}", other.name)));
        }
        let how = match self.how {
            How::Linear => Combination::Linear,
            How::Cat => Combination::Cat,
            How::Svd => Combination::Svd { rank: self.rank.unwrap_or(8) },
        };
        let options = LoadOptions { classes: Some(labels.len()), head: Head::Fitting, ..LoadOptions::default() };
        let mut model = DistilBert::open_with(&self.base.model.path, &options)?.0;
        let config = combine(&mut model, all.into_iter().map(|a| a.model).zip(weights.iter().copied()).collect(), how)?;
        let (out, about) =
            (&self.output.out, About { base_hash, problem_type, pairs, text_pair_column, ..About::new(&model, &labels, cut, 0) });
        write_directory(out, |directory| {
            adapter::save(&model, &Method::Lora(config.clone()), &self.base.model.name, directory)?;
            about.write(directory)
        })?;
        say(format!("{} adapters on {} linears joined; written to {}", weights.len(), config.targets.len(), out.display()))
    }
}
