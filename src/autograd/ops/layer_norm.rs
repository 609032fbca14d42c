//! Layer normalisation. Ba, Kiros & Hinton 2016, <https://arxiv.org/abs/1607.06450>, section 3. The loops over rows are in `layer_norm_fast.rs`.

use super::layer_norm_fast as fast;
use crate::autograd::gradcheck::{Case, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Scalar, Tensor, on_device, philox::Stream};
use crate::{Error, Result, dispatch};

/// y = x̂ ⊙ γ + β with the normalised x, x̂ = (x − mean(x)) rstd, and rstd = 1/√(var(x) + eps), over the last dimension; x `[.., d]`, γ and β `[d]`.
///
/// With dx̂ = dy ⊙ γ: dx = rstd (dx̂ − mean(dx̂) − x̂ mean(dx̂ ⊙ x̂)). Over all rows, dγ = Σ dy ⊙ x̂ and dβ = Σ dy.
///
/// Forward saves x̂ `[n, d]` if x or γ trains; also rstd `[n]` and γ if x trains.
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
}

/// The plain form of one row, for the tests: y, x̂ and rstd.
#[cfg(test)]
fn plain_forward(x: &[f64], gamma: &[f64], beta: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>, f64) {
    let d = x.len() as f64;
    let mean = x.iter().sum::<f64>() / d;
    let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / d;
    let rstd = 1.0 / (var + eps).sqrt();
    let x_hat: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
    let y = (0..x.len()).map(|j| x_hat[j] * gamma[j] + beta[j]).collect();
    (y, x_hat, rstd)
}

/// The plain form of dx of one row.
#[cfg(test)]
fn plain_backward(dy: &[f64], gamma: &[f64], x_hat: &[f64], rstd: f64) -> Vec<f64> {
    let d = dy.len() as f64;
    let dx_hat: Vec<f64> = dy.iter().zip(gamma).map(|(dy, gamma)| dy * gamma).collect();
    let mean_dx_hat = dx_hat.iter().sum::<f64>() / d;
    let mean_dx_hat_x_hat = dx_hat.iter().zip(x_hat).map(|(dx_hat, x_hat)| dx_hat * x_hat).sum::<f64>() / d;
    dx_hat.iter().zip(x_hat).map(|(dx_hat, x_hat)| rstd * (dx_hat - mean_dx_hat - x_hat * mean_dx_hat_x_hat)).collect()
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let &[x, gamma, beta] = inputs else { return Err(Error::invalid("layer_norm: takes x, gamma and beta")) };
        let trains = [needs[0], needs[1]];
        let normalised = on_device!(
            x,
            |device| {
                // The kernel can also add a residual to x before it normalises; `ResidualLayerNorm` has one.
                let rows = launch::NormRows::Sublayer { x, residual: None, drop: None };
                launch::layer_norm(device, &rows, [gamma, beta], self.eps, reads(trains))
            },
            dispatch!("layer_norm", x.dtype(), T => {
                let (from, d) = (x.host::<T>()?, x.shape().cols());
                fast::forward::<T>("layer_norm", x.shape(), [gamma, beta], self.eps, reads(trains), |first, rows| {
                    rows.iter_mut().zip(&from[first * d..]).for_each(|(row, x)| *row = x.widen());
                })
            })
        )?;
        Ok(save(normalised, gamma, saved))
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(backward("layer_norm", saved, dy, [needs[0], needs[1], needs[2]])?.into())
    }
}

/// Whether backward reads x̂, and whether it reads rstd, given whether x and γ train.
pub(super) fn reads([x_trains, gamma_trains]: [bool; 2]) -> [bool; 2] {
    [x_trains || gamma_trains, x_trains]
}

/// From y, x̂ and rstd (a [`fast::Normalised`]), saves x̂, rstd and γ for backward where they are given; returns y.
pub(super) fn save((y, x_hat, rstd): fast::Normalised, gamma: &Tensor, saved: &mut Saved) -> Tensor {
    x_hat.iter().for_each(|x_hat| saved.keep("x_hat", x_hat));
    if let Some(rstd) = &rstd {
        saved.keep("rstd", rstd);
        saved.keep("gamma", gamma);
    }
    y
}

