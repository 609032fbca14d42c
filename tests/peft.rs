//! Files that are no adapters of PEFT's, or ask for what is not implemented: the error says the true cause.

use lowrank::files::read_text;
use lowrank::lora::{LoraConfig, Method, adapter};
use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::safetensors::{self, SafeTensors};
use lowrank::tensor::{DType, Tensor};
use serde_json::{Value, json};
use std::path::Path;

fn fresh() -> DistilBert {
    let mut config = Config::distilbert_base();
    (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (8, 2, 12, 2, 20);
    config.max_position_embeddings = 10;
    config.initializer_range = 0.3;
    DistilBert::random(&config, 2, DType::F32, 1).unwrap()
}

/// A plain adapter in a directory.
fn saved() -> (tempfile::TempDir, Vec<(String, Tensor)>) {
    let directory = tempfile::tempdir().unwrap();
    let (mut model, method) = (fresh(), Method::Lora(LoraConfig::new(2, &["q_lin", "lin1"])));
    method.apply(&mut model, 0).unwrap();
    adapter::save(&model, &method, "base", directory.path()).unwrap();
    let tensors = adapter::tensors(&model).unwrap();
    (directory, tensors)
}

fn change(directory: &Path, key: &str, value: Value) {
    let path = directory.join("adapter_config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

fn refused(directory: &Path, words: &[&str]) {
    let e = adapter::load(&mut fresh(), directory).map(|_| ()).unwrap_err().to_string();
    assert!(words.iter().all(|word| e.contains(word)), "{e} should say {words:?}");
}

#[test]
fn keys_that_change_the_function_are_refused_by_name() {
    for (key, value) in [
        ("layer_replication", json!([[0, 1]])),
        ("target_parameters", json!(["q_lin.weight"])),
        ("use_qalora", json!(true)),
        ("use_bdlora", json!({ "nblocks": 2 })),
        ("arrow_config", json!({ "top_k": 1 })),
        ("kasa_config", json!({ "beta": 0.1 })),
        ("monteclora_config", json!({ "num_samples": 2 })),
        ("velora_config", json!({ "num_groups": 2 })),
        ("megatron_config", json!({ "x": 1 })),
        ("enable_lora", json!([true, false])),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("of next year")),
        ("init_lora_weights", json!(3)),
        ("layers_pattern", json!("layer")),
        ("layers_to_transform", json!([-1])),
        ("layers_to_transform", json!("1")),
        ("use_rslora", json!("true")),
        ("use_dora", json!(1)),
        ("rank_pattern", json!({ "q_lin": "2" })),
        ("rank_pattern", json!({ "q_lin": 1.5 })),
        ("alpha_pattern", json!([2])),
        ("modules_to_save", json!("classifier")),
        ("modules_to_save", json!([1])),
        ("exclude_modules", json!([""])),
        ("target_modules", json!([])),
        ("bias", json!("some")),
        ("lora_dropout", json!("a tenth")),
        ("trainable_token_indices", json!({ "q_lin": [1] })),
        ("trainable_token_indices", json!([-1])),
        ("trainable_token_indices", json!("all")),
    ] {
        let (directory, _) = saved();
        change(directory.path(), key, value);
        refused(directory.path(), &["adapter_config.json", key].map(|w| if key == "trainable_token_indices" { key } else { w }));
        assert!(adapter::load_with(&mut fresh(), directory.path(), true).is_err(), "{key}");
    }
}

#[test]
fn keys_that_are_not_known_are_refused_unless_they_say_nothing() {
    for value in [json!(null), json!(false), json!(""), json!([]), json!({})] {
        let (directory, _) = saved();
        change(directory.path(), "of_next_year", value);
        adapter::load(&mut fresh(), directory.path()).unwrap();
    }
    for value in [json!(true), json!(0), json!("x"), json!([1]), json!({ "a": 1 })] {
        let (directory, _) = saved();
        change(directory.path(), "use_rslorra", value);
        refused(directory.path(), &["\"use_rslorra\"", "not known", "use_rslora"]);
        let (_, warnings) = adapter::load_with(&mut fresh(), directory.path(), true).unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("use_rslorra") && warnings[0].contains("ignored"), "{warnings:?}");
    }
    // Harmless whatever they say.
    for (key, value) in [("fan_in_fan_out", json!(true)), ("loftq_config", json!({ "bits": 4 })), ("merge_weights", json!(true))] {
        let (directory, _) = saved();
        change(directory.path(), key, value);
        adapter::load(&mut fresh(), directory.path()).unwrap();
    }
    let (directory, _) = saved();
    change(directory.path(), "layers_to_transform", json!([0, 1]));
    change(directory.path(), "layers_pattern", json!("layer"));
    adapter::load(&mut fresh(), directory.path()).unwrap();
    let (directory, _) = saved();
    let path = directory.path().join("adapter_config.json");
    let twice = std::fs::read_to_string(&path).unwrap().replacen('{', "{\"r\": 2,", 1);
    std::fs::write(&path, twice).unwrap();
    refused(directory.path(), &["\"r\" stands there twice"]);
    // A method of lowrank's own is as strict.
    let directory = tempfile::tempdir().unwrap();
    adapter::save(&fresh(), &Method::Head { pre_classifier: false }, "base", directory.path()).unwrap();
    change(directory.path(), "scale", json!(2));
    refused(directory.path(), &["\"scale\"", "not known"]);
    change(directory.path(), "peft_type", json!("PROMPT_TUNING"));
    change(directory.path(), "scale", json!(null));
    change(directory.path(), "num_transformer_submodules", json!(2));
    refused(directory.path(), &["num_transformer_submodules"]);
}

#[test]
fn names_that_the_model_lacks_are_skipped_in_a_file_and_refused_in_training() {
    let (directory, _) = saved();
    change(directory.path(), "target_modules", json!(["query", "q_lin", "lin1"]));
    change(directory.path(), "modules_to_save", json!(["classifier", "score", "pooler"]));
    for lenient in [false, true] {
        let (_, notes) = adapter::load_with(&mut fresh(), directory.path(), lenient).unwrap();
        assert!(notes.len() == 2 && notes[0].contains("query") && notes[1].contains("pooler"), "{notes:?}");
    }
    change(directory.path(), "target_modules", json!(["query", "value"]));
    refused(directory.path(), &["\"query\"", "nearest"]);
    // The tensors must still agree.
    change(directory.path(), "target_modules", json!(["query", "q_lin"]));
    refused(directory.path(), &["lin1.lora_A.weight", "is not part of the adapter"]);
    let config = LoraConfig::new(2, &["q_lin", "query"]);
    assert!(Method::Lora(config).apply(&mut fresh(), 0).is_err_and(|e| e.to_string().contains("\"query\"")));
}

#[test]
fn the_true_cause_is_said() {
    let (directory, tensors) = saved();
    let (folder, path) = (directory.path(), adapter::tensors_path(directory.path()));
    let says = |words: &[&str], not: &str| {
        let e = adapter::classes(folder).unwrap_err().to_string();
        assert!(words.iter().all(|w| e.contains(w)) && !e.contains(not), "{e} should say {words:?} and not {not}");
    };
    for prefix in ["_orig_mod.base_model.model.", "module.base_model.model.", "base_model.model.module.", "base_model.model._orig_mod.", ""]
    {
        let renamed = |name: &str| name.replacen("base_model.model.", prefix, 1);
        let tensors: Vec<_> = tensors.iter().map(|(name, t)| (renamed(name), t.clone())).collect();
        safetensors::write(&path, &tensors, &Default::default()).unwrap();
        says(&["classifier.weight", &format!("begin with {prefix:?}"), "rename"], "task_type");
    }
    let renamed = |name: &str| name.replace("classifier.", "classifier.modules_to_save.default.");
    let wrapped: Vec<_> = tensors.iter().map(|(name, t)| (renamed(name), t.clone())).collect();
    safetensors::write(&path, &wrapped, &Default::default()).unwrap();
    says(&["classifier.weight", "state dict", "save_pretrained"], "task_type");
    safetensors::write(&path, &[], &Default::default()).unwrap();
    says(&["no tensor", "nothing at all"], "task_type");
    safetensors::write(&path, &[("x".to_string(), tensors[0].1.clone())], &Default::default()).unwrap();
    says(&["no tensor", "x"], "task_type");
    let lost: Vec<_> = tensors.iter().filter(|(name, _)| name.contains("lora_")).cloned().collect();
    safetensors::write(&path, &lost, &Default::default()).unwrap();
    says(&["task_type SEQ_CLS", "classifier"], "rename");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    std::fs::write(&path, pointer).unwrap();
    says(&["header", "Git LFS pointer", "git lfs pull"], "short");
    std::fs::write(&path, "").unwrap();
    says(&["header", "empty"], "LFS");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(folder.join("adapter_model.bin"), "a pickle").unwrap();
    says(&["adapter_model.bin", "pickle", "safe_serialization=True"], "No such file");
    std::fs::write(folder.join("adapter_config.json"), pointer).unwrap();
    refused(folder, &["adapter_config.json", "Git LFS pointer"]);
    assert!(read_text(&folder.join("adapter_config.json")).is_err());
    let checkpoint = tempfile::tempdir().unwrap();
    let opened = || SafeTensors::open(checkpoint.path()).map(|_| ()).unwrap_err().to_string();
    assert!(opened().contains("model.safetensors"));
    std::fs::write(checkpoint.path().join("pytorch_model.bin"), "a pickle").unwrap();
    assert!(opened().contains("pytorch_model.bin") && opened().contains("transformers"), "{}", opened());
}

#[test]
fn a_base_of_another_vocabulary_is_told() {
    let (directory, mut tensors) = saved();
    let name = "base_model.model.distilbert.embeddings.word_embeddings.weight";
    tensors.push((name.to_string(), Tensor::zeros(DType::F32, [23, 8])));
    safetensors::write(&adapter::tensors_path(directory.path()), &tensors, &Default::default()).unwrap();
    refused(directory.path(), &[name, "[23, 8]", "another vocabulary"]);
    change(directory.path(), "trainable_token_indices", json!([21]));
    tensors.pop();
    let name = "base_model.model.distilbert.embeddings.word_embeddings.token_adapter.trainable_tokens_delta";
    tensors.push((name.to_string(), Tensor::zeros(DType::F32, [1, 8])));
    safetensors::write(&adapter::tensors_path(directory.path()), &tensors, &Default::default()).unwrap();
    refused(directory.path(), &["trainable_token_indices", "row 21 is not one of the 20"]);
    change(directory.path(), "trainable_token_indices", json!([1, 2]));
    refused(directory.path(), &[name, "[1, 8]"]);
}
