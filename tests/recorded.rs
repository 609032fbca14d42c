//! Adapters that PEFT wrote, with the logits that PEFT computes with them: `tests/interop/interop.py --record` made the files.

use lowrank::autograd::Tape;
use lowrank::lora::{Combination, Method, adapter, combine, merge};
use lowrank::nn::{DistilBert, Pass};
use lowrank::tensor::Sequences;
use lowrank::tensor::safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The texts that were recorded, and the logits that PEFT computes of them.
fn recorded(folder: &Path) -> (Vec<Vec<u32>>, Vec<f64>) {
    let recorded = json(&folder.join("logits.json"));
    let logits: Vec<Vec<f64>> = serde_json::from_value(recorded["logits"].clone()).unwrap();
    (serde_json::from_value(recorded["ids"].clone()).unwrap(), logits.concat())
}

fn logits(model: &DistilBert, ids: &[Vec<u32>]) -> Vec<f64> {
    let sequences = Sequences::new(&ids.iter().map(Vec::len).collect::<Vec<_>>(), vec![0, 1]).unwrap();
    let logits = model.forward(&mut Tape::new(), &ids.concat(), &Pass::evaluation(Arc::new(sequences))).unwrap();
    logits.value().to_f64().unwrap()
}

fn merged(mut model: DistilBert, ids: &[Vec<u32>]) -> Vec<f64> {
    merge(&mut model).unwrap();
    logits(&model, ids)
}

fn assert_near(ours: &[f64], theirs: &[f64], name: &str) {
    assert!(ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-5), "{name}: {ours:?} {theirs:?}");
}

/// PEFT keeps names as a set, or adds its own twice: order and repetition are no one's.
fn sorted(mut config: Value) -> Value {
    for key in ["target_modules", "modules_to_save"] {
        if let Some(names) = config.get_mut(key).and_then(Value::as_array_mut) {
            names.sort_by_key(|t| t.as_str().unwrap().to_string());
            names.dedup();
        }
    }
    config
}

#[test]
fn adapters_of_peft_give_the_logits_of_peft_and_are_written_as_peft_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["lora", "rslora", "dora", "prompt"] {
        let folder = root.join("tests/interop/recorded").join(name);
        let mut model = DistilBert::open(root.join("assets/encoder")).unwrap();
        let method = adapter::load(&mut model, &folder).unwrap();

        let (ids, wanted) = recorded(&folder);
        assert_near(&logits(&model, &ids), &wanted, name);

        let out = tempfile::tempdir().unwrap();
        adapter::save(&model, &method, "encoder", out.path()).unwrap();
        let config = |folder: &Path| sorted(json(&folder.join("adapter_config.json")));
        assert_eq!(config(out.path()), config(&folder), "{name}");
        let [ours, theirs] = [out.path(), &folder].map(|f| SafeTensors::open(&adapter::tensors_path(f)).unwrap());
        assert_eq!(ours.names().collect::<Vec<_>>(), theirs.names().collect::<Vec<_>>(), "{name}");
        for tensor in ours.names() {
            let [a, b] = [&ours, &theirs].map(|f| f.tensor(tensor).unwrap());
            assert!(a.shape() == b.shape() && a.to_f64().unwrap() == b.to_f64().unwrap(), "{name}: {tensor}");
        }
    }
}

