//! A number that is not finite is refused by name wherever it turns up: in a model that answers or trains, and in what is loaded, merged, combined or
//! written.

use lowrank::data::Tokenized;
use lowrank::files::write_file;
use lowrank::lora::{Combination, LoraConfig, Method, adapter, combine, merge};
use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::safetensors::{to_bytes, write};
use lowrank::tensor::{DType, Tensor};
use lowrank::train::{AdamW, Observer, Recipe, StepReport, evaluate, fit, load_checkpoint, measure, predict, save_checkpoint};
use std::path::Path;

fn config() -> Config {
    let mut config = Config::distilbert_base();
    (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (16, 2, 32, 2, 40);
    config
}

fn base(dtype: DType) -> DistilBert {
    DistilBert::random(&config(), 2, dtype, 1).unwrap()
}

/// A model with low-rank terms, none of them zero.
fn adapted(dtype: DType) -> DistilBert {
    let mut model = base(dtype);
    method().apply(&mut model, 4).unwrap();
    for p in model.parameters_mut() {
        let moved = p.value().to_f64().unwrap().iter().enumerate().map(|(i, x)| x + 0.01 * (i % 7) as f64).collect();
        p.set(Tensor::from_f64(moved, p.value().dtype(), p.value().shape()).unwrap());
    }
    model
}

fn method() -> Method {
    Method::Lora(LoraConfig::new(2, &["q_lin", "lin1"]))
}

/// `t` with `bad` as element `at`.
fn spoilt(t: &Tensor, at: usize, bad: f64) -> Tensor {
    let mut values = t.to_f64().unwrap();
    values[at] = bad;
    Tensor::from_f64(values, t.dtype(), t.shape()).unwrap()
}

/// Puts `bad` into the one weight whose name is or ends in `name`; returns that name.
fn spoil(model: &mut DistilBert, name: &str, at: usize, bad: f64) -> String {
    let mut found = Vec::new();
    for weight in model.parts_mut().into_iter().map(|part| part.weight()) {
        if weight.name() == name || weight.name().ends_with(&format!(".{name}")) {
            weight.set(spoilt(&weight.value().unwrap(), at, bad)).unwrap();
            found.push(weight.name().to_string());
        }
    }
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.remove(0)
}

fn says<T>(result: lowrank::Result<T>, parts: &[&str]) {
    let said = result.map(|_| ()).unwrap_err().to_string();
    assert!(parts.iter().all(|part| said.contains(part)), "should say {parts:?}: {said}");
}

/// Of different lengths: the second is computed first.
const TEXTS: [&[u32]; 3] = [&[1, 2], &[3, 4, 5, 6], &[1, 7, 8]];

/// The same with labels.
fn texts() -> Tokenized {
    Tokenized { ids: TEXTS.concat(), offsets: vec![0, 2, 6, 9], labels: vec![0, 1, 0], ..Tokenized::default() }
}

#[test]
fn no_prediction_comes_of_a_nan_in_any_weight() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        assert!(predict(&base(dtype), &TEXTS, 2).is_ok());
        let names: Vec<String> = base(dtype).weights().iter().map(|w| w.name().to_string()).collect();
        for name in names {
            let mut model = base(dtype);
            // Token 1 is in the first text and in the third.
            let at = if name.ends_with("word_embeddings.weight") { 16 + 3 } else { 0 };
            spoil(&mut model, &name, at, f64::NAN);
            says(predict(&model, &TEXTS, 2), &["text ", "answers NaN", &format!("tensor {name:?} holds NaN at ")]);
            says(evaluate(&model, &texts(), 2), &["answers NaN", &name]);
        }
    }
}

#[test]
fn a_prediction_that_is_not_finite_is_told_by_its_text() {
    let mut model = base(DType::F32);
    // Of token 6, which the second text alone has.
    spoil(&mut model, "word_embeddings.weight", 6 * 16, f64::INFINITY);
    says(predict(&model, &TEXTS, 16), &["text 2: the model answers NaN", "word_embeddings.weight\" holds inf at [6, 0]"]);
    assert!(predict(&model, &[TEXTS[0], TEXTS[2]], 16).is_ok());
    // Finite weights whose sum is not.
    let mut model = base(DType::F32);
    for at in 0..16 {
        spoil(&mut model, "pre_classifier.weight", at, 3e38);
    }
    says(predict(&model, &TEXTS, 16), &["text 2: the model answers ", "every weight is finite, so a sum of them is too large"]);
}

