//! The study's own snippet: a LoRA configuration, the adapted model, the count of trainable parameters.

use lowrank::lora::{Counts, LoraConfig, adapt};
use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::DType;

fn main() -> lowrank::Result<()> {
    let config = LoraConfig::new(8, &["q_lin", "v_lin"]); // alpha = 2r, dropout 0.1
    let mut model = DistilBert::random(&Config::distilbert_base(), 2, DType::F32, 0)?;
    adapt(&mut model, &config, 0)?;
    println!("{}", Counts::of(&model).peft_line());
    // trainable params: 739,586 || all params: 67,694,596 || trainable%: 1.0925
    Ok(())
}
