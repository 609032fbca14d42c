//! The ledger: what every operation of a tape did and kept. `lowrank explain` prints it, and tests check what is saved.

use super::record::{Ledger, Record};
use super::tape::{Node, Tape};
use crate::tensor::Tensor;
use std::collections::BTreeSet;

impl Tape<'_> {
    /// An empty tape that also keeps a [`Record`] of every operation.
    pub fn with_ledger() -> Self {
        Tape { ledger: Some(Ledger::default()), ..Tape::default() }
    }

    /// Names the layer that the next operations belong to.
    pub fn enter(&mut self, layer: &str) {
        if let Some(ledger) = &mut self.ledger {
            ledger.layer = layer.to_string();
        }
    }

    /// The records so far; empty without a ledger.
    pub fn ledger(&self) -> &[Record] {
        self.ledger.as_ref().map_or(&[], |ledger| &ledger.records)
    }

    /// Bytes that are kept for backward. Each storage counts once; those in `model`, the model's own, do not count.
    pub fn kept_bytes(&self, model: &BTreeSet<usize>) -> usize {
        let mut seen = model.clone();
        let mut count = |t: &Tensor| if seen.insert(t.storage_id()) { t.storage().bytes } else { 0 };
        let kept = self.nodes.iter().map(|node| match node {
            Node::Leaf(_) => 0,
            Node::Op { saved, .. } => saved.iter().map(|(_, t)| count(t)).sum::<usize>(),
            Node::Segment { inputs, .. } => inputs.iter().map(|v| count(&v.value)).sum(),
        });
        kept.sum()
    }
}
