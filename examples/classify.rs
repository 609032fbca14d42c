//! Trains a classifier on your own texts: `cargo run --release --example classify -- "What a film!"`.
//!
//! The texts are film reviews that come with the package, as pairs of a text and its label; with the feature `data`,
//! `lowrank::data::load` reads them from CSV, TSV and JSON files. In place of `assets/encoder`, give the folder of a DistilBERT checkpoint.

use lowrank::assets::REVIEWS;
use lowrank::prelude::*;

fn main() -> Result<()> {
    let review = std::env::args().nth(1).unwrap_or("I wanted to leave after ten minutes, and I wish I had.".to_string());
    let table = String::from_utf8_lossy(REVIEWS[0].1);
    let pairs = table.lines().skip(1).filter_map(|line| line.split_once('\t')).map(|(label, text)| (text, label));
    let data = Dataset::from_pairs(pairs)?.split(0.1, 0)?;

    let mut model = TextClassifier::open(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/encoder"), &data.train)?;
    model.adapt(LoraConfig::new(8, &["q_lin", "v_lin"]))?;
    println!("{}", model.trainable());
    model.fit(&data.train, &Recipe { lr: 1e-3, ..Recipe::default() })?;
    let found = model.evaluate(&data.test)?;
    println!("accuracy {:.1} % on {} texts that were held out", 100.0 * found.accuracy, found.examples);
    println!("{review:?}");
    for (label, p) in model.labels.iter().zip(&model.predict(&[&review])?[0]) {
        println!("{label}: {:.1} %", 100.0 * p);
    }
    let out = std::env::temp_dir().join("lowrank-classify");
    model.save(&out)?;
    println!("adapter written to {}; TextClassifier::load opens it again", out.display());
    Ok(())
}
