//! The ways to fine-tune: what trains and how much, gradients, files, and the cached trunk.

use lowrank::autograd::{Grads, Tape, gradcheck};
use lowrank::data::Tokenized;
use lowrank::lora::dylora::{first_ranks, truncate};
use lowrank::lora::{Bias, Combination, Counts, LoraConfig, Method, Placement, adapter, combine, merge};
use lowrank::nn::{Architecture, Config, DistilBert, LoadOptions, Pass, Weight, WeightRef, in_head, in_pooler};
use lowrank::tensor::svd::svd;
use lowrank::tensor::{DType, Sequences, Tensor};
use lowrank::train::{AdamW, FrozenFeatures, Recipe, fit};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

fn small() -> Config {
    let mut config = Config::distilbert_base();
    (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (16, 2, 32, 3, 40);
    config
}

/// A small BERT.
fn small_bert() -> Config {
    let mut config = small();
    (config.architecture, config.type_vocab_size) = (Architecture::Bert, 2);
    config
}

/// The sizes of a model of either architecture, and all methods with its names.
fn models() -> Vec<(Config, Vec<Method>)> {
    let bert = |name: &str| match name {
        "q_lin" => "query",
        "v_lin" => "value",
        "lin1" => "intermediate.dense",
        "lin2" => "output.dense",
        "sa_layer_norm" => "attention.output.LayerNorm",
        "layer.2.attention.q_lin" => "layer.2.attention.self.query",
        other => panic!("{other}"),
    };
    // PEFT's `dense` means the pooler, too; and the pooler can be trained.
    let of_pooler = ["dense", "query"].map(|target| LoraConfig {
        modules_to_save: if target == "query" { vec!["pooler".to_string()] } else { Vec::new() },
        ..LoraConfig::new(2, &[target])
    });
    let in_bert = methods(&|name| bert(name).to_string()).into_iter().chain(of_pooler.map(Method::Lora)).collect();
    vec![(small(), methods(&|name| name.to_string())), (small_bert(), in_bert)]
}

/// All methods, with names made by `name` of DistilBERT's.
fn methods(name: &dyn Fn(&str) -> String) -> Vec<Method> {
    let lora = |rank: usize, targets: &[&str]| {
        let named: Vec<String> =
            targets.iter().map(|target| if *target == "all-linear" { target.to_string() } else { name(target) }).collect();
        LoraConfig::new(rank, &named.iter().map(String::as_str).collect::<Vec<_>>())
    };
    vec![
        Method::Head { pre_classifier: false },
        Method::Head { pre_classifier: true },
        Method::Full,
        Method::Selective { frozen_layers: 2 },
        Method::BitFit,
        Method::Lora(lora(2, &["q_lin", "lin2"])),
        Method::Lora(LoraConfig {
            rank_stabilised: true,
            rank_pattern: [(name("lin1"), 3), (name("layer.2.attention.q_lin"), 1)].into(),
            alpha_pattern: [(name("lin1"), 5.0)].into(),
            layers: vec![0, 2],
            bias: Bias::LoraOnly,
            ..lora(2, &["q_lin", "lin1"])
        }),
        Method::Lora(LoraConfig { bias: Bias::All, ..lora(2, &["all-linear"]) }),
        Method::Bottleneck { size: 3, placement: Placement::Houlsby },
        Method::Bottleneck { size: 2, placement: Placement::Pfeiffer },
        Method::Prompt { tokens: 3 },
        Method::Prefix { tokens: 2 },
        Method::Lora(LoraConfig { dora: true, ..lora(2, &["q_lin", "lin2"]) }),
        Method::Lora(LoraConfig { freeze_a: true, modules_to_save: vec![name("sa_layer_norm")], ..lora(2, &["v_lin"]) }),
        Method::Intrinsic { dimension: 7, seed: 2 },
        // 7,168 of them to a weight of 512: Fastfood.
        Method::Intrinsic { dimension: 140, seed: 3 },
    ]
}

const IDS: [u32; 9] = [1, 5, 7, 39, 2, 1, 8, 3, 2];
const LABELS: [u32; 2] = [1, 0];

fn sequences() -> Arc<Sequences> {
    Arc::new(Sequences::new(&[5, 4], vec![3, 11]).unwrap())
}

fn loss_and_gradients(model: &DistilBert, dropout: Option<u64>) -> (f64, Grads) {
    let mut tape = Tape::new();
    let pass = Pass { dropout_seed: dropout, ..Pass::evaluation(sequences()) };
    let logits = model.forward(&mut tape, &IDS, &pass).unwrap();
    let loss = tape.cross_entropy(&logits, &LABELS, 2).unwrap();
    (loss.value().item().unwrap(), tape.backward(&loss).unwrap())
}

fn logits(model: &DistilBert) -> Vec<f64> {
    model.forward(&mut Tape::inference(), &IDS, &Pass::evaluation(sequences())).unwrap().value().to_f64().unwrap()
}

/// Adds `step` times a fixed direction to all that trains.
fn moved(model: &mut DistilBert, step: f64) {
    let mut number = 0.0;
    for p in model.parameters_mut() {
        let mut next = || {
            number += 1.0;
            (number * 0.7_f64).sin()
        };
        let values = p.value().to_f64().unwrap().iter().map(|x| x + step * next()).collect();
        p.set(Tensor::from_f64(values, p.value().dtype(), p.value().shape()).unwrap());
    }
}

#[test]
fn what_trains_has_the_right_gradient_and_nothing_else_has_one() {
    for (config, method) in models().iter().flat_map(|(config, methods)| methods.iter().map(move |method| (config, method))) {
        let mut model = DistilBert::random(config, 2, DType::F64, 1).unwrap();
        method.apply(&mut model, 4).unwrap();
        moved(&mut model, 0.05);
        let (_, grads) = loss_and_gradients(&model, Some(9));
        assert_eq!(grads.len(), model.parameters().len(), "{method:?}");
        // No gradient goes through the row norms of DoRA. They are read from the model, not from the tape, so the check does not move them either.
        let found = gradcheck::check(
            |tape, _| {
                let logits = model.forward(tape, &IDS, &Pass { dropout_seed: Some(9), ..Pass::evaluation(sequences()) })?;
                tape.cross_entropy(&logits, &LABELS, 2)
            },
            &[],
        );
        let found = found.unwrap();
        assert!(found.error <= 1e-7, "{method:?}: {found:?}");
    }
}

#[test]
fn the_first_ranks_work_alone() {
    let mut model = DistilBert::random(&small(), 2, DType::F64, 1).unwrap();
    let config = LoraConfig { rank_pattern: [("lin1".to_string(), 2)].into(), ..LoraConfig::new(4, &["q_lin", "lin1"]) };
    Method::Lora(config).apply(&mut model, 4).unwrap();
    moved(&mut model, 0.1);
    // A pass over three ranks is the adapter cut to them, and has no gradient for the others.
    let pass = Pass { part: first_ranks(Some(3)), ..Pass::evaluation(sequences()) };
    let mut tape = Tape::new();
    let some = model.forward(&mut tape, &IDS, &pass).unwrap();
    let loss = tape.cross_entropy(&some, &LABELS, 2).unwrap();
    let grads = tape.backward(&loss).unwrap();
    let a = model.parameters().into_iter().find(|p| p.name().ends_with("1.attention.q_lin.lora_A.weight")).unwrap();
    let g = grads.get(a).unwrap().to_f64().unwrap();
    assert!(g[..3 * 16].iter().all(|&g| g != 0.0) && g[3 * 16..].iter().all(|&g| g == 0.0));
    assert_ne!(logits(&model), some.value().to_f64().unwrap());
    truncate(&mut model, 3).unwrap();
    for (a, b) in logits(&model).iter().zip(some.value().to_f64().unwrap()) {
        assert!((a - b).abs() < 1e-12);
    }
    assert!(truncate(&mut model, 4).is_err_and(|e| e.to_string().contains("rank 3")) && truncate(&mut model, 0).is_err());

    // Each step draws its own number of ranks.
    let fitted = |nested_rank| {
        let mut model = DistilBert::random(&small(), 2, DType::F64, 1).unwrap();
        Method::Lora(LoraConfig::new(4, &["q_lin"])).apply(&mut model, 4).unwrap();
        let recipe = Recipe { epochs: 6, batch: 2, nested_rank, ..recipe() };
        fit(&mut model, &data(), &recipe, &mut AdamW::new(0.0), &mut ()).unwrap();
        logits(&model)
    };
    assert_ne!(fitted(None), fitted(Some(4)));
    assert_ne!(fitted(Some(2)), fitted(Some(4)));
}

#[test]
fn row_norms_kept_from_an_evaluation_are_those_of_the_weights() {
    let dora = Method::Lora(LoraConfig { dora: true, ..LoraConfig::new(2, &["q_lin", "lin1"]) });
    let mut kept = DistilBert::random(&small(), 2, DType::F64, 1).unwrap();
    dora.apply(&mut kept, 4).unwrap();
    let mut before = logits(&kept);
    for _ in 0..3 {
        moved(&mut kept, 0.05);
        let mut fresh = DistilBert::random(&small(), 2, DType::F64, 1).unwrap();
        dora.apply(&mut fresh, 4).unwrap();
        fresh.parameters_mut().into_iter().zip(kept.parameters()).for_each(|(to, from)| to.set(from.value().clone()));
        let after = logits(&kept);
        assert!(after == logits(&fresh) && after == logits(&kept) && after != before);
        before = after;
    }
}

#[test]
fn a_merged_magnitude_is_the_unmerged_one() {
    let mut model = DistilBert::random(&small(), 2, DType::F64, 1).unwrap();
    Method::Lora(LoraConfig { dora: true, ..LoraConfig::new(2, &["q_lin", "k_lin", "lin1"]) }).apply(&mut model, 4).unwrap();
    let base = logits(&DistilBert::random(&small(), 2, DType::F64, 1).unwrap());
    for (a, b) in base.iter().zip(logits(&model)) {
        assert!((a - b).abs() < 1e-12, "training starts at the base");
    }
    moved(&mut model, 0.1);
    let unmerged = logits(&model);
    let merged = merge(&mut model).unwrap();
    for (a, b) in unmerged.iter().zip(logits(&model)) {
        assert!((a - b).abs() < 1e-12);
    }
    merged.undo(&mut model);
    assert_eq!(unmerged, logits(&model));
}

#[test]
fn combined_adapters_are_the_sum_of_their_products() {
    let fresh = || DistilBert::random(&small(), 2, DType::F64, 1).unwrap();
    let adapted = |rank: usize, seed: f64| {
        let mut model = fresh();
        Method::Lora(LoraConfig::new(rank, &["q_lin", "lin1"])).apply(&mut model, 4).unwrap();
        moved(&mut model, seed);
        model
    };
    // What an adapter adds to the weights, linear by linear.
    let update = |model: &mut DistilBert| -> Vec<Vec<f64>> {
        merge(model).unwrap();
        let (own, base) = (model.weights(), fresh());
        let pairs =
            own.into_iter().zip(base.weights()).filter(|(w, _)| w.name().ends_with("q_lin.weight") || w.name().ends_with("lin1.weight"));
        let difference = |(w, b): (&Weight, &Weight)| {
            w.value().unwrap().to_f64().unwrap().iter().zip(b.value().unwrap().to_f64().unwrap()).map(|(w, b)| w - b).collect()
        };
        pairs.map(difference).collect()
    };
    let [first, second] = [(2, 0.1), (3, -0.07)].map(|(rank, seed)| update(&mut adapted(rank, seed)));
    let expected: Vec<Vec<f64>> =
        first.iter().zip(&second).map(|(a, b)| a.iter().zip(b).map(|(a, b)| 0.5 * a + 2.0 * b).collect()).collect();
    let combined = |how| {
        let mut model = fresh();
        combine(&mut model, vec![(adapted(2, 0.1), 0.5), (adapted(3, -0.07), 2.0)], how).map(|config| (config, model))
    };
    let far = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    for how in [Combination::Cat, Combination::Svd { rank: 5 }] {
        let (config, mut model) = combined(how).unwrap();
        assert_eq!((config.rank, config.alpha, config.targets.len()), (5, 5.0, 6));
        for (a, b) in update(&mut model).iter().zip(&expected) {
            assert!(far(a, b) < 1e-12, "{how:?}");
        }
    }
    // Cut, it is the nearest of its rank: as far as the singular values that are left out.
    let (_, mut model) = combined(Combination::Svd { rank: 2 }).unwrap();
    for (a, b) in update(&mut model).iter().zip(&expected) {
        let left_out = svd(b, b.len() / 16, 16).s[2..].iter().map(|s| s * s).sum::<f64>().sqrt();
        assert!(left_out > 1e-3 && (far(a, b) - left_out).abs() < 1e-12);
    }
    assert!(combined(Combination::Linear).is_err_and(|e| e.to_string().contains("ranks differ")));
    // Linear: of two equal adapters of weights w, (√w + √w)² = 4w times one.
    let mut model = fresh();
    combine(&mut model, vec![(adapted(2, 0.1), 0.5), (adapted(2, 0.1), 0.5)], Combination::Linear).unwrap();
    for (a, b) in update(&mut model).iter().zip(&first) {
        assert!(far(a, &b.iter().map(|b| 2.0 * b).collect::<Vec<_>>()) < 1e-12);
    }
    let head = |m: &DistilBert| m.classifier.weight.value().unwrap().to_f64().unwrap();
    let mean: Vec<f64> = head(&adapted(2, 0.1)).iter().zip(head(&adapted(3, -0.07))).map(|(a, b)| 0.2 * a + 0.8 * b).collect();
    assert!(far(&head(&combined(Combination::Cat).unwrap().1), &mean) < 1e-12);
    let (none, out_of_range) = ("must be an adapter whose weight is above 0", "must be a number from 0 to 1000000");
    for (weights, says) in
        [(&[][..], none), (&[0.0], none), (&[1.0, -0.5], out_of_range), (&[f64::NAN], out_of_range), (&[1e308, 1e308], out_of_range)]
    {
        let both = weights.iter().map(|&weight| (adapted(2, 0.1), weight)).collect();
        assert!(combine(&mut fresh(), both, Combination::Cat).is_err_and(|e| e.to_string().contains(says)), "{weights:?}");
    }
    let mut other = fresh();
    Method::BitFit.apply(&mut other, 0).unwrap();
    assert!(combine(&mut fresh(), vec![(other, 1.0)], Combination::Cat).is_err_and(|e| e.to_string().contains("trained itself")));
}

#[test]
fn lenient_loading_warns_where_strict_loading_fails() {
    let directory = tempfile::tempdir().unwrap();
    let fresh = || DistilBert::random(&small(), 2, DType::F32, 1).unwrap();
    let mut model = fresh();
    let method = Method::Lora(LoraConfig::new(3, &["q_lin"]));
    method.apply(&mut model, 0).unwrap();
    moved(&mut model, 0.1);
    adapter::save(&model, &method, "base", directory.path()).unwrap();
    let load = || adapter::load_with(&mut fresh(), directory.path(), true).map(|(_, warnings)| warnings);
    assert_eq!(load().unwrap(), Vec::<String>::new());
    let config = directory.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    for (from, to, warning) in [
        ("\"lora_alpha\": 6", "\"alpha\": 6", "8 is taken"),
        ("\"r\": 3", "\"r\": 4", "has rank 3"),
        ("\"none\"", "\"lora_only\"", "q_lin.base_layer.bias"),
    ] {
        std::fs::write(&config, text.replace(from, to)).unwrap();
        assert!(adapter::load(&mut fresh(), directory.path()).is_err(), "{to}");
        let warnings = load().unwrap();
        assert!(warnings.iter().any(|w| w.contains(warning)), "{warnings:?} should say {warning}");
    }
    std::fs::write(&config, text).unwrap();
    let mut tensors = adapter::tensors(&model).unwrap();
    tensors.push(("surplus".into(), tensors[0].1.clone()));
    lowrank::tensor::safetensors::write(&directory.path().join("adapter_model.safetensors"), &tensors, &Default::default()).unwrap();
    let mut again = fresh();
    let warnings = adapter::load_with(&mut again, directory.path(), true).unwrap().1;
    assert!(warnings.len() == 1 && warnings[0].contains("surplus"), "{warnings:?}");
    assert_eq!(logits(&model), logits(&again));
}

#[test]
fn counts_are_those_of_the_formulas() {
    let config = Config::distilbert_base();
    let (d, f, l) = (config.dim, config.hidden_dim, config.n_layers);
    let (layer, head) = (4 * d * (d + 1) + 4 * d + f * (d + 1) + d * (f + 1), d * (d + 1) + 2 * (d + 1));
    let biases = d + l * (4 * d + 2 * d + f + d);
    let expected = [
        (Method::Head { pre_classifier: false }, 1_538),
        (Method::Head { pre_classifier: true }, 592_130),
        (Method::Full, 66_955_010),
        (Method::Selective { frozen_layers: 4 }, 2 * layer + head),
        (Method::Selective { frozen_layers: 6 }, head),
        (Method::BitFit, biases + head),
        (Method::Bottleneck { size: 64, placement: Placement::Houlsby }, l * 2 * (2 * 64 * d + 64 + d) + l * 4 * d + head),
        (Method::Bottleneck { size: 64, placement: Placement::Pfeiffer }, l * (2 * 64 * d + 64 + d) + head),
        (Method::Prefix { tokens: 20 }, l * 2 * 20 * d + head),
        (Method::Prompt { tokens: 20 }, 20 * d + head),
        // As PEFT counts them.
        (Method::Lora(LoraConfig::new(8, &["q_lin", "v_lin"])), 739_586),
        (Method::Lora(LoraConfig { bias: Bias::LoraOnly, ..LoraConfig::new(8, &["q_lin", "v_lin"]) }), 748_802),
        (Method::Lora(LoraConfig::new(8, &["all-linear"])), 1_255_682),
        (Method::Lora(LoraConfig { dora: true, ..LoraConfig::new(8, &["q_lin", "v_lin"]) }), 748_802),
        (Method::Lora(LoraConfig { freeze_a: true, ..LoraConfig::new(8, &["q_lin", "v_lin"]) }), l * 2 * 8 * d + head),
        (
            Method::Lora(LoraConfig { modules_to_save: vec!["layer_norm".into()], ..LoraConfig::new(8, &["q_lin", "v_lin"]) }),
            739_586 + l * 4 * d,
        ),
        (Method::Intrinsic { dimension: 1000, seed: 0 }, 1000 + head),
    ];
    // Drawn once; opening a file is faster than drawing 67 million numbers.
    let base = tempfile::tempdir().unwrap();
    write_base(&config, base.path(), DType::F32, false);
    for (method, trainable) in expected {
        let mut model = DistilBert::open(base.path()).unwrap();
        method.apply(&mut model, 0).unwrap();
        assert_eq!(Counts::of(&model), Counts { trainable, base: 66_955_010 }, "{method:?}");
    }
    let mut model = DistilBert::random(&small(), 2, DType::F32, 0).unwrap();
    let lora = |config| Method::Lora(config);
    for (method, message) in [
        (Method::Selective { frozen_layers: 4 }, "4 frozen layers, but the model has 3"),
        (Method::Prompt { tokens: 510 }, "room for a text"),
        (Method::Prefix { tokens: 0 }, "at least 1"),
        (Method::Bottleneck { size: 0, placement: Placement::Houlsby }, "at least 1"),
        (lora(LoraConfig { layers: vec![3], ..LoraConfig::new(2, &["q_lin"]) }), "no layer 3: the model has the layers 0 to 2"),
        (lora(LoraConfig { layers: vec![1, 3], ..LoraConfig::new(2, &["q_lin"]) }), "no layer 3"),
        (lora(LoraConfig { modules_to_save: vec!["layer_nrm".into()], ..LoraConfig::new(2, &["q_lin"]) }), "layer_norm"),
        (Method::Intrinsic { dimension: 0, seed: 0 }, "the dimension of the subspace must be at least 1"),
        (lora(LoraConfig { rank_pattern: [("v_lim".to_string(), 3)].into(), ..LoraConfig::new(2, &["q_lin"]) }), "v_lin"),
        (lora(LoraConfig { rank_pattern: [("q_lin".to_string(), 0)].into(), ..LoraConfig::new(2, &["q_lin"]) }), "at least 1"),
    ] {
        let e = method.apply(&mut model, 0).unwrap_err().to_string();
        assert!(e.contains(message), "{e} should say {message}");
    }
    let config = LoraConfig { rank_stabilised: true, alpha: 6.0, ..LoraConfig::new(9, &["q_lin"]) };
    assert_eq!(config.term_of("any"), (9, 2.0));
}

/// Writes a random base of type `dtype` without a head. BERT's has its pooler if `pooler`.
fn write_base(config: &Config, directory: &Path, dtype: DType, pooler: bool) {
    let model = DistilBert::random(config, 2, DType::F32, 5).unwrap();
    let encoder = model.weights().into_iter().filter(|w| !in_head(w.name()) || (pooler && in_pooler(w.name())));
    let tensors: Vec<_> = encoder.map(|w| (w.name().to_string(), w.value().unwrap().to_dtype(dtype).unwrap())).collect();
    lowrank::tensor::safetensors::write(&directory.join("model.safetensors"), &tensors, &Default::default()).unwrap();
    std::fs::write(directory.join("config.json"), config.to_json().unwrap().to_string()).unwrap();
}

#[test]
fn what_was_trained_comes_back_bit_for_bit() {
    let cases = models().into_iter().flat_map(|(config, methods)| {
        let poolers: &[bool] = if config.architecture == Architecture::Bert { &[false, true] } else { &[false] };
        poolers.iter().map(|pooler| (config.clone(), methods.clone(), *pooler)).collect::<Vec<_>>()
    });
    for ((config, methods, pooler), dtype) in cases.flat_map(|case| [DType::F32, DType::BF16].map(|dtype| (case.clone(), dtype))) {
        let (base, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_base(&config, base.path(), dtype, pooler);
        for method in methods {
            // Another seed than that of loading: a head that the base lacks must come from the file.
            let exact = |name: &str| method.trains(name);
            let mut model =
                DistilBert::open_with(base.path(), &LoadOptions { seed: 7, exact: &exact, ..LoadOptions::default() }).unwrap().0;
            method.apply(&mut model, 7).unwrap();
            moved(&mut model, 0.05);
            let again = if method.makes_checkpoint() {
                let labels = ["bad".to_string(), "good".to_string()];
                model.save(base.path(), &labels, out.path()).unwrap();
                let (again, report) = DistilBert::open_with(out.path(), &LoadOptions::default()).unwrap();
                assert_eq!((again.config.labels(), report.initialised), (labels.to_vec(), vec![]));
                assert!(adapter::save(&model, &method, "base", out.path()).is_err());
                again
            } else {
                adapter::save(&model, &method, "base", out.path()).unwrap();
                let mut again = DistilBert::open(base.path()).unwrap();
                adapter::load(&mut again, out.path()).unwrap();
                assert_eq!(adapter::tensors(&again).unwrap().len(), adapter::tensors(&model).unwrap().len());
                again
            };
            assert_eq!(logits(&model), logits(&again), "{method:?}");
            if matches!(method, Method::Lora(_)) && dtype == DType::F32 {
                let mut again = again;
                merge(&mut again).unwrap();
                let whole = tempfile::tempdir().unwrap();
                again.save(base.path(), &["bad".to_string(), "good".to_string()], whole.path()).unwrap();
                let whole = logits(&DistilBert::open(whole.path()).unwrap());
                assert!(logits(&model).iter().zip(whole).all(|(a, b)| (a - b).abs() < 1e-5), "{method:?}");
            }
        }
    }
}

#[test]
fn every_method_trains_in_bf16() {
    // Weights large enough for what the step does to be seen above the rounding.
    for (mut config, method) in models().into_iter().flat_map(|(config, methods)| methods.into_iter().map(move |m| (config.clone(), m))) {
        config.initializer_range = 0.3;
        let mut model = DistilBert::random(&config, 2, DType::BF16, 1).unwrap();
        method.apply(&mut model, 4).unwrap();
        let (before, grads) = loss_and_gradients(&model, None);
        let (norm, length) = (grads.norm().unwrap(), 0.02);
        for p in model.parameters_mut() {
            let g = grads.get(p).unwrap().to_f64().unwrap();
            let values = p.value().to_f64().unwrap().iter().zip(g).map(|(x, g)| x - length / norm * g).collect();
            p.set(Tensor::from_f64(values, DType::F32, p.value().shape()).unwrap());
        }
        let fall = before - loss_and_gradients(&model, None).0;
        assert!((0.5..1.5).contains(&(fall / (length * norm))), "{method:?}: fell by {fall}, expected {}", length * norm);
    }
}

#[test]
fn full_fine_tuning_in_bf16_starts_from_the_numbers_of_the_checkpoint() {
    let (base, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_base(&small(), base.path(), DType::F32, false);
    let exact = DistilBert::open(base.path()).unwrap();
    for method in [Method::Full, Method::Selective { frozen_layers: 1 }] {
        let options = LoadOptions { dtype: DType::BF16, exact: &|name| method.trains(name), ..LoadOptions::default() };
        let mut model = DistilBert::open_with(base.path(), &options).unwrap().0;
        method.apply(&mut model, 0).unwrap();
        let rounded = model.weights().iter().filter(|w| w.value().unwrap().dtype() == DType::BF16).count();
        assert_eq!(rounded, if matches!(method, Method::Full) { 0 } else { 6 }, "the matrices of frozen layers compute in bf16");
        // Nor does the file take the rounded ones.
        model.save(base.path(), &["a".to_string(), "b".to_string()], out.path()).unwrap();
        let saved = DistilBert::open(out.path()).unwrap();
        for (a, b) in exact.weights().iter().zip(saved.weights()) {
            assert_eq!(a.value().unwrap().to_f64().unwrap(), b.value().unwrap().to_f64().unwrap(), "{}", a.name());
        }
    }
}

fn data() -> Tokenized {
    let lengths = [5usize, 3, 7, 4, 6];
    let offsets: Vec<usize> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |end, n| {
            *end += n;
            Some(*end)
        }))
        .collect();
    let ids = (0..25).map(|i| i * 11 % 40).collect();
    Tokenized { ids, offsets, labels: vec![0, 1, 1, 0, 1], label_names: vec!["a".into(), "b".into()], ..Tokenized::default() }
}

fn recipe() -> Recipe {
    Recipe { epochs: 1, batch: 5, lr: 1e-2, warmup: 0.0, seed: 3, ..Recipe::default() }
}

#[test]
fn a_cached_trunk_changes_nothing_but_its_dropout() {
    let mut config = small();
    // Dropout above the trunk stays.
    (config.dropout, config.attention_dropout, config.seq_classif_dropout) = (0.0, 0.0, 0.3);
    let recipe = |cache_trunk| Recipe { epochs: 2, batch: 2, accumulate: 2, cache_trunk, ..recipe() };
    for method in [Method::Head { pre_classifier: true }, Method::Selective { frozen_layers: 2 }] {
        let trained = [false, true].map(|cache_trunk| {
            let mut model = DistilBert::random(&config, 2, DType::F64, 1).unwrap();
            method.apply(&mut model, 0).unwrap();
            fit(&mut model, &data(), &recipe(cache_trunk), &mut AdamW::new(0.01), &mut ()).unwrap();
            model.parameters().iter().flat_map(|p| p.value().to_f64().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(trained[0], trained[1], "{method:?}");
    }
    let mut model = DistilBert::random(&config, 2, DType::F64, 1).unwrap();
    Method::BitFit.apply(&mut model, 0).unwrap();
    assert_eq!(model.frozen_layers(), 0);
    assert!(FrozenFeatures::new(&model, &data(), 2).is_err_and(|e| e.to_string().contains("nothing stays the same")));
}

#[test]
fn a_frozen_weight_is_not_touched() {
    for method in methods(&|name| name.to_string()) {
        let mut model = DistilBert::random(&small(), 2, DType::F32, 1).unwrap();
        let before: Vec<_> = model.weights().iter().map(|w| w.value().unwrap()).collect();
        method.apply(&mut model, 0).unwrap();
        let frozen_factors = |model: &DistilBert| {
            let frozen = |part| match part {
                WeightRef::Extra(w @ Weight::Frozen { value, .. }) => Some((w.name().to_string(), value.to_f64().unwrap())),
                _ => None,
            };
            model.parts().into_iter().filter_map(frozen).collect::<Vec<_>>()
        };
        let factors = frozen_factors(&model);
        let freezes = matches!(&method, Method::Lora(config) if config.freeze_a);
        assert_eq!(factors.len(), if freezes { 3 } else { 0 }, "{method:?}");
        fit(&mut model, &data(), &recipe(), &mut AdamW::new(0.01), &mut ()).unwrap();
        let changed: BTreeSet<&str> = model
            .weights()
            .into_iter()
            .zip(&before)
            .filter(|(w, b)| w.value().is_ok_and(|w| w.to_f64().unwrap() != b.to_f64().unwrap()))
            .map(|(w, _)| w.name())
            .collect();
        let trained: BTreeSet<&str> = model.weights().into_iter().filter(|w| matches!(w, Weight::Trained(_))).map(Weight::name).collect();
        assert!(trained.iter().all(|name| method.trains(name)));
        assert_eq!(changed, trained, "{method:?}");
        assert_eq!(factors, frozen_factors(&model));
    }
}
