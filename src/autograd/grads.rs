//! Gradients by parameter.

use super::{ParamId, Parameter};
use crate::tensor::{Accum, Scalar, Tensor, simd};
use crate::{Error, Result, dispatch, dispatch_float};
use std::collections::BTreeMap;

/// Gradients keyed by parameter: tied weights and accumulation over micro-batches just work.
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

    /// How many parameters have one.
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

    pub(super) fn insert(&mut self, id: ParamId, g: Tensor) -> Result<()> {
        let sum = match self.0.remove(&id) {
            Some(old) => sum(old, &g)?,
            None => g,
        };
        self.0.insert(id, sum);
        Ok(())
    }

    /// L2 norm over all gradients together, summed in f64.
    ///
    /// # Errors
    /// If a gradient is not f32 or f64.
    pub fn norm(&self) -> Result<f64> {
        let squares: Result<Vec<f64>> = self.0.values().map(square).collect();
        Ok(squares?.iter().sum::<f64>().sqrt())
    }
}

fn square(g: &Tensor) -> Result<f64> {
    let g = g.to_host()?;
    dispatch_float!("norm", g.dtype(), T => Ok(g.host::<T>()?.iter().map(|x| x.f64() * x.f64()).sum()))
}

/// a + b, in a's buffer if nothing else shares it: the one place where gradients are summed.
pub(super) fn sum(a: Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() {
        return Err(Error::shape("sum of gradients", "equal shapes", &[a.shape(), b.shape()]));
    }
    #[cfg(feature = "cuda")]
    if let Some(device) = a.device() {
        return crate::cuda::launch::add_on(device, &a, b);
    }
    dispatch!("sum of gradients", a.dtype(), T => {
        let shape = a.shape().clone();
        let mut a = a.into_host::<T>()?;
        let b = b.host::<T>()?;
        crate::tensor::rows::for_each(&mut a, 1, |at, a| {
            simd::vectorised(|| a.iter_mut().zip(&b[at..]).for_each(|(a, &b)| *a = T::narrow(a.widen() + b.widen())));
        });
        Tensor::new(a, shape)
    })
}
