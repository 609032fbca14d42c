//! `lowrank explain`: shows one training step as a ledger.

use super::base::checked;
use super::common::{Checkpoint, open_wordpiece, say, user_cache};
use clap::Args;
use lowrank::autograd::{Record, Tape};
use lowrank::lora::{Counts, LoraConfig, adapt};
use lowrank::nn::{Config, DistilBert, LoadOptions, Pass};
use lowrank::tensor::Sequences;
use lowrank::{Error, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

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
    #[arg(default_value = "A film that I did not expect to like, and then could not stop thinking about.")]
    texts: Vec<String>,
}

impl Explain {
    /// Runs the command.
    pub(super) fn run(self) -> Result<()> {
        checked(&self.model.path, user_cache().as_deref())?;
        let classes = Config::open(&self.model.path)?.labels().len();
        let mut model = DistilBert::open_with(&self.model.path, &LoadOptions { classes: Some(classes), ..LoadOptions::default() })?.0;
        let targets: Vec<&str> = match self.targets.is_empty() {
            true => model.config.architecture.default_targets().into(),
            false => self.targets.iter().map(String::as_str).collect(),
        };
        adapt(&mut model, &LoraConfig::new(self.rank, &targets), 0)?;
        let wordpiece = open_wordpiece(&self.model.path, &model.config)?;
        let ids: Vec<Vec<u32>> = self.texts.iter().map(|t| wordpiece.encode(t, model.config.max_position_embeddings)).collect();
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let sequences = Sequences::new(&lengths, (0..ids.len() as u32).collect())?;
        let pass = Pass::training(Arc::new(sequences), 0);
        let mut tape = Tape::with_ledger();
        let logits = model.forward(&mut tape, &ids.concat(), &pass)?;
        let loss = tape.cross_entropy(&logits, &vec![0; ids.len()], ids.len())?;
        let ledger = tape.ledger().to_vec();
        let grads = tape.backward(&loss)?;
        // Saving a weight costs no memory: the model holds it anyway.
        let (own, parameters) = (model.storages(), model.parameters());
        say(format!("one step on {} reviews of {} tokens in all; {}", ids.len(), pass.sequences.tokens(), Counts::of(&model).peft_line()))?;
        self.print(&ledger, &own)?;
        say(format!("{} gradients, for {} parameters: none for a frozen weight", grads.len(), parameters.len()))?;
        if grads.len() != parameters.len() {
            return Err(Error::invalid("explain: a parameter was not reached"));
        }
        Ok(())
    }

    fn print(&self, ledger: &[Record], own: &BTreeSet<usize>) -> Result<()> {
        say(format!(
            "{:<52} {:<14} {:>10} {:>9} {:>9} {:>9}  saved for backward",
            "layer", "operation", "output", "forward", "backward", "spared"
        ))?;
        say(format!("{:<52} {:<14} {:>10} {:>9} {:>9} {:>9}", "", "", "", "MFLOP", "MFLOP", "MFLOP"))?;
        let mut seen = BTreeSet::new();
        let (mut saved_bytes, mut total) = (0, [0; 3]);
        let mega = |flops: u64| format!("{:.2}", flops as f64 / 1e6);
        for record in ledger {
            let mut notes = Vec::new();
            for (name, bytes, storage) in &record.saved {
                let note = if own.contains(storage) {
                    "the model's own".to_string()
                } else if seen.insert(*storage) {
                    saved_bytes += bytes;
                    format!("{bytes} bytes")
                } else {
                    "shared".to_string()
                };
                notes.push(format!("{name}: {note}"));
            }
            (0..3).for_each(|i| total[i] += record.flops[i]);
            let deep = record.layer.contains(".layer.") && !record.layer.contains(".layer.0");
            if deep && !self.all {
                continue;
            }
            let why = match (record.needs.contains(&true), notes.is_empty()) {
                (false, _) => "nothing: no gradient comes here".to_string(),
                (true, true) => "nothing: its rule needs no value".to_string(),
                (true, false) => notes.join(", "),
            };
            let short = record.layer.replace("distilbert.transformer.", "").replace("bert.encoder.", "").replace("attention.", "");
            let [f, b, s] = record.flops.map(mega);
            say(format!("{short:<52} {:<14} {:>10} {f:>9} {b:>9} {s:>9}  {why}", record.op, record.output.to_string()))?;
        }
        if !self.all {
            say("(the other layers are alike: --all shows them)")?;
        }
        let [f, b, s] = total.map(mega);
        say(format!("in all: forward {f}, backward {b}, spared {s} MFLOP; {saved_bytes} bytes saved beside the model"))
    }
}
