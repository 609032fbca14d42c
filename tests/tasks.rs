//! Pairs of texts, several labels and regression against what `tests/tasks/record.py` recorded of transformers, PEFT, PyTorch, scikit-learn and SciPy.

use lowrank::autograd::{Parameter, Tape, gradcheck};
use lowrank::data::{Encoded, Encoder, Sequence, WordPiece};
use lowrank::lora::{Method, adapter};
use lowrank::metrics::{Estimate, LabelMetrics, NumberMetrics, thresholds};
use lowrank::nn::{Config, DistilBert, Outputs, Pass};
use lowrank::tensor::{DType, Sequences, Tensor};
use lowrank::train::{labels_found, logits, number_errors, scores};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn recorded(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("tasks/recorded.json")).unwrap();
    all[part].as_array().unwrap().clone()
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn pairs_have_the_ids_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["vocab.txt", "tokenizer_config.json"] {
        let from = Path::new(ROOT).join("assets/encoder").join(name);
        if from.exists() {
            std::fs::copy(from, dir.path().join(name)).unwrap();
        }
    }
    let right = WordPiece::open(dir.path()).unwrap();
    let path = dir.path().join("tokenizer_config.json");
    let mut config: Value = std::fs::read_to_string(&path).map_or(serde_json::json!({}), |text| serde_json::from_str(&text).unwrap());
    config["truncation_side"] = "left".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let left = WordPiece::open(dir.path()).unwrap();
    let (mut at_end, mut at_start) = (Encoder::new(&right), Encoder::new(&left));
    let (cases, mut cut) = (recorded("encodings"), 0);
    for case in &cases {
        let encoder = if case["side"] == "right" { &mut at_end } else { &mut at_start };
        let [first, second]: [String; 2] = read(&case["pair"]);
        let found = Encoded::pair(encoder, [&first, &second], read(&case["max_length"]));
        assert_eq!((found.ids, found.second), (read(&case["ids"]), read(&case["second"])), "{case}");
        cut += usize::from(found.cut);
    }
    assert!(cases.len() == 132 && cut > 60, "{} {cut}", cases.len());
}

/// One adapter on its base, with pairs packed into a batch, one by one, and recorded on a tape.
#[test]
fn pairs_have_the_logits_of_peft() {
    let folder = Path::new(ROOT).join("tests/interop/recorded");
    let cases = recorded("pair_logits");
    assert_eq!(cases.len(), 5);
    for case in cases {
        let (base, name): (String, String) = (read(&case["base"]), read(&case["adapter"]));
        let mut model = DistilBert::open(folder.join(&base).join("base")).unwrap();
        adapter::load(&mut model, &folder.join(&base).join(&name)).unwrap();
        let (ids, seconds): (Vec<Vec<u32>>, Vec<usize>) = (read(&case["ids"]), read(&case["seconds"]));
        let wanted = read::<Vec<Vec<f64>>>(&case["logits"]).concat();
        let pairs: Vec<Sequence> = ids.iter().zip(&seconds).map(|(ids, &second)| Sequence { ids, second }).collect();
        let near = |found: &[f64], how: &str| {
            assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{base}/{name}, {how}: {found:?} {wanted:?}");
        };
        for batch in [1, 3] {
            near(&logits(&model, &pairs, batch).unwrap().concat(), "inference");
        }
        let sequences = Sequences::new(&ids.iter().map(Vec::len).collect::<Vec<_>>(), vec![0, 1, 2]).unwrap();
        let pass = Pass::evaluation(Arc::new(sequences.with_second_lengths(seconds).unwrap()));
        near(&model.forward(&mut Tape::new(), &ids.concat(), &pass).unwrap().value().to_f64().unwrap(), "recorded");
        let single = logits(&model, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>(), 3).unwrap().concat();
        let moved = single.iter().zip(&wanted).any(|(a, b)| (a - b).abs() > 1e-3);
        assert_eq!(moved, base == "bert", "only BERT knows which text a token is of");
    }
}

