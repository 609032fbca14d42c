//! The saved state of a run: parameters, moments and the step. A resumed run ends with the same bits as one without a pause.

use super::AdamW;
use crate::nn::DistilBert;
use crate::tensor::Tensor;
use crate::tensor::safetensors::{SafeTensors, write};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Writes parameters, moments and the step. `settings` is everything that must be equal when the run is resumed. If it is a JSON object,
/// [`load_checkpoint`] names what differs.
///
/// # Errors
/// If the file cannot be written, or a number is not finite. The file is then not touched.
pub fn save_checkpoint(path: &Path, model: &DistilBert, optimizer: &AdamW, settings: &str) -> Result<()> {
    save_checkpoint_with(path, model, optimizer, settings, Vec::new(), BTreeMap::new())
}

/// [`save_checkpoint`] with further tensors and metadata, under their own names.
///
/// # Errors
/// Those of [`save_checkpoint`].
pub fn save_checkpoint_with(
    path: &Path,
    model: &DistilBert,
    optimizer: &AdamW,
    settings: &str,
    mut tensors: Vec<(String, Tensor)>,
    mut metadata: BTreeMap<String, String>,
) -> Result<()> {
    for p in model.parameters() {
        tensors.push((p.name().to_string(), p.value().clone()));
        if let Some((m, v)) = optimizer.moments(p) {
            tensors.extend([(format!("m.{}", p.name()), m.clone()), (format!("v.{}", p.name()), v.clone())]);
        }
    }
    metadata.extend([("settings".to_string(), settings.to_string()), ("step".to_string(), optimizer.steps().to_string())]);
    write(path, &tensors, &metadata)
}

/// Restores what [`save_checkpoint`] wrote. Returns the file, for the further tensors and metadata.
///
/// # Errors
/// If the file is missing or damaged, or was written with other settings.
pub fn load_checkpoint(path: &Path, model: &mut DistilBert, optimizer: &mut AdamW, settings: &str) -> Result<SafeTensors> {
    let file = SafeTensors::open(path)?;
    let saved = file.metadata().get("settings").map_or("", String::as_str);
    if saved != settings {
        let differing = differences(saved, settings);
        let advice = "give the same arguments, or begin anew (train: --restart; study: another --out)";
        return Err(Error::file(path, "settings", format!("the run that was saved had other settings{differing}: {advice}")));
    }
    let step = file.metadata().get("step").and_then(|s| s.parse::<i32>().ok()).filter(|step| (0..i32::MAX).contains(step));
    let step =
        step.ok_or_else(|| Error::file(path, "step", "is missing, or no number of steps: the file is damaged; start anew"))? as usize;
    let mut moments = Vec::new();
    for p in model.parameters_mut() {
        let read = |name: String| {
            let t = file.tensor(&name)?;
            let problem = |what: String| Error::file(path, format!("tensor {name:?}"), what);
            t.check_finite(|what| problem(format!("{what}: the file is damaged; start anew")))?;
            match t.shape() == p.value().shape() && t.dtype() == p.value().dtype() {
                true => Ok(t),
                false => Err(problem("has another shape or type than the model's".to_string())),
            }
        };
        let value = read(p.name().to_string())?;
        moments.push((p.id(), (read(format!("m.{}", p.name()))?, read(format!("v.{}", p.name()))?)));
        p.set(value.to_device_of(p.value())?);
    }
    optimizer.restore(step, moments);
    Ok(file)
}

/// The differences of two JSON objects, for a message. Empty if one is not an object.
fn differences(saved: &str, now: &str) -> String {
    let parsed = |text: &str| serde_json::from_str::<Map<String, Value>>(text);
    let (Ok(saved), Ok(now)) = (parsed(saved), parsed(now)) else { return String::new() };
    let keys: BTreeSet<&String> = saved.keys().chain(now.keys()).collect();
    let value = |of: &Map<String, Value>, key: &str| of.get(key).map_or("not known".to_string(), Value::to_string);
    let differing = keys.into_iter().filter(|key| saved.get(*key) != now.get(*key));
    let parts: Vec<String> = differing.map(|key| format!("{key} was {}, and is {}", value(&saved, key), value(&now, key))).collect();
    format!(" ({})", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_differ_are_named() {
        assert_eq!(
            differences(r#"{"a":1,"b":"x","c":[2]}"#, r#"{"a":1,"b":"y","d":null}"#),
            r#" (b was "x", and is "y"; c was [2], and is not known; d was not known, and is null)"#
        );
        assert_eq!(differences("Recipe", "{}"), "");
    }
}
