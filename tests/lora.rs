//! What LoRA promises, on whole models.

use lowrank::autograd::{Grads, Tape, Var, gradcheck};
use lowrank::lora::{Combination, Counts, LoraConfig, Method, adapt, adapter, combine, merge};
use lowrank::nn::{Config, DistilBert, Hook, Pass, Weight, WeightFn};
use lowrank::tensor::philox::Stream;
use lowrank::tensor::{DType, Sequences, Shape, Tensor, safetensors};
use lowrank::train::AdamW;
use lowrank::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

const IDS: [u32; 9] = [2, 7, 11, 3, 2, 9, 30, 8, 3];
const LABELS: [u32; 2] = [0, 1];

fn tiny() -> DistilBert {
    let mut config = Config::distilbert_base();
    (config.dim, config.n_heads, config.hidden_dim, config.n_layers) = (16, 2, 32, 2);
    (config.vocab_size, config.max_position_embeddings, config.initializer_range) = (40, 24, 0.3);
    DistilBert::random(&config, 2, DType::F64, 1).unwrap()
}

fn pass(lengths: &[usize], examples: &[u32], dropout: bool) -> Pass {
    let sequences = Arc::new(Sequences::new(lengths, examples.to_vec()).unwrap());
    if dropout { Pass::training(sequences, 5) } else { Pass::evaluation(sequences) }
}

fn both(dropout: bool) -> Pass {
    pass(&[4, 5], &[3, 4], dropout)
}

fn logits(model: &DistilBert, ids: &[u32], pass: &Pass) -> Vec<f64> {
    model.forward(&mut Tape::new(), ids, pass).unwrap().value().to_f64().unwrap()
}

fn loss_and_grads(model: &DistilBert, dropout: bool) -> (f64, Grads) {
    let mut tape = Tape::new();
    let out = model.forward(&mut tape, &IDS, &both(dropout)).unwrap();
    let loss = tape.cross_entropy(&out, &LABELS, 2).unwrap();
    (loss.value().item().unwrap(), tape.backward(&loss).unwrap())
}

/// Moves every parameter off its start: B is not zero then.
fn shaken(mut model: DistilBert) -> DistilBert {
    let mut random = Stream::new(3, "shake");
    for p in model.parameters_mut() {
        let moved = p.value().to_f64().unwrap().iter().map(|x| x + 0.2 * (random.uniform() - 0.5)).collect();
        p.set(Tensor::from_f64(moved, DType::F64, p.value().shape()).unwrap());
    }
    model
}

fn adapted(targets: &[&str]) -> DistilBert {
    let mut model = tiny();
    adapt(&mut model, &LoraConfig::new(3, targets), 0).unwrap();
    model
}

/// The gradient of the loss in all parameters, against finite differences.
fn assert_gradients(model: &DistilBert) {
    let (_, grads) = loss_and_grads(model, true);
    model.parameters().iter().for_each(|p| assert!(grads.get(p).is_some(), "{} has no gradient", p.name()));
    let found = gradcheck::check(
        |tape, _| {
            let logits = model.forward(tape, &IDS, &both(true))?;
            tape.cross_entropy(&logits, &LABELS, 2)
        },
        &[],
    );
    let found = found.unwrap();
    assert!(found.error < 1e-8, "{found:?}");
}

#[test]
fn counts_equal_the_studys_table() {
    let mut model = DistilBert::random(&Config::distilbert_base(), 2, DType::F32, 0).unwrap();
    for (rank, targets, trainable) in [
        (4, &["q_lin", "v_lin"][..], 665_858),
        (8, &["q_lin", "v_lin"], 739_586),
        (16, &["q_lin", "v_lin"], 887_042),
        (8, &["q_lin", "k_lin", "v_lin", "out_lin"], 887_042),
        (8, &["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"], 1_255_682),
    ] {
        adapt(&mut model, &LoraConfig::new(rank, targets), 0).unwrap();
        let counts = Counts::of(&model);
        assert_eq!(counts, Counts { trainable, base: 66_955_010 });
        model.linears_mut().into_iter().for_each(|l| l.terms.clear());
        if trainable == 739_586 {
            assert_eq!(counts.peft_line(), "trainable params: 739,586 || all params: 67,694,596 || trainable%: 1.0925");
            assert_eq!(format!("{:.2}", counts.percent()), "1.10");
        }
    }
}

