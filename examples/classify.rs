//! Classifies a review with an adapter: `cargo run --release --example classify -- MODEL_DIR ADAPTER_DIR "What a film!"`.

use lowrank::data::WordPiece;
use lowrank::lora::peft;
use lowrank::nn::DistilBert;
use lowrank::tensor::DType;
use lowrank::train::predict;
use std::path::Path;

fn main() -> lowrank::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, adapter, review] = &arguments[..] else {
        println!("usage: classify MODEL_DIR ADAPTER_DIR REVIEW (`lowrank train` makes an adapter)");
        return Ok(());
    };
    let (model, adapter) = (Path::new(model), Path::new(adapter));
    let wordpiece = WordPiece::open(model)?;
    let (mut model, _) = DistilBert::open(model, peft::classes(adapter)?, DType::F32, 0)?;
    peft::load(&mut model, adapter)?;
    let ids = wordpiece.encode(review, model.config.max_position_embeddings);
    for (class, p) in predict(&model, &[&ids], 1)?[0].iter().enumerate() {
        println!("class {class}: {:.1} %", 100.0 * p);
    }
    Ok(())
}
