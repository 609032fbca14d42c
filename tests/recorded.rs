//! Adapters that PEFT wrote, with the logits that PEFT computes with them: `tests/interop/interop.py --record` made the files.

use lowrank::autograd::Tape;
use lowrank::lora::adapter;
use lowrank::nn::{DistilBert, Pass};
use lowrank::tensor::safetensors::SafeTensors;
use lowrank::tensor::{DType, Packing};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
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
        let mut model = DistilBert::open(&root.join("assets/encoder"), 2, DType::F32, 0).unwrap().0;
        let method = adapter::load(&mut model, &folder).unwrap();

        let recorded = json(&folder.join("logits.json"));
        let ids: Vec<Vec<u32>> = serde_json::from_value(recorded["ids"].clone()).unwrap();
        let wanted: Vec<Vec<f64>> = serde_json::from_value(recorded["logits"].clone()).unwrap();
        let packing = Packing::new(&ids.iter().map(Vec::len).collect::<Vec<_>>(), vec![0, 1]).unwrap();
        let logits = model.forward(&mut Tape::new(), &ids.concat(), &Pass::evaluation(Arc::new(packing))).unwrap();
        for (ours, theirs) in logits.value().to_f64().unwrap().iter().zip(wanted.concat()) {
            assert!((ours - theirs).abs() < 1e-5, "{name}: {ours} {theirs}");
        }

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