#[test]
fn a_target_that_matches_nothing_is_an_error_with_the_nearest_names() {
    for bad in ["value", "lin", "q_li", ""] {
        let e = adapt(&mut tiny(), &LoraConfig::new(2, &["q_lin", bad]), 0).unwrap_err().to_string();
        assert!(e.contains(&format!("{bad:?}")) && e.contains("_lin"), "{e}");
    }
    // BERT's name of v.
    let e = adapt(&mut tiny(), &LoraConfig::new(2, &["value"]), 0).unwrap_err().to_string();
    assert!(e.contains("\"value\"") && e.contains("v_lin"), "{e}");
}

#[test]
fn training_starts_at_the_base_exactly() {
    for dropout in [false, true] {
        assert_eq!(logits(&tiny(), &IDS, &both(dropout)), logits(&adapted(&["q_lin", "lin1"]), &IDS, &both(dropout)));
    }
    let model = adapted(&["q_lin", "lin1"]);
    let (_, grads) = loss_and_grads(&model, false);
    for p in model.parameters() {
        let zero = grads.get(p).unwrap().to_f64().unwrap().iter().all(|&g| g == 0.0);
        assert_eq!(zero, p.name().contains("lora_A"), "{}", p.name());
    }
}

#[test]
fn merged_equals_unmerged() {
    let mut model = shaken(adapted(&["q_lin", "v_lin", "out_lin", "lin2"]));
    let unmerged = logits(&model, &IDS, &both(false));
    let bits = |model: &DistilBert| -> Vec<u64> {
        model.weights().iter().flat_map(|w| w.value().unwrap().to_f64().unwrap()).map(f64::to_bits).collect()
    };
    let (before, parameters) = (bits(&model), model.parameters().len());
    let merged = merge(&mut model).unwrap();
    assert!(merged.linears() == 8 && model.linears_mut().iter().all(|l| l.terms.is_empty()));
    assert_ne!(before, bits(&model));
    for (a, b) in unmerged.iter().zip(logits(&model, &IDS, &both(false))) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }
    merged.undo(&mut model);
    assert_eq!((before, parameters), (bits(&model), model.parameters().len()));
    assert_eq!(unmerged, logits(&model, &IDS, &both(false)));
    assert!(merge(&mut with_every_seam()).is_err_and(|e| e.to_string().contains("only low-rank terms")));
}

#[test]
fn the_whole_model_has_the_right_gradients() {
    assert_gradients(&shaken(adapted(&["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"])));
    let mut full = tiny();
    let names: Vec<String> = full.weights().iter().map(|w| w.name().to_string()).collect();
    full.parts_mut().into_iter().for_each(|part| part.weight().train().unwrap());
    assert_eq!(full.parameters().len(), names.len());
    assert_gradients(&full);
}

#[test]
fn exactly_the_parameters_get_gradients_and_the_base_stays() {
    let mut model = adapted(&["q_lin", "v_lin"]);
    let base = |m: &DistilBert| -> Vec<u64> {
        let frozen = m.weights().into_iter().filter(|w| w.name().starts_with("distilbert"));
        frozen.flat_map(|w| w.value().unwrap().to_f64().unwrap()).map(f64::to_bits).collect()
    };
    let before = base(&model);
    let mut adamw = AdamW::new(0.01);
    let first = loss_and_grads(&model, false).0;
    for _ in 0..3 {
        let (_, grads) = loss_and_grads(&model, false);
        assert_eq!(grads.len(), model.parameters().len());
        assert!(model.parameters().iter().all(|p| grads.get(p).is_some()));
        adamw.update(&mut model.parameters_mut(), grads, 1e-2, 1.0).unwrap();
    }
    assert_eq!(before, base(&model));
    assert!(loss_and_grads(&model, false).0 < first);
}

#[test]
fn frozen_paths_record_nothing() {
    let model = tiny();
    let mut tape = Tape::new();
    model.forward(&mut tape, &IDS, &both(true)).unwrap();
    assert!(tape.is_empty());
    let model = adapted(&["layer.1.attention.q_lin"]);
    let mut tape = Tape::with_ledger();
    model.forward(&mut tape, &IDS, &both(true)).unwrap();
    let below: Vec<_> = tape.ledger().iter().filter(|r| r.layer.contains("embeddings") || r.layer.contains("layer.0")).collect();
    assert!(below.len() > 8);
    assert!(below.iter().all(|r| r.saved.is_empty() && !r.needs.contains(&true) && r.flops[1] == 0));
}

#[test]
fn a_packed_sequence_equals_itself_alone() {
    for model in [shaken(adapted(&["q_lin", "lin2"])), with_every_seam()] {
        for dropout in [false, true] {
            let packed = logits(&model, &IDS, &both(dropout));
            let alone = |ids, length, example| logits(&model, ids, &pass(&[length], &[example], dropout));
            let alone = [alone(&IDS[..4], 4, 3), alone(&IDS[4..], 5, 4)].concat();
            for (a, b) in packed.iter().zip(alone) {
                assert!((a - b).abs() < 1e-12, "{a} {b}");
            }
        }
        assert_ne!(logits(&model, &IDS, &both(false)), logits(&model, &IDS, &both(true)));
        assert_ne!(logits(&model, &IDS, &both(true)), logits(&model, &IDS, &pass(&[4, 5], &[3, 5], true)), "masks follow the example");
    }
}

