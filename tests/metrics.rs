//! Figures, losses, temperatures and schedules against those that `tests/metrics/record.py` recorded of scikit-learn, PyTorch and transformers.

use lowrank::autograd::ops::CrossEntropy;
use lowrank::autograd::{Parameter, Tape};
use lowrank::metrics::{Estimate, Metric, Metrics, temperature};
use lowrank::nn::Outputs;
use lowrank::prelude::{Dataset, TextClassifier};
use lowrank::tensor::Tensor;
use lowrank::train::{AdamW, Recipe, Schedule, balanced_weights, measure};
use serde_json::Value;

fn recorded(part: &str) -> Value {
    let text = include_str!("metrics/recorded.json");
    serde_json::from_str::<Value>(text).unwrap()[part].clone()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// Compares the keys of `wanted` with the figures of the same names in `found`, whose intervals must hold them.
fn compare(found: &Value, wanted: &Value, place: &str) {
    for (key, wanted) in wanted.as_object().unwrap() {
        let (found, place) = (&found[key], format!("{place}, {key}"));
        match (wanted, found) {
            (Value::Null, found) => assert!(found.is_null(), "{place}: {found}"),
            (Value::Number(wanted), Value::Number(found)) => near(found.as_f64().unwrap(), wanted.as_f64().unwrap(), 1e-12, &place),
            (Value::Number(wanted), estimate) => {
                let Estimate { value, interval: (low, high) } = read(estimate);
                near(value, wanted.as_f64().unwrap(), 1e-12, &place);
                assert!(low <= high && (0.0..=2.0).contains(&(high - low)), "{place}: {low} {high}");
            }
            (Value::Array(wanted), Value::Array(found)) => {
                assert_eq!(wanted.len(), found.len(), "{place}");
                wanted.iter().zip(found).enumerate().for_each(|(i, (wanted, found))| compare(found, wanted, &format!("{place} {i}")));
            }
            other => panic!("{place}: {other:?}"),
        }
    }
}

fn near(found: f64, wanted: f64, bound: f64, place: &str) {
    assert!((found - wanted).abs() <= bound * wanted.abs().max(1.0), "{place}: {found}, and recorded was {wanted}");
}

#[test]
fn figures_are_those_of_scikit_learn() {
    let cases = recorded("metrics");
    assert_eq!(list(&cases).len(), 14);
    for case in list(&cases) {
        let mut wanted = case.clone();
        let keys = ["name", "labels", "probabilities"].map(|key| wanted.as_object_mut().unwrap().remove(key).unwrap());
        let (name, labels, rows) = (&keys[0], read::<Vec<u32>>(&keys[1]), read::<Vec<Vec<f64>>>(&keys[2]));
        let found = Metrics::new(&rows, &labels).unwrap();
        assert_eq!((found.texts, found.resamples), (labels.len(), 1000));
        let name = name.as_str().unwrap();
        compare(&serde_json::to_value(&found).unwrap(), &wanted, name);
        // The answers of the evaluation are the same, and what selects an epoch is the same figure.
        let (evaluation, _) = measure(&rows, &labels).unwrap();
        near(evaluation.accuracy, found.accuracy.value, 0.0, name);
        for metric in Metric::of_outputs(Outputs::Classes).iter().filter(|metric| **metric != Metric::Loss) {
            let key = metric.name();
            let value = metric.of(&rows, &labels, evaluation.loss);
            match wanted[key.replace('-', "_")].as_f64() {
                Some(wanted) => near(value.unwrap(), wanted, 1e-12, key),
                None => assert!(value.is_err_and(|e| e.to_string().contains("not defined")), "{name}: {key}"),
            }
        }
    }
}

#[test]
fn intervals_hold_what_they_are_of() {
    for case in list(&recorded("metrics")).iter().take(4) {
        let found = Metrics::new(&read::<Vec<Vec<f64>>>(&case["probabilities"]), &read::<Vec<u32>>(&case["labels"])).unwrap();
        let estimates =
            [found.accuracy, found.balanced_accuracy, found.macro_f1, found.weighted_f1, found.matthews, found.roc_auc.unwrap()];
        for Estimate { value, interval: (low, high) } in estimates.into_iter().chain([found.average_precision]) {
            assert!(low < value && value < high && high - low < 0.8, "{}: {low} {value} {high}", case["name"]);
        }
    }
}

#[test]
fn no_texts_and_wrong_labels_are_refused() {
    for (rows, labels) in [
        (vec![], vec![]),
        (vec![vec![0.5, 0.5]], vec![2]),
        (vec![vec![0.5, f64::NAN]], vec![0]),
        (vec![vec![1.0], vec![0.5, 0.5]], vec![0, 0]),
    ] {
        assert!(Metrics::new(&rows, &labels).is_err(), "{rows:?}");
    }
    assert!(Metric::Loss.is_better(0.1, 0.2) && Metric::Matthews.is_better(0.2, 0.1) && !Metric::Accuracy.is_better(0.5, 0.5));
}

#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    for case in list(&recorded("losses")) {
        let (rows, labels) = (read::<Vec<Vec<f64>>>(&case["logits"]), read::<Vec<u32>>(&case["labels"]));
        let (weights, shape) = (read::<Vec<f64>>(&case["weights"]), [rows.len(), rows[0].len()]);
        let divisor = labels.iter().map(|&label| weights.get(label as usize).unwrap_or(&1.0)).sum();
        let logits = Parameter::new("logits", Tensor::new(rows.concat(), shape).unwrap());
        let mut tape = Tape::new();
        let z = tape.parameter(&logits);
        let op = CrossEntropy { divisor, weights, smoothing: read(&case["smoothing"]) };
        let loss = tape.cross_entropy_with(op, &z, &labels).unwrap();
        near(loss.value().item().unwrap(), read(&case["loss"]), 1e-12, "loss");
        let gradient = tape.backward(&loss).unwrap().get(&logits).unwrap().to_f64().unwrap();
        for (found, wanted) in gradient.iter().zip(read::<Vec<Vec<f64>>>(&case["gradient"]).concat()) {
            near(*found, wanted, 1e-12, "gradient");
        }
    }
}