/// dx, dγ and dβ, where they are needed. Three ops that end in a layer norm share this, with their own names.
pub(super) fn backward(op: &'static str, mut saved: Saved, dy: Tensor, needs: [bool; 3]) -> Result<[Option<Tensor>; 3]> {
    let x_hat = saved.take_if(needs[0] || needs[1], "x_hat")?;
    let rstd_gamma = if needs[0] { Some([saved.take("rstd")?, saved.take("gamma")?]) } else { None };
    on_device!(
        dy,
        |device| launch::layer_norm_backward(device, &dy, x_hat.as_ref(), rstd_gamma.as_ref(), [needs[1], needs[2]]),
        dispatch!(op, dy.dtype(), T => fast::backward::<T>(dy, x_hat.as_ref(), rstd_gamma.as_ref(), [needs[1], needs[2]]))
    )
}

impl Tape<'_> {
    /// Layer normalisation; see [`LayerNorm`].
    ///
    /// # Errors
    /// If γ and β are not as wide as x.
    pub fn layer_norm(&mut self, x: &Var, gamma: &Var, beta: &Var, eps: f64) -> Result<Var> {
        self.apply(LayerNorm { eps }, &[x, gamma, beta])
    }
}

/// Random sizes and inputs.
pub(super) fn random_case(random: &mut Stream) -> Result<Case> {
    // Two columns or more, and a visible eps: with one column, or two equal ones, y does not depend on x.
    let (n, d) = (random_size(random, 5), 2 + random.below(9));
    let inputs = vec![random_tensor(random, &[n, d])?, random_tensor(random, &[d])?, random_tensor(random, &[d])?];
    Ok(Case::new(LayerNorm { eps: 0.1 }, inputs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use proptest::prelude::*;

    proptest! {
        /// In each type; rows of up to 70 elements fill vectors and leave a rest.
        #[test]
        fn the_fast_form_is_the_plain_one(seed: u64) {
            for (dtype, bound) in [(DType::F64, 1e-12), (DType::F32, 3e-5), (DType::BF16, 6e-2)] {
                let mut random = Stream::new(seed, "plain");
                let (n, d, eps) = (random_size(&mut random, 5), 2 + random.below(69), 0.1);
                let mut draw = |dims: &[usize]| random_tensor(&mut random, dims).unwrap().to_dtype(dtype).unwrap();
                let (x, gamma, beta, dy) = (draw(&[n, d]), draw(&[d]), draw(&[d]), draw(&[n, d]));
                let mut saved = Saved::default();
                let y = LayerNorm { eps }.forward(&[&x, &gamma, &beta], &[true; 3], &mut saved).unwrap();
                let grads = LayerNorm { eps }.backward(saved, dy.clone(), &[true; 3]).unwrap();
                let [x, gamma, beta, dy, y] = [x, gamma, beta, dy, y].map(|t| t.to_f64().unwrap());
                let grads: Vec<Vec<f64>> = grads.into_iter().map(|g| g.unwrap().to_f64().unwrap()).collect();
                let (mut dgamma, mut dbeta) = (vec![0.0; d], vec![0.0; d]);
                let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= bound * (1.0 + b.abs()));
                for row in (0..n).map(|row| row * d..(row + 1) * d) {
                    let (dy, (plain_y, x_hat, rstd)) = (&dy[row.clone()], plain_forward(&x[row.clone()], &gamma, &beta, eps));
                    prop_assert!(close(&y[row.clone()], &plain_y), "{} {:?}", dtype, plain_y);
                    prop_assert!(close(&grads[0][row], &plain_backward(dy, &gamma, &x_hat, rstd)), "{}: dx", dtype);
                    (0..d).for_each(|j| dgamma[j] += dy[j] * x_hat[j]);
                    (0..d).for_each(|j| dbeta[j] += dy[j]);
                }
                prop_assert!(close(&grads[1], &dgamma) && close(&grads[2], &dbeta), "{}: dgamma or dbeta", dtype);
            }
        }
    }
}
