//! `lowrank merge`: adds an adapter to its base.

use super::adapted::{Adapted, BaseArgs, Named, named};
use super::common::{parsed, say};
use super::output::{Input, Output};
use crate::folder::write_directory;
use clap::Args;
use lowrank::lora::{About, merge};
use lowrank::tensor::math::largest;
use lowrank::train::logits;
use lowrank::{Error, Result};

/// Arguments of `merge`.
#[derive(Args)]
pub struct Merge {
    #[command(flatten)]
    base: BaseArgs,
    /// Folder of the adapter, or the name of a fetched one: LoRA, a head or BitFit
    #[arg(long, value_name = "DIR|NAME", value_parser = parsed(named))]
    adapter: Named,
    #[command(flatten)]
    output: Output,
    /// Largest accepted difference between merged and unmerged logits
    #[arg(long, default_value_t = 1e-3, value_name = "LOGITS")]
    tolerance: f64,
}

/// Texts on which the logits before and after merging are compared.
const PROBE: [&str; 4] = [
    "A film that I did not expect to like, and then could not stop thinking about.",
    "Dull from the first minute to the last.",
    "The cast is good, the plot is not, and the music is somewhere in between; I would watch it again, but only on a rainy day.",
    "Why?",
];

impl Merge {
    /// Runs the command.
    pub(super) fn run(self) -> Result<()> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Error::invalid(format!("--tolerance must be a number of at least 0, got {}", self.tolerance)));
        }
        let inputs = [Input::Model("the model", self.base.model.path.clone()), Input::Model("the adapter", self.adapter.directory.clone())];
        let _lock = self.output.check(&inputs)?;
        let out = &self.output.out;
        let mut adapted = self.base.open(vec![self.adapter.clone()])?;
        let Adapted { mut model, base_hash, wordpiece, labels, cut, about, .. } = adapted.remove(0);
        let ids: Vec<Vec<u32>> = PROBE.iter().map(|text| wordpiece.encode(text, cut.one_window())).collect();
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let before = logits(&model, &ids, PROBE.len())?.concat();
        let merged = merge(&mut model)?;
        let after = logits(&model, &ids, PROBE.len())?.concat();
        let difference = largest(before.iter().zip(&after).map(|(a, b)| (a - b).abs()));
        if difference.is_nan() || difference > self.tolerance {
            let problem =
                format!("merged and unmerged logits differ by {difference:.1e}, more than {:.1e}; nothing was written", self.tolerance);
            return Err(Error::file(&self.adapter.directory, "merge", problem));
        }
        let new = About { base_hash: Some(base_hash), ..About::new(&model, &labels, cut, 0) };
        let about = match about {
            Some(About { trained_on, temperature, problem_type, thresholds, pairs, text_pair_column, .. }) => {
                About { trained_on, temperature, problem_type, thresholds, pairs, text_pair_column, ..new }
            }
            None => new,
        };
        write_directory(out, |directory| {
            model.save(&self.base.model.path, &labels, directory)?;
            about.write(directory)
        })?;
        say(format!(
            "{} linears merged; logits of {} probe texts differ by at most {difference:.1e}; written to {}",
            merged.linears(),
            PROBE.len(),
            out.display()
        ))
    }
}