struct Bottleneck(Weight);

impl Hook for Bottleneck {
    fn forward<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, h: &Var) -> Result<Var> {
        let w = self.0.var(tape, pass)?;
        let y = tape.linear(h, &w, None)?;
        let y = tape.gelu(&y)?;
        tape.add(&y, h)
    }
    fn weights(&self) -> Vec<&Weight> {
        vec![&self.0]
    }
    fn weights_mut(&mut self) -> Vec<&mut Weight> {
        vec![&mut self.0]
    }
}

/// W₀ ⊙ θ, θ shared.
struct Rescaled(Tensor);

impl WeightFn for Rescaled {
    fn forward(&self, tape: &mut Tape, theta: &Var) -> Result<Var> {
        let w = tape.constant(&self.0);
        tape.mul(&w, theta)
    }
    fn shape(&self) -> &Shape {
        self.0.shape()
    }
    fn constants_mut(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.0]
    }
}

/// Hooks after both sublayers, a prefix, a prompt and a computed weight.
fn with_every_seam() -> DistilBert {
    let random = |name: &str, dims: &[usize]| {
        let mut s = Stream::new(4, name);
        let values = (0..dims.iter().product()).map(|_| s.normal() * 0.3).collect();
        Weight::trained(name, Tensor::from_f64(values, DType::F64, dims).unwrap())
    };
    let mut model = tiny();
    model.blocks[0].hooks = [Some(Box::new(Bottleneck(random("after attention", &[16, 16])))), None];
    model.blocks[1].hooks = [None, Some(Box::new(Bottleneck(random("after feed-forward", &[16, 16]))))];
    model.blocks[1].prefix = Some([random("prefix k", &[2, 16]), random("prefix v", &[2, 16])]);
    model.prompt = Some(random("prompt", &[3, 16]));
    model.shared = Some(random("theta", &[32, 16]));
    for linear in model.blocks.iter_mut().map(|b| &mut b.lin1) {
        let function = Box::new(Rescaled(linear.weight.value().unwrap()));
        linear.weight = Weight::Computed { name: linear.weight.name().to_string(), function };
    }
    model
}

#[test]
fn every_seam_carries_gradients() {
    let model = with_every_seam();
    assert_eq!(model.parameters().len(), 6);
    assert_gradients(&model);
}

