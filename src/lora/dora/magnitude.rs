//! The op of DoRA: every output column is scaled by a trained magnitude over a fixed norm.

use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::{Accum, DType, Scalar, Tensor, alloc, on_device, rows, zeroed};
use crate::{Error, Result, dispatch};
use std::rc::Rc;
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// y = x ∘ m / n + b. Liu et al. 2024 (DoRA), <https://arxiv.org/abs/2402.09353>, equation 5, where x is the product with a weight whose rows
/// have the norms n.
///
/// x `[T, d]`, m `[d]`, n `[d]`, b `[d]`, y `[T, d]`; m, n and b apply to every row.
/// dx = dy ∘ m / n, dm = Σ dy ∘ x / n, db = Σ dy, sums over the T rows. n is a constant: it gets no gradient.
///
/// Inputs: x, m, and b if there is one.
pub struct Magnitude {
    /// n, positive.
    pub norms: Tensor,
}

impl Magnitude {
    fn check(&self, inputs: &[&Tensor]) -> Result<()> {
        if inputs.len() < 2 {
            return Err(Error::invalid("magnitude: takes x, m, and b if there is one"));
        }
        let d = inputs[0].shape().cols();
        if inputs.len() > 3 || inputs[1..].iter().any(|v| v.dims() != [d]) || self.norms.dims() != [d] {
            let shapes: Vec<_> = inputs.iter().map(|x| x.shape()).chain([self.norms.shape()]).collect();
            return Err(Error::shape("magnitude", "x [T, d], m [d], b [d] and norms [d]", &shapes));
        }
        Ok(())
    }

    /// v / n in place.
    fn divide<T: Scalar>(&self, v: &mut [T::Acc]) -> Result<()> {
        v.iter_mut().zip(self.norms.to_f64()?).for_each(|(v, n)| *v = *v / T::Acc::of(n));
        Ok(())
    }

    /// x ∘ m / n + b. Without b, this gives dx of dy, too.
    fn scaled(&self, x: &Tensor, m: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        on_device!(
            x,
            |device| launch::magnitude(device, x, m, &self.norms_on(device)?, bias),
            dispatch!("magnitude", x.dtype(), T => self.scaled_host::<T>(x, m, bias))
        )
    }

    fn scaled_host<T: Scalar>(&self, x: &Tensor, m: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (d, from, mut factors) = (x.shape().cols(), x.host::<T>()?, m.to_accum::<T::Acc>()?);
        self.divide::<T>(&mut factors)?;
        let bias = match bias {
            Some(b) => b.to_accum::<T::Acc>()?,
            None => zeroed(d),
        };
        let mut y = alloc::<T>(from.len());
        rows::for_each(&mut y, d, |first, y| {
            for (y, x) in y.chunks_exact_mut(d).zip(from[first * d..].chunks_exact(d)) {
                let terms = x.iter().zip(&*factors).zip(&*bias);
                y.iter_mut().zip(terms).for_each(|(y, ((x, &f), &b))| *y = T::narrow(x.widen() * f + b));
            }
        });
        Tensor::new(y, x.shape())
    }

    /// dm = Σ dy ∘ x / n over the rows.
    fn dm_host<T: Scalar>(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let d = dy.shape().cols();
        let mut dm = zeroed::<T::Acc>(d);
        for (dy, x) in dy.host::<T>()?.chunks_exact(d).zip(x.host::<T>()?.chunks_exact(d)) {
            dm.iter_mut().zip(dy.iter().zip(x)).for_each(|(s, (dy, x))| *s += dy.widen() * x.widen());
        }
        self.divide::<T>(&mut dm)?;
        Tensor::new(dm, [d])
    }

    #[cfg(feature = "cuda")]
    fn norms_on(&self, device: &Arc<Device>) -> Result<Tensor> {
        self.norms.to_dtype(DType::F32)?.to_device(device)
    }
}

/// db = Σ dy over the rows.
fn db_host<T: Scalar>(dy: &Tensor) -> Result<Tensor> {
    let d = dy.shape().cols();
    let mut db = zeroed::<T::Acc>(d);
    dy.host::<T>()?.chunks_exact(d).for_each(|dy| db.iter_mut().zip(dy).for_each(|(s, dy)| *s += dy.widen()));
    Tensor::new(db, [d])
}

impl Op for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        self.check(inputs)?;
        let (x, m) = (inputs[0], inputs[1]);
        saved.keep_if(needs[1], "x", x);
        saved.keep_if(needs[0], "m", m);
        self.scaled(x, m, inputs.get(2).copied())
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let mut grads: Vec<Option<Tensor>> = needs.iter().map(|_| None).collect();
        if needs[0] {
            grads[0] = Some(self.scaled(&dy, &saved.take("m")?, None)?);
        }
        if needs[1] {
            let x = saved.take("x")?;
            grads[1] = Some(on_device!(
                dy,
                |device| launch::column_sums(device, &dy, Some(&x), Some(&self.norms_on(device)?)),
                dispatch!("magnitude", dy.dtype(), T => self.dm_host::<T>(&x, &dy))
            )?);
        }
        if needs.get(2) == Some(&true) {
            grads[2] = Some(on_device!(
                dy,
                |device| launch::column_sums(device, &dy, None, None),
                dispatch!("magnitude", dy.dtype(), T => db_host::<T>(&dy))
            )?);
        }
        Ok(grads)
    }
}

pub(in crate::lora) fn suite() -> Suite {
    Suite {
        op: "Magnitude",
        tolerance: 1e-8,
        case: |random| {
            let (rows, d) = (random_size(random, 5), random_size(random, 6));
            let positive = random_tensor(random, &[d])?.to_f64()?.iter().map(|x| 0.5 + x.abs()).collect();
            let norms = Tensor::from_f64(positive, DType::F64, [d])?;
            let mut inputs = vec![random_tensor(random, &[rows, d])?, random_tensor(random, &[d])?];
            if random.below(2) == 0 {
                inputs.push(random_tensor(random, &[d])?);
            }
            Ok(Case { op: Rc::new(Magnitude { norms }), inputs })
        },
    }
}
