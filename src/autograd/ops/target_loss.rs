//! What the losses of numbers z against targets y have in common: a sum of one term for each element, divided by N.
//!
//! They are computed in f64 on the host. A GPU sends its B·C logits there, and waits.

use crate::autograd::Saved;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// `L = (1/N) Σ term(z, y)` of z and y `[B, C]`, one element.
pub(super) fn forward(
    op: &'static str,
    inputs: &[&Tensor],
    needs: &[bool],
    saved: &mut Saved,
    divisor: f64,
    term: impl Fn(f64, f64) -> f64,
) -> Result<Tensor> {
    let &[z, y] = inputs else { return Err(Error::invalid(format!("{op}: takes numbers and targets"))) };
    if z.shape() != y.shape() || z.dtype() == DType::U32 {
        return Err(Error::shape(op, "numbers and targets [B, C]", &[z.shape(), y.shape()]));
    }
    saved.keep_if(needs[0] || needs[1], "logits", z);
    saved.keep_if(needs[0] || needs[1], "targets", y);
    let sum: f64 = z.to_f64()?.into_iter().zip(y.to_f64()?).map(|(z, y)| term(z, y)).sum();
    Tensor::from_f64(vec![sum / divisor], z.dtype(), [1])?.to_device_of(z)
}

/// dz and dy of [`forward`]: `slopes(z, y)` are the derivatives of a term.
pub(super) fn backward(
    mut saved: Saved,
    dloss: &Tensor,
    needs: &[bool],
    divisor: f64,
    slopes: impl Fn(f64, f64) -> [f64; 2],
) -> Result<Vec<Option<Tensor>>> {
    let (z, y, scale) = (saved.take("logits")?, saved.take("targets")?, dloss.to_f64()?[0] / divisor);
    let pairs: Vec<(f64, f64)> = z.to_f64()?.into_iter().zip(y.to_f64()?).collect();
    let of = |input: usize| -> Result<Tensor> {
        let values = pairs.iter().map(|&(z, y)| slopes(z, y)[input] * scale).collect();
        Tensor::from_f64(values, z.dtype(), z.shape())?.to_device_of(&z)
    };
    [0, 1].into_iter().map(|input| needs[input].then(|| of(input)).transpose()).collect()
}
