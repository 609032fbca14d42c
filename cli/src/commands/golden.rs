//! Compares the engine with a folder of reference values that another program computed: hidden states, logits, loss, every gradient, twenty
//! optimizer steps, the trained adapter.

use lowrank::autograd::{Tape, Var};
use lowrank::files::read_text;
use lowrank::lora::adapter;
use lowrank::nn::{DistilBert, LoadOptions, Pass};
use lowrank::tensor::math::largest;
use lowrank::tensor::safetensors::SafeTensors;
use lowrank::tensor::{DType, Sequences, Tensor};
use lowrank::train::{AdamW, Schedule};
use lowrank::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// One compared quantity.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was compared.
    pub name: String,
    /// max |ours − reference| / max |reference|.
    pub difference: f64,
    /// Largest difference allowed.
    pub tolerance: f64,
}

impl Comparison {
    /// Whether the difference is within the tolerance; a NaN is not.
    pub fn passed(&self) -> bool {
        self.difference <= self.tolerance
    }
}

#[derive(Deserialize)]
struct Reference {
    examples: Vec<Example>,
    forward: Forward,
    optimizer: Optimizer,
    trajectory: Vec<Step>,
    after: After,
}

#[derive(Deserialize)]
struct Example {
    ids: Vec<u32>,
    label: u32,
}

#[derive(Clone, Deserialize)]
struct Forward {
    logits: Vec<Vec<f64>>,
    loss: f64,
    cls_hidden_per_layer_first_row: Vec<Vec<f64>>,
}

#[derive(Clone, Deserialize)]
struct Optimizer {
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    clip_grad_norm: f64,
    warmup_steps: usize,
    steps: usize,
}

#[derive(Clone, Deserialize)]
struct Step {
    examples: Vec<usize>,
    lr: f64,
    loss: f64,
    grad_norm: f64,
}

#[derive(Deserialize)]
struct After {
    logits: Vec<Vec<f64>>,
}

/// Largest differences allowed, by data type: of values and losses, gradients, trajectory, adapter.
fn tolerances(dtype: DType) -> [f64; 4] {
    match dtype {
        DType::F64 => [1e-9, 1e-9, 1e-8, 1e-7],
        // A bf16 number has 8 significant bits, and six layers round.
        DType::BF16 => [5e-2, 1e-1, 5e-2, 5e-2],
        _ => [1e-5, 1e-4, 1e-5, 1e-4],
    }
}

/// Compares in the order of computation, so that the first failure names the first place that differs. `place` moves the model to the device
/// that computes.
///
/// # Errors
/// If a file is missing or malformed. A difference is not an `Err`: see [`Comparison::passed`].
pub fn compare(model: &Path, reference: &Path, dtype: DType, place: &dyn Fn(&mut DistilBert) -> Result<()>) -> Result<Vec<Comparison>> {
    let path = reference.join("reference.json");
    let text = read_text(&path)?;
    let wanted: Reference = serde_json::from_str(&text).map_err(|e| Error::file(&path, "reference", e))?;
    let initial = reference.join("adapter_init");
    let options = LoadOptions { classes: Some(adapter::classes(&initial)?), dtype, ..LoadOptions::default() };
    let mut model = DistilBert::open_with(model, &options)?.0;
    adapter::load(&mut model, &initial)?;
    place(&mut model)?;
    let mut golden = Golden { folder: reference, wanted, tolerances: tolerances(dtype), found: Vec::new() };
    golden.first_pass(&model)?;
    golden.training(&mut model)?;
    golden.trained(&model)?;
    Ok(golden.found)
}

/// The comparison as far as it got.
struct Golden<'a> {
    folder: &'a Path,
    wanted: Reference,
    /// Of values and losses, gradients, trajectory, adapter.
    tolerances: [f64; 4],
    found: Vec<Comparison>,
}

