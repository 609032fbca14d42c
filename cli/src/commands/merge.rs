//! `lowrank merge`.

use super::Outcome;
use super::adapted::{Adapted, Named, open_adapted};
use super::base::checked;
use super::common::{Checkpoint, say, user_cache};
use super::output::{Input, Output};
use clap::Args;
use lowrank::lora::{About, merge};
use lowrank::tensor::DType;
use lowrank::tensor::math::largest;
use lowrank::tensor::safetensors::write_directory;
use lowrank::train::logits;
use lowrank::{Error, Result};
use std::path::PathBuf;

/// Arguments of `merge`.
#[derive(Args)]
pub struct Merge {
    /// Directory of the base checkpoint, or the name of a model that was fetched
    #[arg(long, value_name = "DIR|NAME")]
    model: Checkpoint,
    /// Directory of the adapter: LoRA, a head or BitFit
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// Take an adapter that was trained on another base of the same shapes
    #[arg(long)]
    any_base: bool,
    #[command(flatten)]
    output: Output,
    /// Largest difference of logits that is accepted
    #[arg(long, default_value_t = 1e-3, value_name = "LOGITS")]
    tolerance: f64,
}

/// What the logits before and after are compared on.
const PROBE: [&str; 4] = [
    "A film that I did not expect to like, and then could not stop thinking about.",
    "Dull from the first minute to the last.",
    "The cast is good, the plot is not, and the music is somewhere in between; I would watch it again, but only on a rainy day.",
    "Why?",
];

impl Merge {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Error::invalid(format!("--tolerance must be a number of at least 0, got {}", self.tolerance)));
        }
        self.output.check(&[Input::Model("the model", &self.model), Input::Model("the adapter", &self.adapter)])?;
        let (out, hash) = (&self.output.out, checked(&self.model, user_cache().as_deref())?);
        let wanted = (!self.any_base).then_some(&hash[..]);
        let adapter = Named { name: None, directory: self.adapter.clone() };
        let Some(adapted) = open_adapted(&self.model, &[adapter], wanted, None, DType::F32, false, &|_| Ok(()))?.pop() else {
            return Ok(Outcome::Failed);
        };
        let Adapted { mut model, wordpiece, labels, max_length, about, .. } = adapted;
        let ids: Vec<Vec<u32>> = PROBE.iter().map(|text| wordpiece.encode(text, max_length)).collect();
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let before = logits(&model, &ids, PROBE.len())?.concat();
        let merged = merge(&mut model)?;
        let after = logits(&model, &ids, PROBE.len())?.concat();
        let difference = largest(before.iter().zip(&after).map(|(a, b)| (a - b).abs()));
        // A NaN is no small difference.
        let close = difference <= self.tolerance;
        if !close {
            let problem =
                format!("merged and unmerged logits differ by {difference:.1e}, more than {:.1e}; nothing was written", self.tolerance);
            return Err(Error::file(&self.adapter, "merge", problem));
        }
        let trained_on = about.and_then(|about| about.trained_on);
        let about = About { trained_on, base_hash: Some(hash), ..About::new(&model, &labels, max_length, 0) };
        write_directory(out, |directory| {
            model.save(&self.model, &labels, directory)?;
            about.write(directory)
        })?;
        say(format!(
            "{} linears merged; logits of {} probe texts differ by at most {difference:.1e}; written to {}",
            merged.linears(),
            PROBE.len(),
            out.display()
        ))?;
        Ok(Outcome::Done)
    }
}
