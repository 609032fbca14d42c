//! Time of a whole `lowrank predict` process for one short review, at DistilBERT-base's size: `cargo bench -p lowrank-cli --bench start`.
//!
//! Writes a random checkpoint with a head (268 MB) to the folder for temporary files, and removes it.

use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::DType;
use std::process::Command;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let vocabulary = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/encoder/vocab.txt");
    std::fs::copy(vocabulary, directory.path().join("vocab.txt"))?;
    let config = Config::distilbert_base();
    std::fs::write(directory.path().join("config.json"), serde_json::to_string(&config)?)?;
    let model = DistilBert::random(&config, 2, DType::F32, 0)?;
    let tensors: Vec<_> = model.weights().iter().map(|w| Ok((w.name().to_string(), w.value()?))).collect::<lowrank::Result<_>>()?;
    lowrank::tensor::safetensors::write(&directory.path().join("model.safetensors"), &tensors, &Default::default())?;
    drop((tensors, model));
    for dtype in ["f32", "bf16"] {
        let mut times = Vec::new();
        for _ in 0..15 {
            let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
            command.args(["predict", "--dtype", dtype, "--model"]).arg(directory.path()).arg("What a film, and what a cast!");
            let start = Instant::now();
            let output = command.output()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into());
            }
        }
        // The first runs read the file into the page cache.
        let mut times = times.split_off(3);
        times.sort_by(f64::total_cmp);
        println!(
            "predict, {dtype}: {:.0} ms (median of {}; {:.0}-{:.0})",
            times[times.len() / 2],
            times.len(),
            times[0],
            times[times.len() - 1]
        );
    }
    Ok(())
}
