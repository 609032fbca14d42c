//! What `lowrank` does without a command: LoRA on the bundled tiny encoder and the bundled reviews.

use super::Outcome;
use super::common::say;
use super::progress::Progress;
use super::train::{describe, evaluate_on};
use crate::data::{Split, TableOptions, Tokenized, WordPiece, load, load_with_labels};
use crate::lora::{Counts, LoraConfig, adapt};
use crate::nn::DistilBert;
use crate::tensor::DType;
use crate::train::{AdamW, Observer, Recipe, StepReport, fit, predict};
use crate::{Error, Result};
use std::path::Path;

/// The bundled files: name and bytes.
const ENCODER: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../../assets/encoder/config.json")),
    ("model.safetensors", include_bytes!("../../assets/encoder/model.safetensors")),
    ("vocab.txt", include_bytes!("../../assets/encoder/vocab.txt")),
];
const REVIEWS: [(&str, &[u8]); 2] =
    [("train.tsv", include_bytes!("../../assets/train.tsv")), ("test.tsv", include_bytes!("../../assets/test.tsv"))];

const EXAMPLES: [&str; 3] = [
    "A warm, funny film with a wonderful cast. I loved every minute of it.",
    "Dull, badly written and far too long. I walked out.",
    "I expected very little and was surprised how good it is.",
];

/// Puts the bundled files where the loaders can map them, for as long as the run.
struct Unpacked(std::path::PathBuf);

impl Unpacked {
    fn new() -> Result<Unpacked> {
        let folder = std::env::temp_dir().join(format!("lowrank-demo-{}", std::process::id()));
        let unpacked = Unpacked(folder);
        let folder = &unpacked.0;
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        for (name, bytes) in ENCODER.iter().chain(&REVIEWS) {
            std::fs::write(folder.join(name), bytes).map_err(|e| Error::io(folder.join(name), e))?;
        }
        Ok(unpacked)
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // Left-overs in the temporary folder do no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Watch(Progress);

impl Observer for Watch {
    fn step(&mut self, report: &StepReport) -> bool {
        self.0.step(report);
        true
    }
    fn epoch(&mut self, _epoch: usize, _model: &DistilBert) -> Result<()> {
        Ok(())
    }
}

/// Trains, measures before and after, classifies a few reviews.
pub(super) fn run() -> Result<Outcome> {
    let unpacked = Unpacked::new()?;
    let folder: &Path = &unpacked.0;
    let options = TableOptions::default();
    let wordpiece = WordPiece::open(&folder.join("vocab.txt"))?;
    let reviews = load(&folder.join("train.tsv"), Split::Train, &options)?;
    let train = Tokenized::new(&reviews, &wordpiece, 128);
    let test = load_with_labels(&folder.join("test.tsv"), Split::Test, &options, Some(&reviews.label_names))?;
    let test = Tokenized::new(&test, &wordpiece, 128);
    let mut model = DistilBert::open(folder, 2, DType::F32, 0)?.0;
    adapt(&mut model, &LoraConfig::new(8, &["q_lin", "v_lin"]), 0)?;
    say(format!("A tiny bundled encoder (4 layers, 128 wide), LoRA of rank 8 on Q and V, {} short film reviews.", train.len()))?;
    say(Counts::of(&model).peft_line())?;
    say(format!("before: {}", describe(&evaluate_on(&model, &test, 32)?)))?;
    let recipe = Recipe { epochs: 8, lr: 3e-3, ..Recipe::default() };
    let mut watch = Watch(Progress::new(recipe.steps_per_epoch(train.len()) * recipe.epochs));
    let started = std::time::Instant::now();
    fit(&mut model, &train, &recipe, &mut AdamW::new(recipe.weight_decay), &mut watch)?;
    watch.0.finish();
    let seconds = started.elapsed().as_secs_f64();
    say(format!("after {} epochs in {seconds:.0} s: {}", recipe.epochs, describe(&evaluate_on(&model, &test, 32)?)))?;
    let ids: Vec<Vec<u32>> = EXAMPLES.iter().map(|t| wordpiece.encode(t, 128)).collect();
    let answers = predict(&model, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>(), 16)?;
    for (text, p) in EXAMPLES.iter().zip(answers) {
        say(format!("  {} {:.0} %  {text}", if p[1] > p[0] { "positive" } else { "negative" }, 100.0 * p[1].max(p[0])))?;
    }
    say(
        "\nThe encoder is tiny and the reviews are hard (irony, negation, understatement). The same on IMDB, with a DistilBERT checkpoint in DIR:",
    )?;
    say("  lowrank train --model DIR --data aclImdb_v1.tar.gz --out adapter")?;
    say("  lowrank predict --model DIR --adapter adapter \"What a film!\"")?;
    Ok(Outcome::Done)
}
