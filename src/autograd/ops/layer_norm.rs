//! Layer normalisation. Ba, Kiros & Hinton 2016, <https://arxiv.org/abs/1607.06450>, section 3. The loops over rows are in
//! `layer_norm_fast.rs`. Three ops have a layer norm in them; `layer_norm_shared.rs` has the forward and backward that they share, with
//! what they save.

use super::layer_norm_shared as shared;
use crate::autograd::{Op, Saved, Tape, Var};
use crate::tensor::{NormRows, Tensor};
use crate::{Error, Result};

/// y = x̂ ⊙ γ + β with the normalised x, x̂ = (x − mean(x)) rstd, and rstd = 1/√(var(x) + eps), over the last dimension; x `[.., d]`, γ and
/// β `[d]`.
///
/// With dx̂ = dy ⊙ γ: dx = rstd (dx̂ − mean(dx̂) − x̂ mean(dx̂ ⊙ x̂)). Over all rows, dγ = Σ dy ⊙ x̂ and dβ = Σ dy.
///
/// Forward saves x̂ `[n, d]` if a gradient must reach x or γ; also rstd `[n]` and γ if one must reach x.
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
}

/// The plain form of one row, for the tests: y, dx, and the row's part of dγ.
#[cfg(test)]
fn plain(x: &[f64], gamma: &[f64], beta: &[f64], eps: f64, dy: &[f64]) -> [Vec<f64>; 3] {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f64>>();
    let centred: Vec<f64> = x.iter().map(|xi| xi - mean(x)).collect();
    let rstd = 1.0 / (mean(&product(&centred, &centred)) + eps).sqrt();
    let x_hat: Vec<f64> = centred.iter().map(|c| c * rstd).collect();
    let y = product(&x_hat, gamma).iter().zip(beta).map(|(p, b)| p + b).collect();
    let dx_hat = product(dy, gamma);
    let (mean_dx_hat, mean_dx_hat_x_hat) = (mean(&dx_hat), mean(&product(&dx_hat, &x_hat)));
    let dx = dx_hat.iter().zip(&x_hat).map(|(dx_hat, x_hat)| rstd * (dx_hat - mean_dx_hat - x_hat * mean_dx_hat_x_hat)).collect();
    [y, dx, product(dy, &x_hat)]
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let &[x, gamma, beta] = inputs else { return Err(Error::invalid("layer_norm: takes x, gamma and beta")) };
        // The rows that are normalised: x, without a residual and dropout before it.
        let rows = NormRows::Sublayer { x, residual: None, drop: None };
        shared::forward("layer_norm", &rows, [gamma, beta], self.eps, [needs[0], needs[1]], saved)
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let ([dx, _], [dgamma, dbeta]) = shared::backward("layer_norm", saved, dy, None, None, ([needs[0], false], [needs[1], needs[2]]))?;
        Ok(vec![dx, dgamma, dbeta])
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::gradcheck::{random_size, random_tensor};
    use crate::tensor::DType;
    use crate::tensor::philox::Stream;
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
                    let dy = &dy[row.clone()];
                    let [plain_y, plain_dx, plain_dgamma] = plain(&x[row.clone()], &gamma, &beta, eps, dy);
                    prop_assert!(close(&y[row.clone()], &plain_y), "{} {:?}", dtype, plain_y);
                    prop_assert!(close(&grads[0][row], &plain_dx), "{}: dx", dtype);
                    (0..d).for_each(|j| dgamma[j] += plain_dgamma[j]);
                    (0..d).for_each(|j| dbeta[j] += dy[j]);
                }
                prop_assert!(close(&grads[1], &dgamma) && close(&grads[2], &dbeta), "{}: dgamma or dbeta", dtype);
            }
        }
    }
}
