//! Choosing rows of a packed batch, and putting rows before each sequence.

use super::dropout::{check_rows, random_packing};
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::Device;
use crate::tensor::{Packing, Real, Tensor, take, zeroed};
use crate::{Error, Result, dispatch};
use std::rc::Rc;
use std::sync::Arc;

/// `y[b] = x[first row of sequence b]`: the `[CLS]` rows. x `[T, d]`, y `[B, d]`. dx is dy in those rows, 0 elsewhere.
pub struct SelectRows {
    /// How the rows lie.
    pub packing: Arc<Packing>,
}

impl Op for SelectRows {
    fn name(&self) -> &'static str {
        "select_rows"
    }

    fn forward(&self, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        let (x, d, batch) = (inputs[0], inputs[0].shape().cols(), self.packing.sequences());
        check_rows("select_rows", x, &self.packing)?;
        dispatch!("select_rows", x.dtype(), T => {
            let from = x.host::<T>()?;
            let mut y = take::<T>(batch * d);
            for (y, &first) in y.chunks_exact_mut(d).zip(self.packing.offsets()) {
                y.copy_from_slice(&from[first * d..][..d]);
            }
            Tensor::new(y, [batch, d])
        })
    }

    fn backward(&self, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let d = dy.shape().cols();
        dispatch!("select_rows", dy.dtype(), T => {
            let mut dx = zeroed::<T>(self.packing.tokens() * d);
            for (dy, &first) in dy.host::<T>()?.chunks_exact(d).zip(self.packing.offsets()) {
                dx[first * d..][..d].copy_from_slice(dy);
            }
            Ok(vec![Some(Tensor::new(dx, [self.packing.tokens(), d])?)])
        })
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        check_rows("select_rows", inputs[0], &self.packing)?;
        super::cuda::select_rows(device, inputs[0], &self.packing)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(super::cuda::select_rows_backward(device, &dy, &self.packing)?)])
    }
}

/// The rows of `extra` before those of each sequence; x `[T, d]`, extra `[P, d]`, y `[T + B·P, d]`. dextra sums over the sequences.
pub struct PrependRows {
    /// How the rows of x lie.
    pub packing: Arc<Packing>,
}

impl PrependRows {
    /// x and the extra rows, if they fit.
    fn check<'a>(&self, inputs: &[&'a Tensor]) -> Result<[&'a Tensor; 2]> {
        let &[x, extra] = inputs else { return Err(Error::invalid("prepend_rows: takes x and the extra rows")) };
        if extra.shape().cols() != x.shape().cols() || x.shape().rows() != self.packing.tokens() {
            return Err(Error::shape("prepend_rows", "x [T, d] and extra [P, d]", &[x.shape(), extra.shape()]));
        }
        Ok([x, extra])
    }
}

impl Op for PrependRows {
    fn name(&self) -> &'static str {
        "prepend_rows"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let [x, extra] = self.check(inputs)?;
        let (d, p) = (x.shape().cols(), extra.shape().rows());
        // For its shape alone.
        saved.keep_if(needs.contains(&true), "extra", extra);
        dispatch!("prepend_rows", x.dtype(), T => {
            let extra = T::narrow_all(extra.to_sums()?);
            let (from, extra) = (x.host::<T>()?, &*extra);
            let rows = self.packing.tokens() + p * self.packing.sequences();
            let mut y = take::<T>(rows * d);
            let mut rest = &mut y[..];
            for b in 0..self.packing.sequences() {
                for part in [extra, &from[self.packing.offsets()[b] * d..self.packing.offsets()[b + 1] * d]] {
                    let (head, tail) = rest.split_at_mut(part.len());
                    head.copy_from_slice(part);
                    rest = tail;
                }
            }
            Tensor::new(y, [rows, d])
        })
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let extra = saved.take("extra")?;
        let (d, p) = (dy.shape().cols(), extra.shape().rows());
        dispatch!("prepend_rows", dy.dtype(), T => {
            let from = dy.host::<T>()?;
            let mut dx = take::<T>(self.packing.tokens() * d);
            let mut dextra = zeroed::<<T as Real>::Sum>(p * d);
            for b in 0..self.packing.sequences() {
                let start = (self.packing.offsets()[b] + b * p) * d;
                let own = self.packing.range(b);
                dextra.iter_mut().zip(&from[start..]).for_each(|(s, &dy)| *s += dy.widen());
                dx[own.start * d..own.end * d].copy_from_slice(&from[start + p * d..][..own.len() * d]);
            }
            let dx = needs[0].then(|| Tensor::new(dx, [self.packing.tokens(), d])).transpose()?;
            let dextra = needs[1].then(|| Tensor::new(dextra, extra.shape())).transpose()?;
            Ok(vec![dx, dextra])
        })
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let [x, extra] = self.check(inputs)?;
        saved.keep_if(needs.contains(&true), "extra", extra);
        super::cuda::prepend_rows(device, x, extra, &self.packing)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let rows = saved.take("extra")?.shape().rows();
        let [dx, dextra] = super::cuda::prepend_rows_backward(device, &dy, rows, &self.packing)?;
        Ok(vec![needs[0].then_some(dx), needs[1].then_some(dextra)])
    }
}

impl Tape<'_> {
    /// The first row of each sequence; see [`SelectRows`].
    ///
    /// # Errors
    /// If x does not have one row per token.
    pub fn select_rows(&mut self, x: &Var, packing: &Arc<Packing>) -> Result<Var> {
        self.apply(SelectRows { packing: packing.clone() }, &[x])
    }

    /// Rows before each sequence; see [`PrependRows`].
    ///
    /// # Errors
    /// If the widths differ.
    pub fn prepend_rows(&mut self, x: &Var, extra: &Var, packing: &Arc<Packing>) -> Result<Var> {
        self.apply(PrependRows { packing: packing.clone() }, &[x, extra])
    }
}

pub(super) fn suites() -> Vec<Suite> {
    vec![
        Suite {
            op: "SelectRows",
            tolerance: 1e-8,
            case: |random| {
                let (packing, d) = (random_packing(random, 4)?, random_size(random, 5));
                let x = random_tensor(random, &[packing.tokens(), d])?;
                Ok(Case { op: Rc::new(SelectRows { packing }), inputs: vec![x] })
            },
        },
        Suite {
            op: "PrependRows",
            tolerance: 1e-8,
            case: |random| {
                let (packing, d, p) = (random_packing(random, 4)?, random_size(random, 5), random_size(random, 3));
                let inputs = vec![random_tensor(random, &[packing.tokens(), d])?, random_tensor(random, &[p, d])?];
                Ok(Case { op: Rc::new(PrependRows { packing }), inputs })
            },
        },
    ]
}
