//! `lowrank explain`: shows one training step as a ledger, or as a page.

use super::base::checked;
use super::common::{Checkpoint, say, user_cache};
use super::notes::note;
use super::output::Input;
use super::output_file::OutputFile;
use crate::step::{Memory, Operation, Saved, Step, TEXT, measure, page, side_by_side};
use clap::Args;
use lowrank::Result;
use lowrank::lora::{LoraConfig, Method};
use lowrank::nn::Config;
use std::path::PathBuf;

/// Arguments of `explain`.
#[derive(Args)]
pub struct Explain {
    /// Folder of the checkpoint, or the name of a fetched model
    #[arg(long, value_name = "DIR|NAME")]
    model: Checkpoint,
    /// Linears that get a low-rank term [default: q_lin,v_lin; in BERT query,value]
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// Rank of the terms
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// Show the operations of all layers, not only of the first
    #[arg(long)]
    all: bool,
    /// Texts of the step
    #[arg(default_value = TEXT)]
    texts: Vec<String>,
    /// Write a page instead that shows the step beside one of full fine-tuning, operation by operation; the arrow keys go forward and backward
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// Replace the file of --html
    #[arg(long, requires = "html")]
    overwrite: bool,
}

impl Explain {
    /// Runs the command.
    pub(super) fn run(self) -> Result<()> {
        checked(&self.model.path, user_cache().as_deref())?;
        let architecture = Config::open(&self.model.path)?.architecture;
        let targets: Vec<&str> = match self.targets.is_empty() {
            true => architecture.default_targets().into(),
            false => self.targets.iter().map(String::as_str).collect(),
        };
        let lora = LoraConfig::new(self.rank, &targets);
        let Some(out) = &self.html else { return self.print(&measure(&self.model.path, &self.texts, "LoRA", &Method::Lora(lora))?) };
        let file = OutputFile::check("--html", out, self.overwrite, &[Input::Model("the model", self.model.path.clone())])?;
        file.write(page(&side_by_side(&self.model.path, &self.texts, lora)?)?.as_bytes())?;
        note!("the step is drawn in {}", out.display());
        Ok(())
    }

    fn print(&self, step: &Step) -> Result<()> {
        say(format!("one step on {} reviews of {} tokens in all; {}", step.texts, step.tokens, step.counts))?;
        say(format!(
            "{:<52} {:<14} {:>10} {:>9} {:>9} {:>9}  saved for backward",
            "layer", "operation", "output", "forward", "backward", "spared"
        ))?;
        say(format!("{:<52} {:<14} {:>10} {:>9} {:>9} {:>9}", "", "", "", "MFLOP", "MFLOP", "MFLOP"))?;
        let mega = |flops: u64| format!("{:.2}", flops as f64 / 1e6);
        for op in &step.operations {
            let deep = op.layer.contains(".layer.") && !op.layer.contains(".layer.0");
            if deep && !self.all {
                continue;
            }
            let short = op.layer.replace("distilbert.transformer.", "").replace("bert.encoder.", "").replace("attention.", "");
            let [f, b, s] = op.flops.map(mega);
            say(format!("{short:<52} {:<14} {:>10} {f:>9} {b:>9} {s:>9}  {}", op.name, op.output, saved(op)))?;
        }
        if !self.all {
            say("(the other layers are alike: --all shows them)")?;
        }
        let [f, b, s] = step.flops.map(mega);
        say(format!("in all: forward {f}, backward {b}, spared {s} MFLOP; {} bytes saved beside the model", step.saved_bytes))?;
        say(format!("{} gradients, for {} parameters: none for a frozen weight", step.gradients, step.parameters))
    }
}

/// What an operation saved, or why it saved nothing.
fn saved(op: &Operation) -> String {
    let note = |saved: &Saved| match saved.memory {
        Memory::Model => format!("{}: the model's own", saved.name),
        Memory::Own => format!("{}: {} bytes", saved.name, saved.bytes),
        Memory::Shared => format!("{}: shared", saved.name),
    };
    match (op.gradient, op.saved.is_empty()) {
        (false, _) => "nothing: no gradient comes here".to_string(),
        (true, true) => "nothing: its rule needs no value".to_string(),
        (true, false) => op.saved.iter().map(note).collect::<Vec<_>>().join(", "),
    }
}
