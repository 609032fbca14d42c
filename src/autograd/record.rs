//! What one operation of a tape did and kept.

use super::{Op, Saved};
use crate::tensor::{Shape, Tensor};

/// What one operation did.
#[derive(Clone, Debug)]
pub struct Record {
    /// Name of the op.
    pub op: &'static str,
    /// The layer it ran in, if the tape was told.
    pub layer: String,
    /// Shape and storage identity of each input.
    pub inputs: Vec<(Shape, usize)>,
    /// Shape of the output.
    pub output: Shape,
    /// Storage identity of the output. An input is the output of the last earlier operation with this storage.
    pub storage: usize,
    /// Which inputs a gradient must reach.
    pub needs: Vec<bool>,
    /// Name, bytes and storage identity of each saved tensor.
    pub saved: Vec<(&'static str, usize, usize)>,
    /// Floating-point operations of forward, of backward, and those that backward is spared because inputs are frozen.
    pub flops: [u64; 3],
}

/// The records so far, and the layer that the next one belongs to.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) records: Vec<Record>,
    pub(super) layer: String,
}

impl Ledger {
    pub(super) fn record(&mut self, op: &dyn Op, inputs: &[&Tensor], needs: &[bool], saved: &Saved, output: &Tensor) {
        let (forward, backward) = op.flops(inputs, needs);
        let unfrozen = op.flops(inputs, &vec![true; needs.len()]).1;
        self.records.push(Record {
            op: op.name(),
            layer: self.layer.clone(),
            inputs: inputs.iter().map(|t| (t.shape().clone(), t.storage_id())).collect(),
            output: output.shape().clone(),
            storage: output.storage_id(),
            needs: needs.to_vec(),
            saved: saved.iter().map(|(name, t)| (name, t.bytes(), t.storage_id())).collect(),
            flops: [forward, if needs.contains(&true) { backward } else { 0 }, unfrozen - backward],
        });
    }
}
