//! `lowrank init` writes a random checkpoint; `lowrank inspect` shows the contents of one.

use super::common::{say, say_json};
use super::output::{Input, Output};
use crate::folder::write_directory;
use clap::{Args, ValueEnum};
use lowrank::data::WordPiece;
use lowrank::files::{copy_file, is_there};
use lowrank::lora::{About, Method, adapter};
use lowrank::nn::{Config, DistilBert, TOKENIZER_FILES, in_head};
use lowrank::tensor::safetensors::{self, SafeTensors};
use lowrank::tensor::{DType, Shape};
use lowrank::text::thousands;
use lowrank::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Arguments of `init`.
#[derive(Args)]
pub struct InitArgs {
    /// Architecture
    #[arg(long, value_enum)]
    like: Like,
    /// A vocab.txt, a tokenizer.json, or a folder with one of them. It is copied into the checkpoint with the other tokenizer files, and
    /// determines the size of the vocabulary
    #[arg(long, value_name = "PATH")]
    vocab: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Known architectures.
#[derive(Clone, Copy, ValueEnum)]
enum Like {
    /// 6 layers, 768 wide, 12 heads.
    DistilbertBase,
    /// 12 layers, 768 wide, 12 heads.
    BertBase,
}

impl InitArgs {
    /// Runs the command.
    pub(super) fn run(self) -> Result<()> {
        let out = &self.output.out;
        let mut inputs = Vec::new();
        if let Some(vocab) = &self.vocab {
            let (folder, file) =
                if vocab.is_dir() { (vocab.as_path(), vocab.join("vocab.txt")) } else { (vocab.parent().unwrap_or(vocab), vocab.clone()) };
            inputs.push(Input::Data("the vocabulary", file));
            if folder.join("config.json").exists() {
                inputs.push(Input::Model("the model", folder.to_path_buf()));
            }
        }
        let _lock = self.output.check(&inputs)?;
        let mut config = match self.like {
            Like::DistilbertBase => Config::distilbert_base(),
            Like::BertBase => Config::bert_base(),
        };
        let wordpiece = self.vocab.as_deref().map(WordPiece::open).transpose()?;
        if let Some(wordpiece) = &wordpiece {
            config.vocab_size = wordpiece.vocab_size();
        }
        let model = DistilBert::random(&config, 2, DType::F32, self.seed)?;
        // A base checkpoint has no head. The head is made for the task.
        let encoder = model.weights().into_iter().filter(|w| !in_head(w.name()));
        let tensors: Vec<_> = encoder.map(|w| Ok((w.name().to_string(), w.value()?))).collect::<Result<_>>()?;
        let about = About::new(&model, &[], config.max_position_embeddings, self.seed);
        write_directory(out, |directory| {
            let text = config
                .to_json()
                .and_then(|json| serde_json::to_string_pretty(&json))
                .map_err(|e| Error::file(directory, "config.json", e))?;
            lowrank::files::write_file(&directory.join("config.json"), text.as_bytes())?;
            if let (Some(vocab), Some(wordpiece)) = (&self.vocab, &wordpiece) {
                write_tokenizer(vocab, wordpiece, directory)?;
            }
            about.write(directory)?;
            let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
            safetensors::write(&directory.join("model.safetensors"), &tensors, &metadata)
        })?;
        let numbers: usize = tensors.iter().map(|(_, t)| t.shape().len()).sum();
        say(format!("{}: {} random weights, {} numbers", out.display(), tensors.len(), thousands(numbers)))
    }
}

/// Copies the tokenizer's files from `from`, a file or a folder, and writes `tokenizer.json` if there is none.
fn write_tokenizer(from: &Path, wordpiece: &WordPiece, directory: &Path) -> Result<()> {
    const VOCABULARIES: [&str; 2] = ["vocab.txt", "tokenizer.json"];
    let copy = |from: &Path, name: &str| copy_file(from, &directory.join(name));
    let folder = if from.is_dir() { from } else { from.parent().unwrap_or(Path::new("")) };
    for name in TOKENIZER_FILES {
        // If `from` is a file, it is the only vocabulary that is copied.
        if is_there(&folder.join(name)) && (from.is_dir() || !VOCABULARIES.contains(&name)) {
            copy(&folder.join(name), name)?;
        }
    }
    if !from.is_dir() {
        let json = from.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        copy(from, VOCABULARIES[usize::from(json)])?;
    }
    let json = directory.join("tokenizer.json");
    if !json.exists() {
        lowrank::files::write_file(&json, wordpiece.to_json()?.as_bytes())?;
    }
    let written = WordPiece::open(directory)?;
    if (written.rules(), written.vocabulary()) != (wordpiece.rules(), wordpiece.vocabulary()) {
        let problem = "beside a DistilBERT, letter case and accents come from tokenizer_config.json, not from tokenizer.json; put one beside \
                       it that says so (\"do_lower_case\": false)";
        return Err(Error::file(from, "normalizer", problem));
    }
    Ok(())
}

/// Arguments of `inspect`.
#[derive(Args)]
pub struct Inspect {
    /// Folder of a checkpoint or of an adapter, or a safetensors file
    path: PathBuf,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Runs the command.
    pub(super) fn run(self) -> Result<()> {
        let adapter = self.path.join("adapter_model.safetensors");
        let is_adapter = adapter.exists();
        let file = SafeTensors::open(if is_adapter { &adapter } else { &self.path })?;
        let mut facts = Vec::new();
        if is_adapter {
            let classes = adapter::classes(&self.path)?;
            facts.push(match adapter::method(&self.path)? {
                Method::Lora(c) => {
                    let scale = c.alpha / if c.rank_stabilised { (c.rank as f64).sqrt() } else { c.rank as f64 };
                    let targets = c.target_pattern.clone().unwrap_or_else(|| c.targets.join(", "));
                    let excluded = c.exclude_pattern.clone().unwrap_or_else(|| c.exclude.join(", "));
                    let but = if excluded.is_empty() { excluded } else { format!(" but {excluded}") };
                    format!("LoRA of rank {}, alpha {}, scale {scale}, dropout {}, on {targets}{but}", c.rank, c.alpha, c.dropout)
                }
                Method::Head { pre_classifier: true } => "the classifier and the linear before it".to_string(),
                Method::Head { pre_classifier: false } => "the classifier".to_string(),
                Method::BitFit => "BitFit: biases and head".to_string(),
                Method::Bottleneck { size, placement } => format!("adapters ({placement:?}) of size {size}"),
                Method::Prompt { tokens } => format!("a prompt of {tokens} virtual tokens"),
                Method::Prefix { tokens } => format!("a prefix of {tokens} virtual tokens"),
                other => format!("{other:?}"),
            });
            facts.extend(adapter::facts(&self.path)?);
            facts.push(format!("head of {classes} classes"));
        } else if self.path.join("config.json").exists() {
            let c = Config::open(&self.path)?;
            let sizes = format!("{} layers, {} wide, {} heads, feed-forward {}", c.n_layers, c.dim, c.n_heads, c.hidden_dim);
            facts.push(format!("{}: {sizes}, vocabulary {}, {} positions", c.architecture.name(), c.vocab_size, c.max_position_embeddings));
        }
        let tensors: Vec<_> = file.names().filter_map(|name| Some((name, file.info(name)?))).collect();
        let bytes: usize = tensors.iter().map(|(_, i)| i.bytes.len()).sum();
        // A shape of a type that is not known here may say anything.
        let numbers = tensors.iter().try_fold(0_usize, |all, (_, i)| all.checked_add(Shape::from(&i.shape).checked_len()?));
        let numbers = numbers.ok_or_else(|| Error::file(file.path(), "shapes", "have more numbers than can be"))?;
        if self.json {
            let list: Vec<_> =
                tensors.iter().map(|(n, i)| json!({ "name": n, "dtype": i.dtype, "shape": i.shape, "bytes": i.bytes.len() })).collect();
            let all = json!({ "path": file.path().display().to_string(), "facts": facts, "metadata": file.metadata(), "tensors": list, "numbers": numbers, "bytes": bytes });
            return say_json(&all);
        }
        say(file.path().display())?;
        facts.iter().try_for_each(say)?;
        for (name, info) in &tensors {
            say(format!("  {:<5} {:<14} {:>12} bytes  {name}", info.dtype, format!("{:?}", info.shape), thousands(info.bytes.len())))?;
        }
        say(format!("{} tensors, {} numbers, {} bytes", tensors.len(), thousands(numbers), thousands(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_gets_all_files_of_its_tokenizer() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        write("words", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nGood\nfilm\n");
        write("tokenizer_config.json", r#"{"do_lower_case": false}"#);
        write("added_tokens.json", r#"{"New word": 8}"#);
        let made = |from: &str, to: &str| {
            let wordpiece = WordPiece::open(&path(from)).unwrap();
            std::fs::create_dir(path(to)).unwrap();
            std::fs::write(path(to).join("config.json"), r#"{"model_type": "distilbert"}"#).unwrap();
            let result = write_tokenizer(&path(from), &wordpiece, &path(to));
            let names = TOKENIZER_FILES.into_iter().filter(|name| path(to).join(name).is_file()).collect::<Vec<_>>();
            result.map(|()| (WordPiece::open(&path(to)).unwrap().encode("Good New wordfilm", 9), names))
        };
        let all = vec!["vocab.txt", "tokenizer.json", "tokenizer_config.json", "added_tokens.json"];
        let ids = vec![2, 6, 8, 7, 3];
        assert_eq!(made("words", "of_text").unwrap(), (ids.clone(), all.clone()));
        assert_eq!(made("of_text/tokenizer.json", "of_json").unwrap(), (ids.clone(), all[1..].to_vec()));
        assert_eq!(made("of_text", "of_folder").unwrap(), (ids, all));
        // The rules of a tokenizer.json count only if it is not in the folder of a DistilBERT.
        std::fs::create_dir(path("alone")).unwrap();
        std::fs::copy(path("of_json/tokenizer.json"), path("alone/tokenizer.json")).unwrap();
        assert!(made("alone", "never").unwrap_err().to_string().contains("do_lower_case"));
    }
}
