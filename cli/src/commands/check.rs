//! `lowrank gradcheck` and `compare`.

use super::base::checked;
use super::common::{Checkpoint, ComputeType, Outcome, count, ignore_closed, say, say_json, user_cache};
use super::device::DeviceArgs;
use super::golden::{Comparison, compare};
use clap::Args;
use lowrank::error::nearest;
use lowrank::lora::all_suites;
use lowrank::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `gradcheck`.
#[derive(Args)]
pub struct Gradcheck {
    /// Operations to check [default: all]
    ops: Vec<String>,
    /// Random cases of each
    #[arg(long, default_value_t = 64, value_parser = count::<1_000_000>)]
    cases: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Put wrong gradients into this operation (or all) instead, and see each kind caught
    #[arg(long, value_name = "OP")]
    plant_bug: Option<String>,
}

impl Gradcheck {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let suites = all_suites();
        let mut wanted = self.ops.clone();
        wanted.extend(self.plant_bug.clone().filter(|op| op != "all"));
        for op in &wanted {
            if !suites.iter().any(|s| s.op.eq_ignore_ascii_case(op)) {
                let near = nearest(op, suites.iter().map(|s| s.op), 3).join(", ");
                return Err(Error::invalid(format!("gradcheck: there is no operation {op:?}; the nearest names are {near}")));
            }
        }
        let chosen = suites.iter().filter(|s| wanted.is_empty() || wanted.iter().any(|op| s.op.eq_ignore_ascii_case(op)));
        let mut failed = 0;
        for suite in chosen {
            if self.plant_bug.is_some() {
                for (bug, caught, planted) in suite.plant_bugs(self.cases.div_ceil(4), self.seed)? {
                    failed += usize::from(caught != planted);
                    ignore_closed(say(format!("{:<14} {:<8} {caught} of {planted} caught", suite.op, format!("{bug:?}"))))?;
                }
                continue;
            }
            let worst = suite.run(self.cases, self.seed)?;
            let passed = worst.found.error <= suite.tolerance;
            failed += usize::from(!passed);
            let verdict = if passed { "ok" } else { "WRONG" };
            ignore_closed(say(format!(
                "{:<14} {verdict:<5} worst {:.1e} of {:.0e} in {} checks\n               numeric {:+.12e}, backward {:+.12e}; {}",
                suite.op, worst.found.error, suite.tolerance, worst.checks, worst.found.numeric, worst.found.backward, worst.place
            )))?;
        }
        Ok(if failed == 0 { Outcome::Done } else { Outcome::Failed })
    }
}

/// Arguments of `compare`.
#[derive(Args)]
pub struct Compare {
    /// Directory of the base checkpoint, or the name of a model that was fetched
    #[arg(long, value_name = "DIR|NAME")]
    model: Checkpoint,
    /// Folder with reference.json, grads_f64.safetensors, adapter_init and adapter_trained
    #[arg(long, value_name = "DIR")]
    reference: PathBuf,
    /// Type to compute in
    #[arg(long, value_enum, default_value_t = ComputeType::F64)]
    dtype: ComputeType,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Compare {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        checked(&self.model.path, user_cache().as_deref())?;
        let found = compare(&self.model.path, &self.reference, self.dtype.into(), &|model| self.device.place(model).map(|_| ()))?;
        let first = found.iter().find(|c| !c.passed());
        ignore_closed(self.print(&found, first))?;
        Ok(if first.is_none() { Outcome::Done } else { Outcome::Failed })
    }

    fn print(&self, found: &[Comparison], first: Option<&Comparison>) -> Result<()> {
        if self.json {
            return say_json(&json!({ "comparisons": found, "first_failure": first.map(|c| &c.name), "passed": first.is_none() }));
        }
        for c in found {
            let verdict = if c.passed() { "ok" } else { "DIFFERS" };
            say(format!("{verdict:<7} {:.1e} of {:.0e}  {}", c.difference, c.tolerance, c.name))?;
        }
        match first {
            Some(c) => say(format!("the first that differs: {}", c.name)),
            None => say(format!("all {} agree", found.len())),
        }
    }
}
