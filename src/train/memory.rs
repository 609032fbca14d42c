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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::{LoraConfig, adapt};
    use crate::tensor::DType;
    use crate::testing::small_model;

    #[test]
    fn the_categories_add_up_to_the_peak() {
        let mut model = small_model(DType::F32);
        adapt(&mut model, &LoraConfig::new(1, &["q_lin"]), 1).unwrap();
        let trained: usize = model.parameters().iter().map(|p| p.value().bytes()).sum();
        let frozen = model.weights().into_iter().filter(|w| w.parameter().is_none());
        let frozen: usize = frozen.map(|w| w.value().unwrap().bytes()).sum();
        let found: BTreeMap<&str, usize> = memory_by_category(&model, 100_000, 300, 20).into_iter().collect();
        assert_eq!(found["what trains, its gradients and moments"], 4 * trained);
        assert_eq!(found["frozen weights in the file's map"], 0);
        assert_eq!(found["frozen weights in memory"], frozen);
        assert_eq!([found["activations kept for backward"], found["token ids"]], [300, 20]);
        assert_eq!(found.values().sum::<usize>(), 100_000);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_at_least_what_was_held() {
        let held = std::hint::black_box(vec![1_u8; 32 << 20]);
        assert!(peak_memory().unwrap() > held.len());
    }
}
