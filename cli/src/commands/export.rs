//! `lowrank export`: writes a model for other programs.

use super::adapted::{Adapted, BaseArgs, Named, named};
use super::common::{parsed, say};
use super::output::{Input, Output};
use crate::folder::write_directory;
use crate::onnx;
use clap::Args;
use lowrank::Result;
use lowrank::files::write_file;
use lowrank::lora::merge;
use lowrank::text::thousands;
use std::iter::once;

/// Arguments of `export`.
#[derive(Args)]
pub struct Export {
    /// Write model.onnx (opset 17, f32): logits [batch, C] of input_ids and attention_mask, both [batch, sequence] of int64; of a BERT that was
    /// trained on pairs of texts also of token_type_ids. config.json and the
    /// tokenizer's files are in the same folder
    #[arg(long, required = true)]
    onnx: bool,
    #[command(flatten)]
    base: BaseArgs,
    /// Folder of an adapter that is merged first, or the name of a fetched one; not needed if the checkpoint has a trained head
    #[arg(long, value_name = "DIR|NAME", value_parser = parsed(named))]
    adapter: Option<Named>,
    #[command(flatten)]
    output: Output,
}

impl Export {
    /// Runs the command.
    pub(super) fn run(self) -> Result<()> {
        let (base, adapter, out) = (&self.base.model.path, self.adapter.as_ref(), &self.output.out);
        let adapter_folder = adapter.map(|named| Input::Model("the adapter", named.directory.clone()));
        let inputs: Vec<Input> = once(Input::Model("the model", base.clone())).chain(adapter_folder).collect();
        let _lock = self.output.check(&inputs)?;
        let Adapted { mut model, wordpiece, labels, about, .. } = self.base.open(adapter.cloned().into_iter().collect())?.remove(0);
        merge(&mut model)?;
        let file = onnx::encode(&model, about.is_some_and(|about| about.pairs))?;
        model.check_unchanged()?;
        write_directory(out, |directory| {
            write_file(&directory.join("model.onnx"), &file)?;
            model.save_without_weights(base, &labels, directory)?;
            let tokenizer = directory.join("tokenizer.json");
            if tokenizer.exists() { Ok(()) } else { write_file(&tokenizer, wordpiece.to_json()?.as_bytes()) }
        })?;
        say(format!("{}: model.onnx of {} bytes, with its tokenizer and the names of its classes", out.display(), thousands(file.len())))
    }
}
