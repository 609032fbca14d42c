//! `Op` for every elementwise function.

use super::elementwise::{Elementwise, Keeps};
use super::elementwise_fast as fast;
use crate::autograd::{Op, Saved};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::{Tensor, on_device};
use crate::{Error, Result, dispatch};

impl<E: Elementwise> Op for E {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let [x] = inputs else { return Err(Error::invalid(format!("{}: takes one input", E::NAME))) };
        let y = on_device!(x, |device| kernel::<E>(device, 0, &[x]), dispatch!(E::NAME, x.dtype(), T => fast::forward::<T, E>(self, x)))?;
        match E::KEEPS {
            Keeps::X => saved.keep_if(needs[0], "x", x),
            Keeps::Y => saved.keep_if(needs[0], "y", &y),
        }
        Ok(y)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let kept = match E::KEEPS {
            Keeps::X => saved.take("x")?,
            Keeps::Y => saved.take("y")?,
        };
        let dx = on_device!(
            kept,
            |device| kernel::<E>(device, 1, &[&kept, &dy]),
            dispatch!(E::NAME, dy.dtype(), T => fast::backward::<T, E>(self, &kept, dy))
        )?;
        Ok(vec![Some(dx)])
    }
}

/// Launches the GPU kernel for forward (0) or backward (1).
#[cfg(feature = "cuda")]
fn kernel<E: Elementwise>(device: &std::sync::Arc<Device>, direction: usize, inputs: &[&Tensor]) -> Result<Tensor> {
    let kernels = E::KERNELS.ok_or(Error::OnGpu)?;
    launch::elementwise(device, E::NAME, kernels[direction], inputs)
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
            let kept = if let Keeps::X = E::KEEPS { x[i] } else { op.f(x[i]) };
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