#[test]
fn a_measure_takes_a_probability_of_zero_and_no_nan() {
    let (found, answers) = measure(&[vec![0.0, 1.0], vec![0.25, 0.75]], &[0, 1]).unwrap();
    assert!(answers == [1, 1] && found.loss.is_finite() && found.loss > 300.0 && found.accuracy == 0.5, "{found:?}");
    says(measure(&[vec![0.5, 0.5], vec![f64::NAN, f64::NAN]], &[0, 1]), &["text 2", "NaN"]);
    says(measure(&[vec![f64::NAN, 1.0]], &[1]), &["text 1", "NaN"]);
}

/// How many steps were taken.
struct Steps(usize);

impl Observer for Steps {
    fn step(&mut self, report: &StepReport) -> bool {
        assert!(report.loss.is_finite() && report.grad_norm.is_finite());
        // Five texts in batches of two.
        assert_eq!(report.epoch, 1 + (report.step - 1) / 3);
        self.0 += 1;
        true
    }
}

fn data() -> Tokenized {
    let ids = (0..25).map(|i| i * 11 % 40).collect();
    Tokenized {
        ids,
        offsets: vec![0, 5, 8, 15, 19, 25],
        labels: vec![0, 1, 1, 0, 1],
        label_names: vec!["a".into(), "b".into()],
        ..Tokenized::default()
    }
}

#[test]
fn nothing_trains_on_a_model_that_holds_a_nan() {
    let head = Method::Head { pre_classifier: false };
    for (method, cache_trunk) in [(method(), false), (head.clone(), false), (head, true)] {
        let recipe = Recipe { batch: 2, cache_trunk, ..Recipe::default() };
        let mut model = base(DType::F32);
        let name = spoil(&mut model, "layer.0.attention.q_lin.weight", 7, f64::NAN);
        method.apply(&mut model, 0).unwrap();
        let values = |model: &DistilBert| model.parameters().iter().map(|p| p.value().to_f64().unwrap()).collect::<Vec<_>>();
        let (before, mut steps) = (values(&model), Steps(0));
        let ended = fit(&mut model, &data(), &recipe, &mut AdamW::new(0.01), &mut steps);
        says(ended, &["step 1: the loss is NaN", &format!("tensor {name:?} holds NaN at [0, 7]"), "take another checkpoint"]);
        assert!(steps.0 == 0 && values(&model) == before);
    }
}

#[test]
fn a_run_that_goes_too_far_says_to_lower_the_learning_rate() {
    let mut model = base(DType::F32);
    Method::Full.apply(&mut model, 0).unwrap();
    let recipe = Recipe { batch: 2, lr: 1e30, warmup: 0.0, ..Recipe::default() };
    let mut optimizer = AdamW::new(0.01);
    says(fit(&mut model, &data(), &recipe, &mut optimizer, &mut Steps(0)), &["step 2: ", "begin anew with a learning rate lower than"]);
}

#[test]
fn an_adapter_with_a_number_that_is_not_finite_is_not_loaded() {
    let directory = tempfile::tempdir().unwrap();
    adapter::save(&adapted(DType::F32), &method(), "base", directory.path()).unwrap();
    assert!(adapter::load(&mut base(DType::F32), directory.path()).is_ok());
    let tensors = adapter::tensors(&adapted(DType::F32)).unwrap();
    for i in 0..tensors.len() {
        let mut tensors = tensors.clone();
        let name = tensors[i].0.clone();
        let mut write_with = |bad| {
            tensors[i].1 = spoilt(&tensors[i].1, 1, bad);
            let bytes = to_bytes(&tensors, &Default::default()).unwrap();
            write_file(&directory.path().join("adapter_model.safetensors"), &bytes).unwrap();
        };
        for bad in [f64::NAN, f64::NEG_INFINITY] {
            write_with(bad);
            let parts = ["adapter_model.safetensors", &name, &format!("holds {bad} at [")];
            says(adapter::load(&mut base(DType::F32), directory.path()), &parts);
            says(adapter::load_with(&mut base(DType::F32), directory.path(), true), &parts);
        }
        // It is finite in f32, which a bf16 model keeps factors and heads in.
        write_with(f64::from(f32::MAX));
        assert!(adapter::load(&mut base(DType::BF16), directory.path()).is_ok());
    }
}

