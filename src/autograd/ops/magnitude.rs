//! The learned length of a weight's rows, apart from their direction.

use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::{Accum, Pooled, Scalar, Tensor, alloc, rows, zeroed};
use crate::{Error, Result, dispatch};
use std::rc::Rc;
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// y = x ∘ m / n + b. Liu et al. 2024 (DoRA), <https://arxiv.org/abs/2402.09353>, equation 5, where x is the product with a weight of row norms n.
///
/// x `[T, d]`, m `[d]`, n `[d]`, b `[d]`, y `[T, d]`. dx = dy ∘ m / n, dm = Σ dy ∘ x / n, db = Σ dy. n is held fixed: no gradient reaches it.
///
/// Inputs: x, m, and b if there is one.
pub struct Magnitude {
    /// n, positive.
    pub norms: Tensor,
}

impl Magnitude {
    fn check_and_keep(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<()> {
        if inputs.len() < 2 {
            return Err(Error::invalid("magnitude: takes x, m, and b if there is one"));
        }
        let d = inputs[0].shape().cols();
        if inputs.len() > 3 || inputs[1..].iter().any(|v| v.dims() != [d]) || self.norms.dims() != [d] {
            let shapes: Vec<_> = inputs.iter().map(|x| x.shape()).chain([self.norms.shape()]).collect();
            return Err(Error::shape("magnitude", "x [T, d], m [d], b [d] and norms [d]", &shapes));
        }
        saved.keep_if(needs[1], "x", inputs[0]);
        saved.keep_if(needs[0], "m", inputs[1]);
        Ok(())
    }

    fn forward_host<T: Scalar>(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (x, d) = (inputs[0], inputs[0].shape().cols());
        let (from, factors) = (x.host::<T>()?, self.factors::<T>(inputs[1])?);
        let bias = match inputs.get(2) {
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

    #[cfg(feature = "cuda")]
    fn norms_on(&self, device: &Arc<Device>) -> Result<Tensor> {
        self.norms.to_dtype(crate::tensor::DType::F32)?.to_device(device)
    }

    /// m / n.
    fn factors<T: Scalar>(&self, m: &Tensor) -> Result<Pooled<T::Acc>> {
        let mut factors = m.to_accum::<T::Acc>()?;
        factors.iter_mut().zip(self.norms.to_f64()?).for_each(|(m, n)| *m = *m / T::Acc::of(n));
        Ok(factors)
    }

    fn backward_host<T: Scalar>(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (d, shape) = (dy.shape().cols(), dy.shape().clone());
        let x = saved.take("x").ok();
        // Σ over the rows of dy ∘ x and of dy.
        let mut sums = [zeroed::<T::Acc>(d), zeroed::<T::Acc>(d)];
        let host = dy.host::<T>()?;
        if let Some(x) = &x {
            for (dy, x) in host.chunks_exact(d).zip(x.host::<T>()?.chunks_exact(d)) {
                sums[0].iter_mut().zip(dy.iter().zip(x)).for_each(|(s, (dy, x))| *s += dy.widen() * x.widen());
            }
        }
        if needs.get(2) == Some(&true) {
            host.chunks_exact(d).for_each(|dy| sums[1].iter_mut().zip(dy).for_each(|(s, dy)| *s += dy.widen()));
        }
        let [mut dm, db] = sums;
        dm.iter_mut().zip(self.norms.to_f64()?).for_each(|(g, n)| *g = *g / T::Acc::of(n));
        let mut result = vec![None, needs[1].then(|| Tensor::new(dm, [d])).transpose()?];
        if let Some(&need) = needs.get(2) {
            result.push(need.then(|| Tensor::new(db, [d])).transpose()?);
        }
        if needs[0] {
            let factors = self.factors::<T>(&saved.take("m")?)?;
            let mut dx = dy.into_host::<T>()?;
            rows::for_each(&mut dx, d, |_, dx| {
                for dx in dx.chunks_exact_mut(d) {
                    dx.iter_mut().zip(&*factors).for_each(|(dx, &f)| *dx = T::narrow(dx.widen() * f));
                }
            });
            result[0] = Some(Tensor::new(dx, shape)?);
        }
        Ok(result)
    }
}

impl Op for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        self.check_and_keep(inputs, needs, saved)?;
        dispatch!("magnitude", inputs[0].dtype(), T => self.forward_host::<T>(inputs))
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        dispatch!("magnitude", dy.dtype(), T => self.backward_host::<T>(saved, dy, needs))
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        self.check_and_keep(inputs, needs, saved)?;
        launch::magnitude(device, inputs[0], inputs[1], &self.norms_on(device)?, inputs.get(2).copied())
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let norms = self.norms_on(device)?;
        let x = saved.take("x").ok();
        let dm = match &x {
            Some(x) => Some(launch::column_sums(device, &dy, Some(x), Some(&norms))?),
            None => None,
        };
        let dx = if needs[0] { Some(launch::magnitude(device, &dy, &saved.take("m")?, &norms, None)?) } else { None };
        let mut result = vec![dx, dm];
        if let Some(&need) = needs.get(2) {
            result.push(if need { Some(launch::column_sums(device, &dy, None, None)?) } else { None });
        }
        Ok(result)
    }
}

impl Tape<'_> {
    /// x ∘ m / norms + bias; see [`Magnitude`].
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn magnitude(&mut self, x: &Var, m: &Var, bias: Option<&Var>, norms: Tensor) -> Result<Var> {
        let inputs: Vec<&Var> = [x, m].into_iter().chain(bias).collect();
        self.apply(Magnitude { norms }, &inputs)
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "Magnitude",
        tolerance: 1e-8,
        case: |random| {
            let (rows, d) = (random_size(random, 5), random_size(random, 6));
            let positive = random_tensor(random, &[d])?.to_f64()?.iter().map(|x| 0.5 + x.abs()).collect();
            let norms = Tensor::from_f64(positive, crate::tensor::DType::F64, [d])?;
            let mut inputs = vec![random_tensor(random, &[rows, d])?, random_tensor(random, &[d])?];
            if random.below(2) == 0 {
                inputs.push(random_tensor(random, &[d])?);
            }
            Ok(Case { op: Rc::new(Magnitude { norms }), inputs })
        },
    }
}
