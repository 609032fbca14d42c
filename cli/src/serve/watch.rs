//! A training run as its folder shows it. The run saves its state every `--checkpoint-every` steps, whole or not at all.

use super::reply::Refusal;
use hyper::StatusCode;
use lowrank::files::read_text;
use lowrank::tensor::safetensors::SafeTensors;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use tokio::sync::Mutex;

/// Most points of a curve.
const POINTS: usize = 400;

/// What a run's folder shows.
#[derive(Serialize)]
pub struct Run {
    /// The folder, as the server was told.
    folder: String,
    /// `waiting` for a saved state, `training` or `finished`.
    state: &'static str,
    /// Number of the last saved step, and of all steps.
    step: u64,
    steps: u64,
    /// Some of the steps, with step, loss, lr and `grad_norm`: numbers of `metrics.jsonl`.
    points: Vec<Value>,
    /// The measurements after each epoch: epoch, name of the texts, accuracy and loss.
    epochs: Vec<Value>,
    /// Seconds of training up to the last saved step, and those that are left at this speed; `null` if the run is finished or nothing is saved.
    seconds: Option<f64>,
    seconds_left: Option<f64>,
}

/// [`look`], one request at a time and on a thread of its own: the file of a long run is long, and the disk may be slow.
///
/// # Errors
/// If the thread fails.
pub async fn look_on_thread(folder: &Path, turn: &Mutex<()>) -> Result<Run, Refusal> {
    let (folder, _one) = (folder.to_path_buf(), turn.lock().await);
    let failed = |e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the run cannot be read: {e}"));
    tokio::task::spawn_blocking(move || look(&folder)).await.map_err(failed)
}

/// Reads the folder of a run.
fn look(folder: &Path) -> Run {
    // A run that saves its state in this moment is seen at the next look.
    let text = read_text(&folder.join("metrics.jsonl")).unwrap_or_default();
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let steps: Vec<&Value> = lines.iter().filter(|line| line["step"].is_u64()).collect();
    let number = |name: &str| steps.last().and_then(|line| line[name].as_u64()).unwrap_or(0);
    let (step, of) = (number("step"), number("steps"));
    let finished = folder.join("lowrank.json").exists();
    let state = match (finished, steps.is_empty()) {
        (true, _) => "finished",
        (false, false) => "training",
        (false, true) => "waiting",
    };
    let seconds = SafeTensors::open(&folder.join("checkpoint.safetensors")).ok();
    let seconds: Option<f64> = seconds.and_then(|file| file.metadata().get("seconds")?.parse().ok()).filter(|s: &f64| s.is_finite());
    let seconds_left = seconds.filter(|_| step > 0).map(|seconds| seconds / step as f64 * of.saturating_sub(step) as f64);
    let every = steps.len().div_ceil(POINTS).max(1);
    // The last step is always shown.
    let shown = steps.iter().rev().step_by(every).rev();
    let point = |line: &&Value| json!({ "step": line["step"], "loss": line["loss"], "lr": line["lr"], "grad_norm": line["grad_norm"] });
    Run {
        folder: folder.display().to_string(),
        state,
        step,
        steps: of,
        points: shown.map(point).collect(),
        epochs: lines.iter().flat_map(measurements).collect(),
        seconds,
        seconds_left,
    }
}

/// The measurements of a line of `metrics.jsonl`: `{"epoch": 1, "held-out": {…}}`.
fn measurements(line: &Value) -> Vec<Value> {
    let of = |name: &str| line[name]["accuracy"].as_f64().map(|accuracy| (name.to_string(), accuracy, line[name]["loss"].clone()));
    let found = ["held-out", "test"].into_iter().filter_map(of);
    found.map(|(name, accuracy, loss)| json!({ "epoch": line["epoch"], "texts": name, "accuracy": accuracy, "loss": loss })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_at_every_stage() {
        let dir = tempfile::tempdir().unwrap();
        let run = look(&dir.path().join("later"));
        assert_eq!((run.state, run.step, run.seconds_left), ("waiting", 0, None));
        let step = |i: usize| format!("{{\"step\":{i},\"steps\":2000,\"epoch\":1,\"loss\":0.5,\"lr\":1e-3,\"grad_norm\":2.0}}\n");
        let mut text: String = (1..=1000).map(step).collect();
        text += "{\"epoch\":1,\"held-out\":{\"accuracy\":0.75,\"loss\":0.6}}\nnot json\n";
        std::fs::write(dir.path().join("metrics.jsonl"), &text).unwrap();
        let run = look(dir.path());
        assert_eq!((run.state, run.step, run.steps, run.points.len()), ("training", 1000, 2000, 334));
        assert_eq!(run.points.last().unwrap()["step"], 1000);
        assert_eq!(run.epochs, [json!({ "epoch": 1, "texts": "held-out", "accuracy": 0.75, "loss": 0.6 })]);
        std::fs::write(dir.path().join("lowrank.json"), "{}").unwrap();
        assert_eq!(look(dir.path()).state, "finished");
    }
}
