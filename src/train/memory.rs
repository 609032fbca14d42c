//! Where a run's memory went.

use crate::nn::DistilBert;
use crate::tensor::Storage;
use std::collections::BTreeMap;

/// The most memory that this process ever held, in bytes, where the system tells.
pub fn peak_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()?)
}

/// A `peak` by category, in bytes; `kept` were kept for backward at most, `data` are the token ids'. What none of them explains: gradients of
/// activations, buffers that wait to be used again, the program itself.
pub fn memory_by_category(model: &DistilBert, peak: usize, kept: usize, data: usize) -> Vec<(&'static str, usize)> {
    let (mut mapped, mut converted, trained) = (BTreeMap::new(), BTreeMap::new(), model.parameters());
    let trains: usize = trained.iter().map(|p| p.value().bytes()).sum();
    for weight in model.weights().into_iter().filter(|w| w.parameter().is_none()) {
        let Ok(value) = weight.value() else { continue };
        let kind = if matches!(**value.storage(), Storage::Mapped(_)) { &mut mapped } else { &mut converted };
        kind.insert(value.storage_id(), value.bytes());
    }
    let mut all = vec![
        ("frozen weights in the file's map", mapped.values().sum()),
        ("frozen weights in memory", converted.values().sum()),
        // The numbers, their gradients, and two moments of each.
        ("what trains, its gradients and moments", 4 * trains),
        ("activations kept for backward", kept),
        ("token ids", data),
    ];
    let explained: usize = all.iter().map(|(_, bytes)| bytes).sum();
    all.push(("the rest", peak.saturating_sub(explained)));
    all
}
