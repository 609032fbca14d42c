//! Gradients by parameter, and the sum of two gradients of one value.

use super::ops::elementwise_op::add;
use super::{ParamId, Parameter};
use crate::tensor::{Accum, Tensor};
use crate::{Result, dispatch_float};
use std::collections::BTreeMap;

/// Gradients keyed by parameter. Tied weights share an entry, and those of several micro-batches are added.
#[derive(Default, Debug)]
pub struct Grads(BTreeMap<ParamId, Tensor>);

impl Grads {
    /// The gradient of `p`, of the same shape; `None` if nothing reached it.
    pub fn get(&self, p: &Parameter) -> Option<&Tensor> {
        self.0.get(&p.id())
    }

    /// Takes the gradient of `p` out.
    pub fn take(&mut self, p: &Parameter) -> Option<Tensor> {
        self.take_id(p.id())
    }

    pub(super) fn take_id(&mut self, id: ParamId) -> Option<Tensor> {
        self.0.remove(&id)
    }

    /// How many parameters have a gradient.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the gradients of another pass.
    ///
    /// # Errors
    /// If two gradients of one parameter differ in shape.
    pub fn add(&mut self, other: Grads) -> Result<()> {
        other.0.into_iter().try_for_each(|(id, g)| self.insert(id, g))
    }

    /// Adds a gradient of one parameter.
    pub(crate) fn insert(&mut self, id: ParamId, g: Tensor) -> Result<()> {
        let total = accumulate(self.0.remove(&id), g)?;
        self.0.insert(id, total);
        Ok(())
    }

    /// The L2 norm √(Σ g²) over all gradients together, summed in f64.
    ///
    /// # Errors
    /// If a gradient is not f32 or f64.
    pub fn norm(&self) -> Result<f64> {
        let squares: Result<Vec<f64>> = self.0.values().map(sum_of_squares).collect();
        Ok(squares?.iter().sum::<f64>().sqrt())
    }
}

fn sum_of_squares(g: &Tensor) -> Result<f64> {
    let g = g.to_host()?;
    dispatch_float!("norm", g.dtype(), T => Ok(g.host::<T>()?.iter().map(|x| x.f64() * x.f64()).sum()))
}

/// total + g, in the total's buffer if nothing else shares it; g if there is no total yet. `add` is the sum of two tensors, which the op of
/// step 6 uses, too.
pub(crate) fn accumulate(total: Option<Tensor>, g: Tensor) -> Result<Tensor> {
    match total {
        Some(total) => add("sum of gradients", total, &g),
        None => Ok(g),
    }
}

/// The cotangent of a value, while contributions to it arrive.
#[derive(Default)]
pub(super) struct Cotangent {
    /// The sum of the contributions so far.
    pub sum: Option<Tensor>,
    /// On a GPU: a contribution that is not in the sum, because the op of the value adds it itself ([`super::Op::backward_of_two`]).
    pub unadded: Option<Tensor>,
    /// Whether the op does so.
    pub op_adds: bool,
}

impl Cotangent {
    /// Adds a contribution.
    pub fn add(&mut self, g: Tensor) -> Result<()> {
        if self.op_adds && !g.on_host() && self.sum.is_some() && self.unadded.is_none() {
            self.unadded = Some(g);
        } else {
            self.sum = Some(accumulate(self.sum.take(), g)?);
        }
        Ok(())
    }
}