/// In bf16 the two ways to add token types differ in rounding alone, also with a prompt.
#[test]
fn a_pair_in_bf16_is_near_that_in_f32() {
    let folder = Path::new(ROOT).join("tests/interop/recorded/bert");
    let rows = [DType::F32, DType::BF16].map(|dtype| {
        let options = lowrank::nn::LoadOptions { dtype, ..Default::default() };
        let mut model = DistilBert::open_with(&folder.join("base"), &options).unwrap().0;
        adapter::load(&mut model, &folder.join("prompt")).unwrap();
        logits(&model, &[Sequence { ids: &[2, 5, 7, 3, 11, 9, 3], second: 3 }], 1).unwrap().concat()
    });
    assert!(rows[0].iter().zip(&rows[1]).all(|(a, b)| (a - b).abs() < 0.05), "{rows:?}");
}

fn near(found: f64, wanted: f64, bound: f64, place: &str) {
    assert!((found - wanted).abs() <= bound * wanted.abs().max(1.0), "{place}: {found}, and recorded was {wanted}");
}

fn value(estimate: &Estimate) -> f64 {
    let Estimate { value, interval: (low, high) } = *estimate;
    assert!(low <= high, "{estimate:?}");
    value
}

/// The gradients of all weights of a BERT, token types and a prompt among them, for pairs in a batch with a single text.
#[test]
fn gradients_of_pairs_are_those_of_differences() {
    let mut config = Config::bert_base();
    (config.dim, config.hidden_dim, config.n_heads, config.n_layers, config.vocab_size) = (8, 12, 2, 1, 20);
    (config.max_position_embeddings, config.initializer_range) = (12, 0.3);
    let sequences = Sequences::new(&[4, 2, 5], vec![3, 4, 5]).unwrap().with_second_lengths(vec![2, 0, 4]).unwrap();
    let pass = Pass { dropout_seed: Some(1), ..Pass::evaluation(Arc::new(sequences)) };
    for method in [Method::Full, Method::Prompt { tokens: 2 }] {
        let mut model = DistilBert::random(&config, 2, DType::F64, 1).unwrap();
        method.apply(&mut model, 0).unwrap();
        if let Some(types) = &mut model.token_type_embeddings {
            types.train().unwrap();
        }
        let ids = [1, 5, 7, 3, 1, 9, 2, 2, 4, 6, 8];
        let found = gradcheck::check(
            |tape, _| {
                let y = model.forward(tape, &ids, &pass)?;
                tape.cross_entropy(&y, &[0, 1, 1], 3)
            },
            &[],
        );
        assert!(found.as_ref().unwrap().error < 1e-8, "{method:?}: {found:?}");
        let mut tape = Tape::new();
        let y = model.forward(&mut tape, &ids, &pass).unwrap();
        let loss = tape.cross_entropy(&y, &[0, 1, 1], 3).unwrap();
        let grads = tape.backward(&loss).unwrap();
        let types = grads.get(model.token_type_embeddings.as_ref().unwrap().parameter().unwrap()).unwrap().to_f64().unwrap();
        assert!(types.iter().all(|g| *g != 0.0), "both types have a gradient: {types:?}");
    }
}

#[test]
fn losses_are_those_of_pytorch() {
    let cases = recorded("losses");
    assert_eq!(cases.len(), 6);
    for case in cases {
        let rows = |key: &str| read::<Vec<Vec<f64>>>(&case[key]);
        let (z, y) = (rows("logits"), rows("targets"));
        let dims = [z.len(), z[0].len()];
        let z = Parameter::new("z", Tensor::new(z.concat(), dims).unwrap());
        let (y, divisor) = (Tensor::new(y.concat(), dims).unwrap(), (dims[0] * dims[1]) as f64);
        let mut tape = Tape::new();
        let logits = tape.parameter(&z);
        let loss = match case["task"].as_str().unwrap() {
            "labels" => tape.bce_with_logits(&logits, &y, divisor).unwrap(),
            _ => tape.squared_error(&logits, &y, divisor).unwrap(),
        };
        near(loss.value().item().unwrap(), read(&case["loss"]), 1e-14, "loss");
        let found = tape.backward(&loss).unwrap().get(&z).unwrap().to_f64().unwrap();
        found.iter().zip(rows("gradient").concat()).for_each(|(found, wanted)| near(*found, wanted, 1e-14, "gradient"));
    }
}

