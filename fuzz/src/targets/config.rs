//! Enters `nn::Config::open`, `lora::About::open`, `data::Labels::parse` and `nn::DistilBert::open_with`. Parts: `config.json`, `lowrank.json`,
//! labels as on a command line, `model.safetensors`.

use super::input::{parts, safetensors_file, with_files};
use lowrank::data::Labels;
use lowrank::lora::About;
use lowrank::nn::{Config, DistilBert, Head, LoadOptions};

pub fn run(data: &[u8]) {
    let [config, about, labels, tensors] = parts::<4>(data);
    let tensors = safetensors_file(tensors);
    with_files(&[("config.json", config), ("lowrank.json", about), ("model.safetensors", &tensors)], |folder| {
        if let Ok(config) = Config::open(folder) {
            assert!(!config.labels().is_empty());
            let _ = (config.names_classes(), config.outputs(1), config.outputs(3));
            // The file's sizes are those of a model in memory, so a large model takes much memory rightly.
            let sizes = [config.dim, config.hidden_dim, config.max_position_embeddings, config.vocab_size, config.labels().len()];
            if config.n_layers <= 2 && sizes.iter().all(|&size| size <= 64) {
                for head in [Head::Kept, Head::Fitting, Head::New] {
                    let _ = DistilBert::open_with(folder, &LoadOptions { head, ..LoadOptions::default() });
                }
            }
        }
        if let Ok(Some(about)) = About::open(folder) {
            let _ = Labels::named(&about.labels).class_of("1");
        }
    });
    let labels: Vec<String> = String::from_utf8_lossy(labels).split('\n').map(String::from).collect();
    if let Ok(known) = Labels::parse(&labels) {
        labels.iter().for_each(|label| assert!(known.class_of(label).is_none_or(|class| class < labels.len())));
    }
}
