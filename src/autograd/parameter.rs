//! Trained tensors. On a tape, a trained weight is a [`Parameter`] and a frozen one a plain [`Tensor`].

use crate::tensor::Tensor;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identity of a parameter. Gradients are keyed by it, so a weight that a model uses in two places has one gradient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ParamId(u64);

impl ParamId {
    /// A new identity.
    pub(super) fn fresh() -> ParamId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ParamId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A trained tensor with its name in the files of a checkpoint or an adapter.
#[derive(Debug)]
pub struct Parameter {
    id: ParamId,
    name: String,
    value: Tensor,
}

impl Parameter {
    /// A parameter that starts at `value`.
    pub fn new(name: impl Into<String>, value: Tensor) -> Parameter {
        Parameter { id: ParamId::fresh(), name: name.into(), value }
    }

    /// Its identity.
    pub fn id(&self) -> ParamId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Sets the value.
    pub fn set(&mut self, value: Tensor) {
        self.value = value;
    }

    /// The value, to be moved to a device.
    #[cfg(feature = "cuda")]
    pub(crate) fn value_mut(&mut self) -> &mut Tensor {
        &mut self.value
    }

    /// Takes the value out, so that the optimizer can change it in place and [`Parameter::set`] it again.
    pub(crate) fn take(&mut self) -> Tensor {
        std::mem::replace(&mut self.value, Tensor::zeros(crate::tensor::DType::F32, [0]))
    }
}
