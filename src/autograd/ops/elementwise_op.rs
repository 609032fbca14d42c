//! [`Op`] for every elementwise function, and the loops behind it: split over threads, and compiled for the widest vectors. Each element is
//! widened to the accumulator's type, and each result is rounded once.

use super::elementwise::Elementwise;
use crate::autograd::{Op, Saved};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::simd::{self, Kernel, vectorised};
use crate::tensor::{Pooled, Scalar, Tensor, alloc, on_device, rows};
use crate::{Error, Result, dispatch};

impl<E: Elementwise> Op for E {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let &[x] = inputs else { return Err(Error::invalid(format!("{}: takes one input", E::NAME))) };
        let y = on_device!(
            x,
            |device| launch_kernel::<E>(device, 0, &[x]),
            dispatch!(E::NAME, x.dtype(), T => each::<T, E, false>(self, x, alloc(x.shape().len())))
        )?;
        let (name, kept) = if E::KEEPS_Y { ("y", &y) } else { ("x", x) };
        saved.keep_if(needs[0], name, kept);
        Ok(y)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let kept = saved.take(if E::KEEPS_Y { "y" } else { "x" })?;
        let dx = on_device!(
            kept,
            |device| launch_kernel::<E>(device, 1, &[&kept, &dy]),
            dispatch!(E::NAME, dy.dtype(), T => each::<T, E, true>(self, &kept, dy.into_host()?))
        )?;
        Ok(vec![Some(dx)])
    }
}

/// Launches the GPU kernel for forward (0) or backward (1).
#[cfg(feature = "cuda")]
fn launch_kernel<E: Elementwise>(device: &std::sync::Arc<Device>, direction: usize, inputs: &[&Tensor]) -> Result<Tensor> {
    let kernels = E::KERNELS.ok_or(Error::OnGpu)?;
    launch::elementwise(device, E::NAME, kernels[direction], inputs)
}

/// y = f(x), where `from` is x; or, if `BACKWARD`, dx = dy · df(kept), where `from` is what was kept, and `to` is dy at first.
fn each<T: Scalar, E: Elementwise, const BACKWARD: bool>(op: &E, from: &Tensor, mut to: Pooled<T>) -> Result<Tensor> {
    let all = from.host::<T>()?;
    rows::for_each(&mut to, 1, |at, to| simd::dispatch(Each::<T, E, BACKWARD> { op, from: &all[at..][..to.len()], to }));
    Tensor::new(to, from.shape())
}

/// [`each`] on the elements of one task.
struct Each<'a, T, E, const BACKWARD: bool> {
    op: &'a E,
    from: &'a [T],
    to: &'a mut [T],
}

impl<T: Scalar, E: Elementwise, const BACKWARD: bool> Kernel for Each<'_, T, E, BACKWARD> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (to, &from) in self.to.iter_mut().zip(self.from) {
            let from = from.widen();
            *to = T::narrow(if BACKWARD { self.op.dx_fast(from, to.widen(), FMA) } else { self.op.f_fast(from, FMA) });
        }
    }
}

/// # Errors
/// If the shapes differ.
pub fn equal_shapes(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    match a.shape() == b.shape() {
        true => Ok(()),
        false => Err(Error::shape(op, "equal shapes", &[a.shape(), b.shape()])),
    }
}

/// a + b. On the host, the sum is computed in a's buffer if nothing else shares it.
pub fn add(op: &'static str, a: Tensor, b: &Tensor) -> Result<Tensor> {
    equal_shapes(op, &a, b)?;
    on_device!(
        a,
        |device| launch::elementwise(device, op, "add", &[&a, b]),
        dispatch!(op, a.dtype(), T => zip_in_place::<T>(a, b, |a, b| a + b))
    )
}

/// f(a, b) of each pair of elements, in a's buffer if nothing else shares it.
pub fn zip_in_place<T: Scalar>(a: Tensor, b: &Tensor, f: impl Fn(T::Acc, T::Acc) -> T::Acc + Copy + Sync) -> Result<Tensor> {
    let (mut y, from) = (a.into_host::<T>()?, b.host::<T>()?);
    rows::for_each(&mut y, 1, |at, y| {
        vectorised(|| y.iter_mut().zip(&from[at..]).for_each(|(y, &b)| *y = T::narrow(f(y.widen(), b.widen()))));
    });
    Tensor::new(y, b.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::ops::{Gelu, Relu, Tanh};
    use crate::tensor::DType;

    /// y and dx by the op, against f and df. `bound` is relative to the largest numbers, which are about 6.
    fn assert_plain<E: Elementwise>(op: E, dtype: DType, bound: f64) {
        let rounded = |values: Vec<f64>| Tensor::from_f64(values, dtype, [1201]).unwrap();
        let x = rounded((-600..=600).map(|i| f64::from(i) / 100.0).collect());
        let dy = rounded((0..1201).map(|i| (f64::from(i) * 0.7).sin()).collect());
        let mut saved = Saved::default();
        let y = op.forward(&[&x], &[true], &mut saved).unwrap();
        let [Some(dx)] = &op.backward(saved, dy.clone(), &[true]).unwrap()[..] else { panic!("no dx") };
        let [x, dy, y, dx] = [&x, &dy, &y, dx].map(|t| t.to_f64().unwrap());
        for i in 0..x.len() {
            let kept = if E::KEEPS_Y { op.f(x[i]) } else { x[i] };
            let (plain_y, plain_dx) = (op.f(x[i]), dy[i] * op.df(kept));
            assert!((y[i] - plain_y).abs() <= bound, "{} {dtype}: f({}) = {plain_y}, got {}", E::NAME, x[i], y[i]);
            assert!((dx[i] - plain_dx).abs() <= bound, "{} {dtype}: dx at {} is {plain_dx}, got {}", E::NAME, x[i], dx[i]);
        }
    }

    #[test]
    fn every_fast_form_is_the_plain_one() {
        for (dtype, bound) in [(DType::F64, 1e-14), (DType::F32, 4e-6), (DType::BF16, 3e-2)] {
            assert_plain(Gelu, dtype, bound);
            assert_plain(Relu, dtype, bound);
            assert_plain(Tanh, dtype, bound);
        }
    }
}
