//! Enters `lora::adapter::load_with`, `facts` and `classes`. Parts: `adapter_config.json`, `adapter_model.safetensors`. An input of an odd length is
//! loaded leniently.

use super::input::{parts, safetensors_file, small_model, with_files};
use lowrank::lora::{adapter, merge};

pub fn run(data: &[u8]) {
    let [config, tensors] = parts::<2>(data);
    let tensors = safetensors_file(tensors);
    with_files(&[("adapter_config.json", config), ("adapter_model.safetensors", &tensors)], |folder| {
        let _ = (adapter::facts(folder), adapter::classes(folder));
        let (mut model, lenient) = (small_model(), data.len() % 2 == 1);
        if adapter::load_with(&mut model, folder, lenient).is_ok() {
            let _ = adapter::tensors(&model);
            let _ = merge(&mut model);
        }
    });
}
