//! BERT against transformers: `tests/interop/bert.py` made the reference values. And against DistilBERT, which is the same model but for a few places.

use lowrank::autograd::ops::Attention;
use lowrank::autograd::{Grads, Tape};
use lowrank::lora::Method;
use lowrank::nn::{Architecture, Config, DistilBert, LoadOptions, Pass, site};
use lowrank::tensor::safetensors::{SafeTensors, write};
use lowrank::tensor::{DType, Sequences, Tensor};
use lowrank::train::{AdamW, Schedule};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bert");

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(all) => all.iter().flat_map(numbers).collect(),
        one => vec![one.as_f64().unwrap()],
    }
}

/// max |ours − theirs| / max |theirs|.
fn assert_close(name: &str, ours: &[f64], theirs: &[f64], bound: f64) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let scale = theirs.iter().fold(1e-12, |m: f64, x| m.max(x.abs()));
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= bound * scale, "{name}: {worst:e} apart, of {scale:e}");
}

/// The norm of a tensor, and Σ xᵢ cos(i + 1).
fn two_numbers(x: &[f64]) -> Vec<f64> {
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    vec![norm, x.iter().enumerate().map(|(i, x)| x * ((i + 1) as f64).cos()).sum()]
}

/// A folder of reference values.
struct Golden {
    json: Value,
    /// The tensors themselves, unless they are too large for the repository.
    tensors: Option<SafeTensors>,
}

