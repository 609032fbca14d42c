//! A weight of a layer: frozen, trained or computed.

use super::Pass;
use crate::autograd::{Parameter, Tape, Var};
use crate::tensor::{Shape, Tensor};
use crate::{Error, Result};

/// A named weight. Its variant says whether it trains.
pub enum Weight {
    /// Training does not change it. The value may still be in the memory map of the checkpoint.
    Frozen {
        /// Name in the checkpoint.
        name: String,
        /// The value.
        value: Tensor,
    },
    /// Trained itself.
    Trained(Parameter),
    /// Only for training in a random subspace; a first reader may skip it. A function of one trained vector that all such weights share: W₀
    /// plus a fixed random map of the vector.
    Computed {
        /// Name in the checkpoint.
        name: String,
        /// The function.
        function: Box<dyn WeightFn>,
    },
}

/// A differentiable function from the shared vector to a weight.
pub trait WeightFn {
    /// The weight for this value of the shared vector.
    ///
    /// # Errors
    /// Those of the ops it applies.
    fn forward(&self, tape: &mut Tape, shared: &Var) -> Result<Var>;
    /// Shape of the weight.
    fn shape(&self) -> &Shape;
    /// The constants of the function. They move to the device of the model.
    fn constants_mut(&mut self) -> Vec<&mut Tensor>;
}

impl Weight {
    /// A frozen weight.
    pub fn frozen(name: impl Into<String>, value: Tensor) -> Weight {
        Weight::Frozen { name: name.into(), value }
    }

    /// A trained weight that starts at `value`.
    pub fn trained(name: impl Into<String>, value: Tensor) -> Weight {
        Weight::Trained(Parameter::new(name, value))
    }

    /// Name in the checkpoint.
    pub fn name(&self) -> &str {
        match self {
            Weight::Frozen { name, .. } | Weight::Computed { name, .. } => name,
            Weight::Trained(p) => p.name(),
        }
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        match self {
            Weight::Frozen { value, .. } => value.shape(),
            Weight::Trained(p) => p.value().shape(),
            Weight::Computed { function, .. } => function.shape(),
        }
    }

    /// Its value.
    ///
    /// # Errors
    /// If it is computed: then it has a value on a tape only.
    pub fn value(&self) -> Result<Tensor> {
        match self {
            Weight::Frozen { value, .. } => Ok(value.clone()),
            Weight::Trained(p) => Ok(p.value().clone()),
            Weight::Computed { name, .. } => Err(Error::invalid(format!("{name}: a computed weight has no value of its own"))),
        }
    }

    /// Whether training changes its value.
    pub fn trains(&self) -> bool {
        !matches!(self, Weight::Frozen { .. })
    }

    /// The weight on a tape. A frozen weight is a constant: nothing is computed or saved for its gradient.
    ///
    /// # Errors
    /// If a computed weight cannot be computed.
    pub fn var<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass) -> Result<Var> {
        match self {
            Weight::Frozen { value, .. } => Ok(tape.constant(value)),
            Weight::Trained(p) => Ok(tape.parameter(p)),
            Weight::Computed { name, function } => match &pass.shared {
                Some(shared) => function.forward(tape, shared),
                None => Err(Error::invalid(format!("{name}: the pass lacks the vector that it is computed from"))),
            },
        }
    }

    /// Makes a frozen weight a trained one. It then has the precision of an accumulator: f32 even if the model computes in bf16, because
    /// bf16 would round small steps away.
    ///
    /// # Errors
    /// Never for a float.
    pub fn train(&mut self) -> Result<()> {
        if let Weight::Frozen { name, value } = self {
            let value = value.to_dtype(value.dtype().accum())?;
            *self = Weight::trained(std::mem::take(name), value);
        }
        Ok(())
    }

    /// Sets the value of a frozen or trained weight.
    ///
    /// # Errors
    /// If the shape differs, or the weight is computed.
    pub fn set(&mut self, new: Tensor) -> Result<()> {
        if new.shape() != self.shape() {
            return Err(Error::shape("weight", "the weight's own shape", &[self.shape(), new.shape()]));
        }
        match self {
            Weight::Frozen { value, .. } => *value = new,
            Weight::Trained(p) => p.set(new),
            Weight::Computed { name, .. } => return Err(Error::invalid(format!("{name}: a computed weight cannot be set"))),
        }
        Ok(())
    }

    /// The parameter of a trained weight.
    pub fn parameter(&self) -> Option<&Parameter> {
        if let Weight::Trained(p) = self { Some(p) } else { None }
    }

    /// The parameter of a trained weight, to be changed.
    pub fn parameter_mut(&mut self) -> Option<&mut Parameter> {
        if let Weight::Trained(p) = self { Some(p) } else { None }
    }
}