#[test]
fn balanced_weights_are_those_of_scikit_learn() {
    let case = recorded("balanced");
    let found = balanced_weights(&read::<Vec<usize>>(&case["counts"]));
    found.iter().zip(read::<Vec<f64>>(&case["weights"])).for_each(|(found, wanted)| near(*found, wanted, 1e-15, "weight"));
    assert_eq!(balanced_weights(&[3, 0, 1]), [4.0 / 6.0, 1.0, 2.0]);
}

#[test]
fn temperatures_are_those_that_scipy_finds() {
    for case in list(&recorded("temperatures")) {
        let found = temperature(&read::<Vec<Vec<f64>>>(&case["logits"]), &read::<Vec<u32>>(&case["labels"])).unwrap().unwrap();
        near(found, read(&case["temperature"]), 1e-9, "temperature");
    }
}

#[test]
fn schedules_are_those_of_transformers() {
    for case in list(&recorded("schedules")) {
        let schedule: Schedule = read(&case["name"]);
        let (warmup, total) = (read(&case["warmup"]), read(&case["total"]));
        for (t, wanted) in read::<Vec<f64>>(&case["factors"]).into_iter().enumerate() {
            near(schedule.factor(t, warmup, total), wanted, 1e-14, &format!("{schedule:?} at {t}"));
        }
    }
}

#[test]
fn biases_and_layer_norms_do_not_decay_if_so_asked() {
    for (name, decays) in [
        ("classifier.weight", true),
        ("classifier.bias", false),
        ("distilbert.transformer.layer.0.sa_layer_norm.weight", false),
        ("distilbert.embeddings.LayerNorm.weight", false),
        ("distilbert.transformer.layer.0.attention.q_lin.lora_A.weight", true),
    ] {
        for no_bias_decay in [false, true] {
            let mut p = Parameter::new(name, Tensor::new(vec![1.0], [1]).unwrap());
            let mut tape = Tape::new();
            let x = tape.parameter(&p);
            let zero = tape.scale(&x, 0.0).unwrap();
            let grads = tape.backward(&zero).unwrap();
            let recipe = Recipe { weight_decay: 0.5, no_bias_decay, ..Recipe::default() };
            AdamW::of(&recipe).update(&mut [&mut p], grads, 0.1, 1.0).unwrap();
            assert_eq!(p.value().item().unwrap(), if decays || !no_bias_decay { 0.95 } else { 1.0 }, "{name}");
        }
    }
}

#[test]
fn a_classifier_is_calibrated_and_measured() {
    let encoder = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/encoder");
    let texts = ["good", "bad", "a fine film", "dull", "superb", "a bore"];
    let data = Dataset::from_pairs(texts.iter().enumerate().map(|(i, text)| (*text, ["no", "yes"][usize::from(i % 3 == 0)]))).unwrap();
    let mut model = TextClassifier::open(encoder, &data).unwrap();
    model.adapt(lowrank::lora::LoraConfig::new(2, &["q_lin"])).unwrap();
    let odds = |model: &TextClassifier| -> Vec<f64> { model.predict(&texts).unwrap().iter().map(|p| (p[1] / p[0]).ln()).collect() };
    let (before, measured) = (odds(&model), model.metrics(&data).unwrap());
    // The model's own answers but for one text, so that there is a best temperature.
    let answer = |(i, odds): (usize, &f64)| model.labels[usize::from((*odds > 0.0) != (i == 2))].clone();
    let answers: Vec<String> = before.iter().enumerate().map(answer).collect();
    let held_out = Dataset::from_pairs(texts.iter().copied().zip(answers)).unwrap();
    let t = model.calibrate(&held_out).unwrap();
    assert!(t > 0.0 && t != 1.0, "{t}");
    for (after, before) in odds(&model).iter().zip(&before) {
        assert!((after * t - before).abs() < 1e-9, "{after} {before} {t}");
    }
    assert_eq!(model.metrics(&data).unwrap().accuracy, measured.accuracy);
    let out = tempfile::tempdir().unwrap();
    model.save(out.path()).unwrap();
    let again = TextClassifier::load(encoder, out.path()).unwrap();
    assert_eq!((again.temperature, again.evaluate(&data).unwrap().loss), (t, model.evaluate(&data).unwrap().loss));
}
