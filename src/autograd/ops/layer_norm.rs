//! Layer normalisation. Ba, Kiros & Hinton 2016, <https://arxiv.org/abs/1607.06450>, section 3. The loops over rows are in `layer_norm_fast.rs`.

use super::dropout::drop_rows;
use super::layer_norm_fast as fast;
use crate::autograd::gradcheck::{Case, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var, accumulate};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Mask, NormRows, Sequences, Tensor, on_device, philox::Stream};
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
        let rows = NormRows::Sublayer { x, residual: None, drop: None };
        forward("layer_norm", &rows, [gamma, beta], self.eps, [needs[0], needs[1]], saved)
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let ([dx, _], [dgamma, dbeta]) = backward("layer_norm", saved, dy, None, None, ([needs[0], false], [needs[1], needs[2]]))?;
        Ok(vec![dx, dgamma, dbeta])
    }
}

/// y = LN(s) ⊙ γ + β for rows s; saves x̂, rstd and γ where backward reads them. Three ops end in a layer norm and share this, with their own names.
pub(super) fn forward(
    op: &'static str,
    rows: &NormRows,
    [gamma, beta]: [&Tensor; 2],
    eps: f64,
    [s_trains, gamma_trains]: [bool; 2],
    saved: &mut Saved,
) -> Result<Tensor> {
    // Whether backward reads x̂ `[n, d]`, and whether it reads rstd `[n]`.
    let keep = [s_trains || gamma_trains, s_trains];
    let dtype = match rows {
        NormRows::Sublayer { x, .. } => x.dtype(),
        NormRows::Embeddings { dtype, .. } => *dtype,
    };
    let (y, x_hat, rstd) = on_device!(
        gamma,
        |device| launch::layer_norm(device, rows, [gamma, beta], eps, keep),
        dispatch!(op, dtype, T => fast::forward::<T>(op, rows, [gamma, beta], eps, keep))
    )?;
    // On a GPU, the kernel has dropped already.
    let y = match rows {
        NormRows::Embeddings { mask: Some(mask), sequences, .. } => on_device!(y, |_device| Ok(y), drop_rows(mask, sequences, &y))?,
        _ => y,
    };
    x_hat.iter().for_each(|x_hat| saved.keep("x_hat", x_hat));
    if let Some(rstd) = &rstd {
        saved.keep("rstd", rstd);
        saved.keep("gamma", gamma);
    }
    Ok(y)
}

/// Gradients, where they are needed: ds and f ⊙ ds, f the factors of a dropout (1 without one), and dγ and dβ.
pub(super) type Gradients = ([Option<Tensor>; 2], [Option<Tensor>; 2]);

/// Dropout under a mask of the rows of packed sequences.
pub(super) type Drop<'a> = Option<(&'a Mask, &'a Sequences)>;

/// The gradients for the same three ops. With `more`, the cotangent of y is dy + `more`: two ops read y.
pub(super) fn backward(
    op: &'static str,
    mut saved: Saved,
    mut dy: Tensor,
    more: Option<Tensor>,
    drop: Drop,
    needs: ([bool; 2], [bool; 2]),
) -> Result<Gradients> {
    let (needs_s, needs_weights) = needs;
    let needs_any_s = needs_s.contains(&true);
    // Only a GPU's kernel for ds adds the two on the way.
    let more = match more {
        Some(more) if dy.on_host() || !needs_any_s || needs_weights.contains(&true) => {
            dy = accumulate(Some(dy), more)?;
            None
        }
        other => other,
    };
    let x_hat = saved.take_if(needs_any_s || needs_weights[0], "x_hat")?;
    let rstd_gamma = if needs_any_s { Some([saved.take("rstd")?, saved.take("gamma")?]) } else { None };
    let _ = &more; // Without the feature "cuda", nothing reads it.
    let ([ds, dropped], weights) = on_device!(
        dy,
        |device| {
            let weights = launch::layer_norm_weights(device, &dy, x_hat.as_ref(), needs_weights)?;
            let (Some([rstd, gamma]), Some(h)) = (&rstd_gamma, &x_hat) else { return Ok(([None, None], weights)) };
            let x = launch::NormCotangent { dy: &dy, more: more.as_ref(), h, rstd, gamma };
            let needs = [needs_s[0] || drop.is_none(), needs_s[1] && drop.is_some()];
            (launch::layer_norm_backward(device, &x, drop, needs)?, weights)
        },
        {
            let [ds, dgamma, dbeta] =
                dispatch!(op, dy.dtype(), T => fast::backward::<T>(dy, x_hat.as_ref(), rstd_gamma.as_ref(), needs_weights))?;
            let dropped = match (&ds, drop) {
                (Some(ds), Some((mask, sequences))) if needs_s[1] => Some(drop_rows(mask, sequences, ds)?),
                _ => None,
            };
            ([ds, dropped], [dgamma, dbeta])
        }
    );
    // Without a dropout, f ⊙ ds is ds itself.
    let dropped = if drop.is_some() { dropped } else { ds.clone() };
    Ok(([ds.filter(|_| needs_s[0]), dropped.filter(|_| needs_s[1])], weights))
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