#[test]
fn nothing_is_merged_or_combined_with_a_number_that_is_not_finite() {
    let names = ["layer.0.attention.q_lin.lora_A.weight", "layer.1.ffn.lin1.lora_B.weight"];
    for (name, bad) in names.into_iter().flat_map(|name| [(name, f64::NAN), (name, f64::INFINITY)]) {
        let broken = || {
            let mut model = adapted(DType::F32);
            (spoil(&mut model, name, 3, bad), model)
        };
        let (whole, mut model) = broken();
        says(merge(&mut model), &["merge", &whole, &format!("holds {bad}")]);
        for how in [Combination::Linear, Combination::Cat, Combination::Svd { rank: 2 }] {
            let both = vec![(adapted(DType::F32), 0.5), (broken().1, 0.5)];
            says(combine(&mut base(DType::F32), both, how), &["combine", &whole, &format!("holds {bad}")]);
        }
    }
    // Finite, but too large together: element [1, 3] of W, and [1, 0] of B, with [0, 3] of A.
    for (name, at) in [("layer.1.ffn.lin1.weight", 16 + 3), ("layer.1.ffn.lin1.lora_B.weight", 2)] {
        let mut model = adapted(DType::F32);
        spoil(&mut model, name, at, 3.4e38);
        spoil(&mut model, "layer.1.ffn.lin1.lora_A.weight", 3, 3.4e38);
        says(merge(&mut model), &["merge", "layer.1.ffn.lin1.weight", "holds "]);
    }
    for name in ["pre_classifier.weight", "classifier.bias"] {
        let mut broken = adapted(DType::F32);
        let name = spoil(&mut broken, name, 0, f64::NAN);
        says(combine(&mut base(DType::F32), vec![(broken, 1.0)], Combination::Cat), &["combine", &name, "holds NaN"]);
    }
    let mut model = base(DType::F32);
    Method::Lora(LoraConfig { dora: true, ..LoraConfig::new(2, &["q_lin"]) }).apply(&mut model, 0).unwrap();
    let name = spoil(&mut model, "layer.0.attention.q_lin.lora_magnitude_vector", 2, f64::NAN);
    says(merge(&mut model), &["merge", &name, "holds NaN at [2]"]);
}

/// A base without a head.
fn write_base(directory: &Path) {
    let model = base(DType::F32);
    let encoder = model.weights().into_iter().filter(|w| w.name().starts_with("distilbert."));
    let tensors: Vec<_> = encoder.map(|w| (w.name().to_string(), w.value().unwrap())).collect();
    write(&directory.join("model.safetensors"), &tensors, &Default::default()).unwrap();
    std::fs::write(directory.join("config.json"), serde_json::to_string(&config()).unwrap()).unwrap();
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn nothing_is_written_that_is_not_finite() {
    let (from, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_base(from.path());
    let mut model = adapted(DType::F32);
    let name = spoil(&mut model, "layer.1.attention.q_lin.lora_A.weight", 5, f64::NAN).replace("distilbert", "base_model.model.distilbert");
    says(adapter::save(&model, &method(), "base", out.path()), &[&name, "holds NaN at [0, 5]"]);
    says(save_checkpoint(&out.path().join("c.safetensors"), &model, &AdamW::new(0.0), ""), &["q_lin.lora_A.weight", "holds NaN at [0, 5]"]);

    let mut model = base(DType::F32);
    Method::Full.apply(&mut model, 0).unwrap();
    let name = spoil(&mut model, "layer.1.sa_layer_norm.bias", 5, f64::INFINITY);
    let labels = ["bad".to_string(), "good".to_string()];
    says(model.save(from.path(), &labels, out.path()), &[&name, "holds inf at [5]"]);
    assert_eq!(files(out.path()), 0);
}

#[test]
fn a_checkpoint_that_holds_a_nan_is_not_gone_on_from() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("checkpoint.safetensors");
    let (mut model, mut optimizer) = (adapted(DType::F32), AdamW::new(0.0));
    fit(&mut model, &data(), &Recipe { batch: 5, epochs: 1, ..Recipe::default() }, &mut optimizer, &mut Steps(0)).unwrap();
    save_checkpoint(&path, &model, &optimizer, "").unwrap();
    load_checkpoint(&path, &mut model, &mut optimizer, "").unwrap();
    // The last four bytes are of the last tensor by name: a moment of an adapter's.
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    says(load_checkpoint(&path, &mut model, &mut optimizer, ""), &["checkpoint.safetensors", "tensor \"v.", "holds NaN"]);
}