#[test]
fn an_adapter_comes_back_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let config = LoraConfig::new(3, &["q_lin", "lin1"]);
    // The file is f32, so the model must be too for equal bits.
    let mut small = Config::distilbert_base();
    (small.dim, small.n_heads, small.hidden_dim, small.n_layers, small.vocab_size) = (16, 2, 32, 2, 40);
    let fresh = |seed| DistilBert::random(&small, 2, DType::F32, seed).unwrap();
    let mut model = fresh(1);
    adapt(&mut model, &config, 9).unwrap();
    for p in model.parameters_mut() {
        let moved = p.value().to_f64().unwrap().iter().enumerate().map(|(i, x)| x + (i as f64).sin()).collect();
        p.set(Tensor::from_f64(moved, DType::F32, p.value().shape()).unwrap());
    }
    adapter::save(&model, &Method::Lora(config.clone()), "base", directory.path()).unwrap();
    let mut again = fresh(1);
    adapter::load(&mut again, directory.path()).unwrap();
    assert_eq!(logits(&model, &IDS, &both(false)), logits(&again, &IDS, &both(false)));
    assert_eq!(adapter::classes(directory.path()).unwrap(), 2);

    let path = directory.path().join("adapter_config.json");
    let json = std::fs::read_to_string(&path).unwrap();
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(fields.len(), 41, "as many as PEFT writes");
    for (from, to, message) in [
        ("\"lora_alpha\": 6", "\"alpha\": 6", "lora_alpha"),
        ("\"r\": 3", "\"r\": 4", "\"r\" in adapter_config.json is 4"),
        ("\"r\": 3", "\"r\": 0", "\"r\""),
        ("\"r\": 3", "\"r\": 3.5", "\"r\""),
        // Refused before memory is taken for it.
        ("\"r\": 3", "\"r\": 4000000000000", "rank must be at least 1 and at most 4096"),
        ("\"LORA\"", "\"LOHA\"", "peft_type"),
        ("\"use_dora\": false", "\"use_dora\": true", "lora_magnitude_vector"),
        ("\"use_qalora\": false", "\"use_qalora\": true", "use_qalora"),
        ("\"lin1\"", "\"lin2\"", "lin2.lora_A.weight"),
        ("    \"lin1\",\n", "", "is not part of the adapter"),
        ("{", "", "config"),
    ] {
        assert!(json.contains(from), "{from} in {json}");
        std::fs::write(&path, json.replacen(from, to, 1)).unwrap();
        let e: Error = adapter::load(&mut fresh(1), directory.path()).unwrap_err();
        assert!(e.to_string().contains(message), "{e} should say {message}");
    }
    std::fs::write(&path, json).unwrap();
    let path = directory.path().join("adapter_model.safetensors");
    let tensors = adapter::tensors(&model).unwrap();
    let key = "base_model.model.distilbert.transformer.layer.1.attention.q_lin.lora_B.weight";
    let at = tensors.iter().position(|(name, _)| name == key).unwrap();
    let fails = |tensors: &[(String, Tensor)], message: &str| {
        safetensors::write(&path, tensors, &BTreeMap::new()).unwrap();
        let e = adapter::load(&mut fresh(1), directory.path()).unwrap_err().to_string();
        assert!(e.contains(message), "{e} should say {message}");
    };
    let mut missing = tensors.clone();
    missing.remove(at);
    fails(&missing, key);
    let mut extra = tensors.clone();
    extra.push(("base_model.model.surplus".to_string(), tensors[at].1.clone()));
    fails(&extra, "base_model.model.surplus");
    let mut turned = tensors.clone();
    turned[at].1 = Tensor::zeros(DType::F32, [3, 16]);
    fails(&turned, key);
    fails(&[], "lora_A");
    safetensors::write(&path, &tensors, &BTreeMap::new()).unwrap();
    adapter::load(&mut fresh(1), directory.path()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(adapter::load(&mut fresh(1), directory.path()).is_err());
}

#[test]
fn an_adapter_that_is_changed_in_place_gives_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut small = Config::distilbert_base();
    (small.dim, small.n_heads, small.hidden_dim, small.n_layers, small.vocab_size) = (16, 2, 32, 2, 40);
    let fresh = || DistilBert::random(&small, 2, DType::F32, 1).unwrap();
    let mut model = fresh();
    let config = LoraConfig::new(3, &["q_lin", "v_lin"]);
    adapt(&mut model, &config, 9).unwrap();
    adapter::save(&model, &Method::Lora(config), "base", directory.path()).unwrap();
    let load = || {
        let mut model = fresh();
        adapter::load(&mut model, directory.path()).unwrap();
        model
    };
    let (model, sequences) = (load(), Arc::new(Sequences::new(&[IDS.len()], vec![0]).unwrap()));
    let path = adapter::tensors_path(directory.path());
    type Answer = fn(&DistilBert, &Arc<Sequences>) -> lowrank::Result<()>;
    let answers: [Answer; 3] = [
        |m, _| lowrank::train::predict(m, &[&IDS[..]], 1).map(drop),
        |m, _| m.attention(&IDS, 0).map(drop),
        |m, sequences| m.embeddings(&IDS, sequences).map(drop),
    ];
    answers.iter().for_each(|answer| answer(&model, &sequences).unwrap());
    // The same size, and another time.
    let bytes = std::fs::read(&path).unwrap();
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, &bytes).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time + std::time::Duration::from_secs(1)).unwrap();
    let refused = |e: Error| assert!(e.to_string().contains("adapter_model.safetensors: content: was changed by another program"), "{e}");
    answers.iter().for_each(|answer| refused(answer(&model, &sequences).unwrap_err()));
    refused(combine(&mut fresh(), vec![(model, 1.0)], Combination::Cat).unwrap_err());
    // Opened again, it is as it is now.
    answers.iter().for_each(|answer| answer(&load(), &sequences).unwrap());
}

#[test]
fn a_weight_that_no_sum_can_have_is_named() {
    for (weights, message) in [
        (vec![1e308], "weight 1e308 of an adapter must be a number from 0 to 1000000"),
        (vec![0.5, f64::NAN], "weight NaN"),
        (vec![1.0, -1.0], "weight -1e0"),
        (vec![0.0, 0.0], "above 0"),
        (vec![], "above 0"),
    ] {
        let adapted = weights.into_iter().map(|weight| (adapted(&["q_lin"]), weight)).collect();
        let said = combine(&mut tiny(), adapted, Combination::Cat).unwrap_err().to_string();
        assert!(said.contains(message), "{said} should say {message}");
    }
}