/// What PEFT does with the base, the names and the embeddings when it loads an adapter. The base is random and the adapters are far from it.
#[test]
#[cfg(feature = "regex")]
fn adapters_that_are_more_than_terms_give_the_logits_of_peft() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/recorded/loaded");
    let base = || DistilBert::open(root.join("base")).unwrap();
    let started = ["pissa", "pissa-rslora", "pissa-dora", "olora"];
    // Of these the terms alone differ from the base.
    let plain = ["exclude-names", "exclude-pattern", "layers", "look-around", "mica", "order", "orthogonal", "several-models", "alora"];
    let embeddings =
        ["container", "container-layer", "embeddings", "embeddings-to-save", "lora-bias", "tokens", "tokens-of-both", "tokens-saved"];
    let mut all: Vec<String> = std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    let mut named = [&started[..], &plain, &embeddings, &["base"]].concat();
    named.sort();
    assert_eq!(all, named);
    for name in named.into_iter().filter(|name| *name != "base") {
        let folder = root.join(name);
        let (ids, wanted) = recorded(&folder);
        let mut model = base();
        let (method, notes) = adapter::load_with(&mut model, &folder, false).unwrap();
        assert_near(&logits(&model, &ids), &wanted, name);
        assert_eq!(notes.is_empty(), !["several-models", "alora", "container"].contains(&name), "{name}: {notes:?}");

        // Written and read again, the same function.
        let out = tempfile::tempdir().unwrap();
        adapter::save(&model, &method, "base", out.path()).unwrap();
        let mut again = base();
        adapter::load(&mut again, out.path()).unwrap();
        assert_near(&logits(&again, &ids), &wanted, name);

        assert_near(&merged(again, &ids), &wanted, name);
        if started.contains(&name) {
            assert!(
                lowrank::lora::truncate(&mut model, 1).is_err_and(|e| name == "pissa-dora" || e.to_string().contains("cannot be cut")),
                "{name}"
            );
        }
        let combined = combine(&mut base(), vec![(model, 1.0)], Combination::Cat);
        match combined {
            Ok(_) => assert!(plain.contains(&name) || (started.contains(&name) && name != "pissa-dora"), "{name}"),
            Err(e) => {
                assert!(embeddings.contains(&name) && e.to_string().contains("trained itself") || name == "pissa-dora", "{name}: {e}")
            }
        }
    }
    let facts = |name: &str| adapter::facts(&root.join(name)).unwrap().join("; ");
    assert!(facts("pissa").contains("PiSSA") && facts("olora").contains("OLoRA") && facts("tokens").contains("2 rows"));
    assert!(facts("layers").is_empty());
}

/// Merging and combining see the start that was taken out of the base, too.
#[test]
fn a_start_in_the_base_is_merged_and_combined() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/recorded/loaded");
    let base = || DistilBert::open(root.join("base")).unwrap();
    for name in ["pissa", "pissa-rslora", "pissa-dora", "olora"] {
        let folder = root.join(name);
        let (ids, wanted) = recorded(&folder);
        let load = || {
            let mut model = base();
            let method = adapter::load(&mut model, &folder).unwrap();
            (model, method)
        };
        let (model, method) = load();
        assert!(matches!(method, Method::Lora(config) if config.rank == 4));
        assert_near(&merged(model, &ids), &wanted, name);
        if name != "pissa-dora" {
            let mut both = base();
            combine(&mut both, vec![(load().0, 0.25), (load().0, 0.75)], Combination::Cat).unwrap();
            assert_near(&logits(&both, &ids), &wanted, name);
        }
    }
}

/// PEFT's adapters of a BERT: its names, the pooler, token types, and a prompt.
#[test]
#[cfg(feature = "regex")]
fn adapters_of_a_bert_give_the_logits_of_peft() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/recorded/bert");
    let base = || DistilBert::open(root.join("base")).unwrap();
    let mut count = 0;
    for name in std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|name| name != "base") {
        let folder = root.join(&name);
        let (ids, wanted) = recorded(&folder);
        let mut model = base();
        let method = adapter::load(&mut model, &folder).unwrap();
        assert_near(&logits(&model, &ids), &wanted, &name);

        // Written as PEFT does, but for the start that pissa takes out of the base, and replaced rows.
        let out = tempfile::tempdir().unwrap();
        adapter::save(&model, &method, "base", out.path()).unwrap();
        if !["pissa", "types"].contains(&&*name) {
            let [ours, theirs] = [out.path(), &folder].map(|f| SafeTensors::open(&adapter::tensors_path(f)).unwrap());
            // PEFT writes the biases of modules to save again, under the names of its wrapper.
            let wrapped = |name: &&str| name.contains(".modules_to_save.") || name.contains(".original_module.");
            assert_eq!(ours.names().collect::<Vec<_>>(), theirs.names().filter(|name| !wrapped(name)).collect::<Vec<_>>(), "{name}");
        }
        let mut again = base();
        adapter::load(&mut again, out.path()).unwrap();
        assert_near(&logits(&again, &ids), &wanted, &name);
        if name != "prompt" {
            assert_near(&merged(again, &ids), &wanted, &name);
        }
        count += 1;
    }
    assert_eq!(count, 12);
}
