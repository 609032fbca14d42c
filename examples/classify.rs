//! Classifies a review: `cargo run --release --example classify -- "What a film!"` with the bundled encoder and a head that is not trained, or
//! `… -- "What a film!" MODEL_DIR ADAPTER_DIR` with an adapter that `lowrank train` made.

use lowrank::data::WordPiece;
use lowrank::lora::adapter;
use lowrank::nn::DistilBert;
use lowrank::tensor::DType;
use lowrank::train::predict;
use std::path::Path;

fn main() -> lowrank::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let review = arguments.first().map_or("I wanted to leave after ten minutes, and I wish I had.", String::as_str);
    let (directory, model) = match &arguments[..] {
        [_, directory, adapter] => {
            let (directory, adapter) = (Path::new(directory), Path::new(adapter));
            let (mut model, _) = DistilBert::open(directory, adapter::classes(adapter)?, DType::F32, 0)?;
            adapter::load(&mut model, adapter)?;
            (directory, model)
        }
        _ => {
            let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/encoder"));
            let (model, report) = DistilBert::open(directory, 2, DType::F32, 0)?;
            println!("not trained, so that the answer means nothing: {}", report.initialised.join(", "));
            (directory, model)
        }
    };
    let ids = WordPiece::open(directory)?.encode(review, model.config.max_position_embeddings);
    println!("{review:?} is {} tokens", ids.len());
    for (class, p) in predict(&model, &[&ids], 1)?[0].iter().enumerate() {
        println!("class {class}: {:.1} %", 100.0 * p);
    }
    Ok(())
}