impl Golden<'_> {
    fn add(&mut self, name: String, ours: &[f64], reference: &[f64], tolerance: f64) {
        self.found.push(Comparison { name, difference: difference(ours, reference), tolerance });
    }

    /// Hidden states, logits, loss and gradients of all examples, before training.
    fn first_pass(&mut self, model: &DistilBert) -> Result<()> {
        let [value, gradient, ..] = self.tolerances;
        let (ids, labels, pass) = self.batch(None)?;
        let mut tape = Tape::new();
        let mut hidden: Vec<(String, Vec<f64>)> = Vec::new();
        let mut observe = |name: &str, h: &Var| {
            let values = h.value().index(0).and_then(|row| row.to_f64()).unwrap_or_default();
            hidden.push((name.to_string(), values));
        };
        let logits = model.forward_observed(&mut tape, &ids, &pass, &mut observe)?;
        let wanted = self.wanted.forward.clone();
        if hidden.len() != wanted.cls_hidden_per_layer_first_row.len() {
            let (path, key) = (self.folder.join("reference.json"), "cls_hidden_per_layer_first_row");
            return Err(Error::file(path, key, "does not have one row per layer of this model"));
        }
        for ((name, ours), reference) in hidden.iter().zip(&wanted.cls_hidden_per_layer_first_row) {
            self.add(format!("hidden {name}"), &ours[..reference.len().min(ours.len())], reference, value);
        }
        self.add("logits".into(), &logits.value().to_f64()?, &wanted.logits.concat(), value);
        let loss = tape.cross_entropy(&logits, &labels, labels.len())?;
        self.add("loss".into(), &[loss.value().item()?], &[wanted.loss], value);

        let grads = tape.backward(&loss)?;
        let file = SafeTensors::open(&self.folder.join("grads_f64.safetensors"))?;
        let key = adapter::keys(model);
        for p in model.parameters() {
            let reference = file.tensor(&key(p.name()))?.to_f64()?;
            let ours = grads.get(p).map(Tensor::to_f64).transpose()?.unwrap_or_default();
            self.add(format!("gradient {}", p.name()), &ours, &reference, gradient);
        }
        Ok(())
    }

    /// Loss, gradient norm and learning rate of each optimizer step.
    fn training(&mut self, model: &mut DistilBert) -> Result<()> {
        let [_, gradient, trajectory, _] = self.tolerances;
        let optimizer = self.wanted.optimizer.clone();
        let mut adamw = AdamW::new(optimizer.weight_decay);
        (adamw.betas, adamw.eps) = (optimizer.betas, optimizer.eps);
        for (t, step) in self.wanted.trajectory.clone().into_iter().enumerate() {
            let (ids, labels, pass) = self.batch(Some(&step.examples))?;
            let mut tape = Tape::new();
            let logits = model.forward(&mut tape, &ids, &pass)?;
            let loss = tape.cross_entropy(&logits, &labels, labels.len())?;
            let grads = tape.backward(&loss)?;
            let lr = optimizer.lr * Schedule::Linear.factor(t, optimizer.warmup_steps, optimizer.steps);
            let norm = adamw.update(&mut model.parameters_mut(), grads, lr, optimizer.clip_grad_norm)?.item()?;
            self.add(format!("step {t} loss"), &[loss.value().item()?], &[step.loss], trajectory);
            self.add(format!("step {t} gradient norm"), &[norm], &[step.grad_norm], gradient.max(trajectory));
            self.add(format!("step {t} learning rate"), &[lr], &[step.lr], trajectory);
        }
        Ok(())
    }

    /// The trained adapter, and its logits.
    fn trained(&mut self, model: &DistilBert) -> Result<()> {
        let [.., trajectory, adapter] = self.tolerances;
        let file = SafeTensors::open(&self.folder.join("adapter_trained/adapter_model.safetensors"))?;
        let key = adapter::keys(model);
        for p in model.parameters() {
            let reference = file.tensor(&key(p.name()))?.to_f64()?;
            self.add(format!("trained {}", p.name()), &p.value().to_f64()?, &reference, adapter);
        }
        let (ids, _, pass) = self.batch(None)?;
        let logits = model.forward(&mut Tape::inference(), &ids, &pass)?;
        let wanted = self.wanted.after.logits.concat();
        self.add("logits after training".into(), &logits.value().to_f64()?, &wanted, trajectory.max(adapter));
        Ok(())
    }

    /// Ids, labels and sequences of the examples `indices`, or of all.
    fn batch(&self, indices: Option<&[usize]>) -> Result<(Vec<u32>, Vec<u32>, Pass)> {
        let all: Vec<usize> = (0..self.wanted.examples.len()).collect();
        let indices = indices.unwrap_or(&all);
        let examples: Vec<&Example> = indices.iter().filter_map(|&i| self.wanted.examples.get(i)).collect();
        let lengths: Vec<usize> = examples.iter().map(|e| e.ids.len()).collect();
        let sequences = Sequences::new(&lengths, indices.iter().map(|&i| i as u32).collect())?;
        let ids = examples.iter().flat_map(|e| e.ids.iter().copied()).collect();
        Ok((ids, examples.iter().map(|e| e.label).collect(), Pass::evaluation(Arc::new(sequences))))
    }
}

/// max |ours − reference| / max |reference|, or the plain difference if the reference is zero.
fn difference(ours: &[f64], reference: &[f64]) -> f64 {
    if ours.len() != reference.len() {
        return f64::INFINITY;
    }
    let scale = reference.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let worst = largest(ours.iter().zip(reference).map(|(a, b)| (a - b).abs()));
    if scale > 0.0 { worst / scale } else { worst }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_seen() {
        assert_eq!(difference(&[1.0, 2.0], &[1.0, 4.0]), 0.5);
        assert!(difference(&[f64::NAN], &[1.0]).is_nan() && difference(&[f64::NAN, 3.0], &[1.0, 1.0]).is_nan());
        assert_eq!(difference(&[], &[1.0]), f64::INFINITY);
    }

    #[test]
    fn the_engine_agrees_with_peft() {
        for (kind, dtype) in [("lora", DType::F64), ("lora", DType::F32), ("dora", DType::F64), ("dora", DType::F32)] {
            // The reference values are in the folder `../shared` or in `LOWRANK_SHARED`. Without them the test is skipped.
            let root = std::env::var_os("LOWRANK_SHARED");
            let root = root.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), std::path::PathBuf::from);
            let shared = |path: &str| Some(root.join(path)).filter(|path| path.exists());
            let (Some(model), Some(reference)) = (shared("checkpoints/minilm-l6-distilbert"), shared(&format!("golden/{kind}"))) else {
                return;
            };
            let found = compare(&model, &reference, dtype, &|_| Ok(())).unwrap();
            assert!(found.len() > 100);
            let mut worst = std::collections::BTreeMap::<String, f64>::new();
            for c in &found {
                let kind = c.name.split(' ').next().unwrap().to_string();
                let w = worst.entry(kind).or_default();
                *w = w.max(c.difference);
            }
            eprintln!("{kind} {dtype}: {worst:?}");
            let failed: Vec<_> = found.iter().filter(|c| !c.passed()).collect();
            assert!(failed.is_empty(), "{kind} {dtype}: {failed:?}");
        }
    }
}