#[test]
fn figures_of_labels_are_those_of_scikit_learn() {
    for case in recorded("labels") {
        let name = case["name"].as_str().unwrap();
        let (p, y, t): (Vec<Vec<f64>>, Vec<Vec<f64>>, Vec<f64>) = (read(&case["scores"]), read(&case["truth"]), read(&case["thresholds"]));
        let found = LabelMetrics::new(&p, &y, &t).unwrap();
        let wanted = |key: &str| read::<f64>(&case[key]);
        near(value(&found.accuracy), wanted("accuracy"), 1e-12, name);
        near(value(&found.micro_f1), wanted("micro_f1"), 1e-12, name);
        near(value(&found.macro_f1), wanted("macro_f1"), 1e-12, name);
        let short = labels_found(&p, &y, &t);
        near(short.accuracy, wanted("accuracy"), 1e-12, name);
        near(short.label_accuracy, wanted("label_accuracy"), 1e-12, name);
        for (c, class) in found.classes.iter().enumerate() {
            let wanted = |key: &str| read::<Option<f64>>(&case[key][c]);
            for (key, found) in [("precision", &class.precision), ("recall", &class.recall), ("f1", &class.f1)] {
                near(value(found), wanted(key).unwrap(), 1e-12, &format!("{name} {c} {key}"));
            }
            assert_eq!(class.support, read::<usize>(&case["support"][c]));
            assert_eq!(class.roc_auc.is_some(), wanted("roc_auc").is_some(), "{name} {c}");
            class.roc_auc.iter().for_each(|found| near(value(found), wanted("roc_auc").unwrap(), 1e-12, name));
        }
        assert_eq!(found.roc_auc.is_some(), found.classes.iter().all(|class| class.roc_auc.is_some()));
        // No threshold has a higher F1 than the chosen one.
        let best = thresholds(&p, &y).unwrap();
        let at_best = LabelMetrics::new(&p, &y, &best).unwrap();
        for (c, class) in at_best.classes.iter().enumerate() {
            match read::<Option<f64>>(&case["best_f1"][c]) {
                Some(wanted) => near(value(&class.f1), wanted, 1e-12, &format!("{name} {c} at {}", best[c])),
                None => assert_eq!(best[c], 0.5),
            }
        }
    }
}

#[test]
fn figures_of_numbers_are_those_of_scikit_learn_and_scipy() {
    for case in recorded("numbers") {
        let column = |key: &str| read::<Vec<f64>>(&case[key]).into_iter().map(|x| vec![x]).collect::<Vec<_>>();
        let (found, truth) = (column("scores"), column("truth"));
        let all = NumberMetrics::new(&found, &truth).unwrap();
        for (key, found) in [
            ("mean_squared_error", Some(all.mean_squared_error)),
            ("mean_absolute_error", Some(all.mean_absolute_error)),
            ("pearson", all.pearson),
            ("spearman", all.spearman),
            ("r2", all.r2),
        ] {
            near(value(&found.unwrap()), read(&case[key]), 1e-12, key);
        }
        let errors = number_errors(&found, &truth);
        near(errors.mean_squared_error, read(&case["mean_squared_error"]), 1e-12, "mean squared error");
    }
    let same = NumberMetrics::new(&[vec![1.0], vec![2.0]], &[vec![3.0], vec![3.0]]).unwrap();
    assert_eq!((same.pearson, same.spearman, same.r2), (None, None, None));
    assert_eq!(scores(Outputs::Numbers, &[2.5], 1.0), [2.5]);
}