impl Golden {
    fn open(name: &str) -> Golden {
        let folder = Path::new(FOLDER).join(name);
        let json = serde_json::from_str(&std::fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
        let file = folder.join("golden.safetensors");
        Golden { json, tensors: file.exists().then(|| SafeTensors::open(&file).unwrap()) }
    }

    fn check(&self, name: &str, ours: &Tensor, bound: f64) {
        let ours = ours.to_f64().unwrap();
        match &self.tensors {
            Some(file) => assert_close(name, &ours, &file.tensor(name).unwrap().to_f64().unwrap(), bound),
            None => {
                // The second number is a sum of terms of both signs: its error is one of the norm.
                let (ours, theirs) = (two_numbers(&ours), numbers(&self.json["tensors"][name]));
                assert!((0..2).all(|i| (ours[i] - theirs[i]).abs() <= bound * theirs[0].max(1e-12)), "{name}: {ours:?} {theirs:?}");
            }
        }
    }

    /// Ids, labels and pass of these examples, or of all.
    fn batch(&self, chosen: Option<&[usize]>) -> (Vec<u32>, Vec<u32>, Pass) {
        let all = self.json["examples"].as_array().unwrap();
        let chosen: Vec<&Value> = chosen.map_or(all.iter().collect(), |chosen| chosen.iter().map(|&i| &all[i]).collect());
        let ids: Vec<Vec<u32>> = chosen.iter().map(|e| serde_json::from_value(e["ids"].clone()).unwrap()).collect();
        let labels = chosen.iter().map(|e| e["label"].as_u64().unwrap() as u32).collect();
        let sequences = Sequences::new(&ids.iter().map(Vec::len).collect::<Vec<_>>(), vec![0; ids.len()]).unwrap();
        (ids.concat(), labels, Pass::evaluation(Arc::new(sequences)))
    }

    /// Logits, loss and gradients.
    fn step(&self, model: &DistilBert, chosen: Option<&[usize]>) -> (Vec<f64>, f64, Grads) {
        let (ids, labels, pass) = self.batch(chosen);
        let mut tape = Tape::new();
        let logits = model.forward(&mut tape, &ids, &pass).unwrap();
        let loss = tape.cross_entropy(&logits, &labels, labels.len()).unwrap();
        (logits.value().to_f64().unwrap(), loss.value().item().unwrap(), tape.backward(&loss).unwrap())
    }

    /// Compares a model in f64: hidden states, logits, loss, all gradients, and twenty steps of full fine-tuning.
    fn compare(&self, model: &mut DistilBert) {
        Method::Full.apply(model, 0).unwrap();
        let (ids, _, pass) = self.batch(None);
        let states = model.hidden_states(&mut Tape::inference(), &ids, &pass).unwrap();
        assert_eq!(states.len(), model.blocks.len() + 1);
        for (i, h) in states.iter().enumerate() {
            self.check(&format!("hidden.{i}"), h.value(), 1e-9);
        }
        let (logits, loss, grads) = self.step(model, None);
        assert_close("logits", &logits, &numbers(&self.json["logits"]), 1e-9);
        assert_close("loss", &[loss], &numbers(&self.json["loss"]), 1e-9);
        assert_eq!(model.parameters().len(), model.weights().len());
        for p in model.parameters() {
            // K's bias adds the same to all scores of a query: its gradient is zero but for rounding.
            if !p.name().ends_with("self.key.bias") {
                self.check(&format!("grad.{}", p.name()), grads.get(p).unwrap(), 1e-9);
            }
        }
        let own = &self.json["optimizer"];
        let number = |key: &str| own[key].as_f64().unwrap();
        let mut adamw = AdamW::new(number("weight_decay"));
        adamw.eps = number("eps");
        let [warmup, total] = ["warmup_steps", "steps"].map(|key| number(key) as usize);
        for (t, step) in self.json["trajectory"].as_array().unwrap().iter().enumerate() {
            let chosen: Vec<usize> = serde_json::from_value(step["examples"].clone()).unwrap();
            let (_, loss, grads) = self.step(model, Some(&chosen));
            let lr = number("lr") * Schedule::Linear.factor(t, warmup, total);
            let norm = adamw.update(&mut model.parameters_mut(), grads, lr, number("clip_grad_norm")).unwrap().item().unwrap();
            let theirs = ["loss", "grad_norm", "lr"].map(|key| step[key].as_f64().unwrap());
            for (ours, theirs) in [loss, norm, lr].into_iter().zip(theirs) {
                assert_close(&format!("step {t}"), &[ours], &[theirs], 1e-8);
            }
        }
        for p in model.parameters().into_iter().filter(|p| !p.name().ends_with("self.key.bias")) {
            self.check(&format!("after.{}", p.name()), p.value(), 1e-8);
        }
        assert_close("logits after", &self.step(model, None).0, &numbers(&self.json["logits_after"]), 1e-8);
    }
}

fn open(folder: &Path, dtype: DType) -> DistilBert {
    DistilBert::open_with(folder, &LoadOptions { dtype, ..LoadOptions::default() }).unwrap().0
}

#[test]
fn random_checkpoints_of_odd_sizes_are_those_of_transformers() {
    for name in ["narrow", "eps", "wide"] {
        let mut model = open(&Path::new(FOLDER).join(name), DType::F64);
        assert!(!model.pre_classifier_in_head);
        Golden::open(name).compare(&mut model);
    }
}

/// all-MiniLM-L6-v2 in BERT's layout: `tests/interop/bert.py` says where it comes from. `LOWRANK_MINILM` is its folder.
#[test]
fn a_real_checkpoint_is_that_of_transformers() {
    let Some(folder) = std::env::var_os("LOWRANK_MINILM") else {
        eprintln!("skipped: LOWRANK_MINILM does not name a folder");
        return;
    };
    let mut model = open(Path::new(&folder), DType::F64);
    let weight = (0..2 * 384).map(|i| f64::from(i).sin() / 8.0).map(|x| f64::from(x as f32)).collect();
    model.classifier.weight.set(Tensor::from_f64(weight, DType::F64, [2, 384]).unwrap()).unwrap();
    Golden::open("minilm-l6").compare(&mut model);
}

/// Writes a DistilBERT in BERT's layout, with token types of zero, into a new folder.
fn as_bert(distilbert: &Path) -> tempfile::TempDir {
    let (config, file) = (Config::open(distilbert).unwrap(), SafeTensors::open(distilbert).unwrap());
    let out = tempfile::tempdir().unwrap();
    let parts = [
        ("distilbert.", "bert."),
        ("transformer.layer", "encoder.layer"),
        ("attention.q_lin", "attention.self.query"),
        ("attention.k_lin", "attention.self.key"),
        ("attention.v_lin", "attention.self.value"),
        ("attention.out_lin", "attention.output.dense"),
        ("sa_layer_norm", "attention.output.LayerNorm"),
        ("ffn.lin1", "intermediate.dense"),
        ("ffn.lin2", "output.dense"),
        ("output_layer_norm", "output.LayerNorm"),
    ];
    let renamed = |name: &str| parts.iter().fold(name.to_string(), |name, (ours, theirs)| name.replace(ours, theirs));
    let mut tensors: Vec<(String, Tensor)> = file.names().map(|name| (renamed(name), file.tensor(name).unwrap())).collect();
    let types = "bert.embeddings.token_type_embeddings.weight".to_string();
    tensors.push((types, Tensor::zeros(DType::F32, [2, config.dim])));
    write(&out.path().join("model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    let mut bert = config;
    (bert.architecture, bert.type_vocab_size) = (Architecture::Bert, 2);
    std::fs::write(out.path().join("config.json"), bert.to_json().unwrap().to_string()).unwrap();
    out
}

#[test]
fn a_distilbert_in_berts_layout_has_the_same_hidden_states() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = std::env::var_os("LOWRANK_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    for folder in [root.join("assets/encoder"), shared.join("checkpoints/minilm-l6-distilbert")] {
        // The second is not in the repository.
        if !folder.exists() {
            eprintln!("skipped: there is no {}", folder.display());
            continue;
        }
        let bert = as_bert(&folder);
        let [ours, theirs] = [&folder, bert.path()].map(|folder| {
            let model = open(folder, DType::F64);
            let lengths = [40, 1, 17];
            let pass = Pass::evaluation(Arc::new(Sequences::new(&lengths, vec![0; 3]).unwrap()));
            let ids: Vec<u32> = (0..58).map(|i| 1000 + i * 37).collect();
            let states = model.hidden_states(&mut Tape::inference(), &ids, &pass).unwrap();
            states.iter().flat_map(|h| h.value().to_f64().unwrap()).collect::<Vec<_>>()
        });
        assert_close("hidden states", &theirs, &ours, 1e-12);
    }
}

/// Golden values know no dropout.
#[test]
fn berts_attention_output_has_a_dropout_of_its_own() {
    let mut config = Config::open(&Path::new(FOLDER).join("wide")).unwrap();
    (config.n_layers, config.attention_dropout) = (1, 0.0);
    let model = DistilBert::random(&config, 2, DType::F64, 3).unwrap();
    let block = &model.blocks[0];
    let sequences = Arc::new(Sequences::new(&[7, 4], vec![5, 6]).unwrap());
    let pass = Pass::training(sequences.clone(), 9);
    let h = Tensor::from_f64((0..11 * config.dim).map(|i| (i as f64).sin()).collect(), DType::F64, [11, config.dim]).unwrap();
    let mut tape = Tape::inference();
    let h = tape.constant(&h);
    let [q, k, v] = block.qkv.each_ref().map(|linear| linear.forward(&mut tape, &pass, &h).unwrap());
    let op = Attention { heads: config.n_heads, queries: sequences.clone(), keys: sequences.clone(), extra: false, mask: None };
    let context = tape.apply(op, &[&q, &k, &v]).unwrap();
    let out = block.out.forward(&mut tape, &pass, &context).unwrap();
    let dropped = tape.dropout(&out, pass.mask(config.dropout, site::attention_output(0)), &sequences).unwrap();
    let sum = tape.add(&dropped, &h).unwrap();
    let a = block.sa_layer_norm.forward(&mut tape, &pass, &sum).unwrap();
    let wide = block.lin1.forward(&mut tape, &pass, &a).unwrap();
    let wide = tape.gelu(&wide).unwrap();
    let narrow = block.lin2.forward(&mut tape, &pass, &wide).unwrap();
    let dropped = tape.dropout(&narrow, pass.mask(config.dropout, site::ffn(0)), &sequences).unwrap();
    let sum = tape.add(&dropped, &a).unwrap();
    let y = block.output_layer_norm.forward(&mut tape, &pass, &sum).unwrap();
    let found = block.forward(&mut tape, &pass, &h, lowrank::nn::Wanted::All).unwrap();
    assert_close("block", &found.value().to_f64().unwrap(), &y.value().to_f64().unwrap(), 1e-12);
}

#[test]
fn what_is_not_bert_is_refused_by_name() {
    let read = |more: Value| {
        let dir = tempfile::tempdir().unwrap();
        let mut json = Config::bert_base().to_json().unwrap();
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
        Config::open(dir.path())
    };
    for (more, words) in [
        (json!({ "model_type": "roberta" }), "is \"roberta\""),
        (json!({ "model_type": "modernbert" }), "is \"modernbert\""),
        (json!({ "model_type": "albert" }), "is \"albert\""),
        (json!({ "model_type": null, "embedding_size": 128 }), "model_type"),
        (json!({ "hidden_act": "gelu_new" }), "\"gelu_new\""),
        (json!({ "hidden_act": "relu" }), "\"relu\""),
        (json!({ "position_embedding_type": "relative_key" }), "relative_key"),
        (json!({ "is_decoder": true }), "is_decoder"),
        (json!({ "hidden_size": null }), "hidden_size"),
        (json!({ "num_attention_heads": 7 }), "multiple"),
        (json!({ "layer_norm_eps": 0.0 }), "layer_norm_eps"),
        (json!({ "layer_norm_eps": "small" }), "layer_norm_eps"),
        (json!({ "type_vocab_size": 0 }), "type_vocab_size"),
        (json!({ "classifier_dropout": 1.5 }), "dropouts"),
    ] {
        let message = read(more.clone()).unwrap_err().to_string();
        assert!(message.contains(words), "{more}: {message}");
    }
    // BERT's first files, and TinyBERT's, have no model_type. The classifier's dropout is that of the hidden states if it is not given.
    let config =
        read(json!({ "model_type": null, "classifier_dropout": null, "hidden_dropout_prob": 0.3, "layer_norm_eps": 1e-5 })).unwrap();
    assert_eq!((config.architecture, config.seq_classif_dropout, config.layer_norm_eps), (Architecture::Bert, 0.3, 1e-5));
    assert_eq!((config.dim, config.hidden_dim, config.n_layers, config.type_vocab_size), (768, 3072, 12, 2));
}
