//! What a run's memory was used for.

use crate::nn::DistilBert;
use crate::tensor::Place;
use std::collections::BTreeMap;

/// The largest amount of memory that this process ever held, in bytes. `None` where the system does not tell (only Linux does).
pub fn peak_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()?)
}

/// A `peak` of memory by category, in bytes. `kept`: activations kept for backward. `data`: token ids. "The rest" is gradients of activations,
/// free buffers of the pool, and the program itself.
pub fn memory_by_category(model: &DistilBert, peak: usize, kept: usize, data: usize) -> Vec<(&'static str, usize)> {
    let (mut mapped, mut converted, trained) = (BTreeMap::new(), BTreeMap::new(), model.parameters());
    let trains: usize = trained.iter().map(|p| p.value().bytes()).sum();
    for weight in model.weights().into_iter().filter(|w| w.parameter().is_none()) {
        let Ok(value) = weight.value() else { continue };
        let kind = if matches!(value.storage().place, Place::Mapped(..)) { &mut mapped } else { &mut converted };
        kind.insert(value.storage_id(), value.bytes());
    }
    let mut all = vec![
        ("frozen weights in the file's map", mapped.values().sum()),
        ("frozen weights in memory", converted.values().sum()),
        // Each has a value, a gradient and two moments.
        ("what trains, its gradients and moments", 4 * trains),
        ("activations kept for backward", kept),
        ("token ids", data),
    ];
    let explained: usize = all.iter().map(|(_, bytes)| bytes).sum();
    all.push(("the rest", peak.saturating_sub(explained)));
    all
}
