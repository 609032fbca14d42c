//! Plots the losses of training runs: `cargo run --release -p lowrank-cli --example losses -- PLOT.svg f32=RUN,RUN bf16=RUN,RUN`, where RUN is a
//! folder that `lowrank train --out` wrote. Each line is the mean of its runs.

use lowrank_cli::study::figure::{Figure, Plot, Point, Series};
use serde_json::Value;
use std::path::Path;

const USAGE: &str = "which file is to be written, and of which runs? PLOT.svg NAME=RUN[,RUN] …";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = arguments.split_first().filter(|(_, lines)| !lines.is_empty());
    let (plot, lines) = named.ok_or(USAGE)?;
    let caption = "Means over runs and neighbouring steps, with dropout, before each step.";
    let lines = Plot::Lines(lines.iter().map(|line| series(line)).collect::<Outcome<_>>()?);
    let figure = Figure::linear("Training loss", caption, ["step", "cross-entropy (nats)"], lines);
    std::fs::write(plot, figure.file()).map_err(|e| format!("{plot}: {e}"))?;
    Ok(())
}

/// The line of `NAME=RUN[,RUN]`.
fn series(line: &str) -> Outcome<Series> {
    let (name, runs) = line.split_once('=').ok_or_else(|| format!("{line}: a line is NAME=RUN[,RUN]"))?;
    let runs: Vec<Vec<f64>> = runs.split(',').map(|run| losses(&Path::new(run).join("metrics.jsonl"))).collect::<Outcome<_>>()?;
    let steps = runs[0].len();
    if runs.iter().any(|run| run.len() != steps) {
        return Err(format!("{line}: runs of one line have as many steps each").into());
    }
    let mean = |i: usize| runs.iter().map(|run| run[i]).sum::<f64>() / runs.len() as f64;
    let points = (0..steps).map(|i| Point { x: (i + 1) as f64, y: mean(i), interval: None });
    Ok(Series { name: name.into(), points: points.collect() })
}

/// The losses of a run, in the order of its steps.
fn losses(file: &Path) -> Outcome<Vec<f64>> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let loss = |(i, line): (usize, &str)| {
        let metrics: Value = serde_json::from_str(line).map_err(|e| format!("{}, line {}: {e}", file.display(), i + 1))?;
        Ok(metrics["loss"].as_f64().ok_or_else(|| format!("{}, line {}: no loss", file.display(), i + 1))?)
    };
    text.lines().enumerate().map(loss).collect()
}
