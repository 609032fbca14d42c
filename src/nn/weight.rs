//! A weight of a layer: frozen, trained or computed.

use crate::autograd::{Parameter, Tape, Var};
use crate::tensor::{Shape, Tensor};
use crate::{Error, Result};

/// A named weight. What trains is visible in the type.
pub enum Weight {
    /// Read-only, perhaps still in the memory map.
    Frozen {
        /// Key in the checkpoint.
        name: String,
        /// The value.
        value: Tensor,
    },
    /// Trained in full.
    Trained(Parameter),
    /// A function of a parameter elsewhere, such as W₀ plus the image of a random subspace.
    Computed {
        /// Key in the checkpoint.
        name: String,
        /// The function.
        function: Box<dyn WeightFn>,
    },
}

/// A weight as a differentiable function of the parameter that all computed weights of a model share ([`Tape::shared`]).
pub trait WeightFn {
    /// The weight.
    ///
    /// # Errors
    /// Those of the ops it applies.
    fn forward<'m>(&'m self, tape: &mut Tape<'m>) -> Result<Var>;
    /// Its shape.
    fn shape(&self) -> &Shape;
    /// The constants that it is computed from, to be moved to where the parameter is.
    fn constants_mut(&mut self) -> Vec<&mut Tensor>;
}

impl Weight {
    /// A frozen weight.
    pub fn frozen(name: impl Into<String>, value: Tensor) -> Weight {
        Weight::Frozen { name: name.into(), value }
    }

    /// Key in the checkpoint.
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

    /// Its value, where it has one of its own.
    ///
    /// # Errors
    /// If it is computed.
    pub fn value(&self) -> Result<Tensor> {
        match self {
            Weight::Frozen { value, .. } => Ok(value.clone()),
            Weight::Trained(p) => Ok(p.value().clone()),
            Weight::Computed { name, .. } => Err(Error::invalid(format!("{name}: a computed weight has no value of its own"))),
        }
    }

    /// Whether its value can change in training.
    pub fn trains(&self) -> bool {
        !matches!(self, Weight::Frozen { .. })
    }

    /// The weight on the tape: a leaf only if it trains.
    ///
    /// # Errors
    /// If a computed weight cannot be computed.
    pub fn var<'m>(&'m self, tape: &mut Tape<'m>) -> Result<Var> {
        match self {
            Weight::Frozen { value, .. } => Ok(tape.constant(value)),
            Weight::Trained(p) => Ok(tape.parameter(p)),
            Weight::Computed { function, .. } => function.forward(tape),
        }
    }

    /// A weight that trains, of a shape and a start of its own.
    pub fn trained(name: impl Into<String>, value: Tensor) -> Weight {
        Weight::Trained(Parameter::new(name, value))
    }

    /// Makes a frozen weight a trained one.
    ///
    /// # Errors
    /// Never for a float.
    pub fn train(&mut self) -> Result<()> {
        if let Weight::Frozen { name, value } = self {
            // What trains is kept in the type of sums.
            let value = value.to_dtype(value.dtype().accum())?;
            *self = Weight::Trained(Parameter::new(std::mem::take(name), value));
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

    /// Its parameters.
    pub fn parameters(&self) -> Vec<&Parameter> {
        match self {
            Weight::Frozen { .. } => Vec::new(),
            Weight::Trained(p) => vec![p],
            Weight::Computed { .. } => Vec::new(),
        }
    }

    /// Its parameters, to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        match self {
            Weight::Frozen { .. } => Vec::new(),
            Weight::Trained(p) => vec![p],
            Weight::Computed { .. } => Vec::new(),
        }
    }
}

/// What a walk over a model comes by.
pub enum WeightRef<'a> {
    /// A weight of the checkpoint.
    Base(&'a Weight),
    /// A weight beside the checkpoint: a low-rank factor, a prompt.
    Extra(&'a Weight),
}

impl<'a> WeightRef<'a> {
    /// The weight.
    pub fn weight(&self) -> &'a Weight {
        match self {
            WeightRef::Base(w) | WeightRef::Extra(w) => w,
        }
    }
}

/// [`WeightRef`], to be changed.
pub enum WeightMut<'a> {
    /// A weight of the checkpoint.
    Base(&'a mut Weight),
    /// A weight beside the checkpoint.
    Extra(&'a mut Weight),
}

impl<'a> WeightMut<'a> {
    /// The weight.
    pub fn weight(self) -> &'a mut Weight {
        match self {
            WeightMut::Base(w) | WeightMut::Extra(w) => w,
        }
    }
}
