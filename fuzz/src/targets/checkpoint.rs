//! Enters `train::load_checkpoint` with the saved state of a run, and takes one step. The settings of the run are `{"seed":1}`.

use super::input::{safetensors_file, small_model, with_files};
use lowrank::autograd::Grads;
use lowrank::lora::{LoraConfig, adapt};
use lowrank::nn::DistilBert;
use lowrank::train::{AdamW, load_checkpoint};

pub const SETTINGS: &str = r#"{"seed":1}"#;

/// The model whose state is saved.
pub fn model() -> DistilBert {
    let mut model = small_model();
    adapt(&mut model, &LoraConfig::new(1, &["q_lin"]), 1).expect("the model has this layer");
    model
}

pub fn run(data: &[u8]) {
    let file = safetensors_file(data);
    with_files(&[("state.safetensors", &file)], |folder| {
        let (mut model, mut optimizer) = (model(), AdamW::new(0.01));
        if load_checkpoint(&folder.join("state.safetensors"), &mut model, &mut optimizer, SETTINGS).is_ok() {
            assert!(i32::try_from(optimizer.steps()).is_ok_and(|steps| steps < i32::MAX), "the steps of a run are counted in an i32");
            let _ = optimizer.update(&mut model.parameters_mut(), Grads::default(), 1e-3, 1.0);
        }
    });
}
