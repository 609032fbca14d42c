//! AdamW. Loshchilov & Hutter 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2, in the order of PyTorch's implementation. The update
//! on a GPU is in `optimizer_cuda.rs`.

use super::Recipe;
use crate::autograd::{Grads, ParamId, Parameter};
use crate::nn::in_layer_norm;
use crate::tensor::{Accum, Tensor};
use crate::{Result, dispatch_float};
use std::collections::HashMap;

/// AdamW with clipping. Step t of parameter θ with gradient g; ‖g‖ is the norm of all gradients together. Here and in reports t counts
/// from 1; the loop and the schedule count from 0:
///
/// ```text
/// g ← g · min(1, clip / (‖g‖ + 1e-6))
/// θ ← θ · (1 − lr · decay)
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// θ ← θ − lr · m̂ / (√v̂ + eps)        m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)
/// ```
pub struct AdamW {
    /// β₁ and β₂.
    pub betas: (f64, f64),
    /// Added to √v̂.
    pub eps: f64,
    /// The factor of the learning rate for a parameter, by its name.
    pub lr_factor: LrFactor,
    /// Decay of every parameter, or of those that `no_bias_decay` leaves.
    pub weight_decay: f64,
    /// Biases and layer norms do not decay: those whose name ends with `bias` or has `layer_norm` or `LayerNorm` in it, as in Hugging Face
    /// transformers.
    pub no_bias_decay: bool,
    /// t of the last step.
    pub(super) step: i32,
    /// m and v, each of the parameter's shape. A parameter without an entry has zeros.
    pub(super) state: HashMap<ParamId, (Tensor, Tensor)>,
    /// On a GPU: the factor that clips, `[1]` f32, or NaN once a norm was not finite.
    #[cfg(feature = "cuda")]
    pub(super) clip: Option<Tensor>,
}

/// A factor of the learning rate by the name of a parameter.
pub type LrFactor = Box<dyn Fn(&str) -> f64 + Send + Sync>;

impl AdamW {
    /// β = (0.9, 0.999), eps = 1e-8, one learning rate for all parameters: PyTorch's defaults but for the decay.
    pub fn new(weight_decay: f64) -> AdamW {
        AdamW {
            betas: (0.9, 0.999),
            eps: 1e-8,
            lr_factor: Box::new(|_| 1.0),
            weight_decay,
            no_bias_decay: false,
            step: 0,
            state: HashMap::new(),
            #[cfg(feature = "cuda")]
            clip: None,
        }
    }

    /// [`AdamW::new`] with the decay of `recipe`.
    pub fn of(recipe: &Recipe) -> AdamW {
        AdamW { no_bias_decay: recipe.no_bias_decay, ..AdamW::new(recipe.weight_decay) }
    }

    /// One step at learning rate `lr`, with the gradients clipped to a global norm of `clip`. Returns the norm before clipping, `[1]` f64.
    ///
    /// If the norm is not finite, nothing is changed and the step does not count. On a GPU the host does not wait for the norm, so there
    /// the step counts, but neither it nor a later step changes anything. When the host reads the norm for the report, it resets the count.
    ///
    /// # Errors
    /// If a gradient's type is not its parameter's.
    pub fn update(&mut self, parameters: &mut [&mut Parameter], mut grads: Grads, lr: f64, clip: f64) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(device) = parameters.iter().find_map(|p| p.value().device().cloned()) {
            return self.update_on(&device, parameters, grads, lr, clip);
        }
        let norm = grads.norm()?;
        let returned = Tensor::new(vec![norm], [1])?;
        if !norm.is_finite() {
            return Ok(returned);
        }
        self.step += 1;
        let clip_factor = (clip / (norm + 1e-6)).min(1.0);
        for p in parameters.iter_mut() {
            let Some(g) = grads.take(p) else { continue };
            let (id, shape) = (p.id(), g.shape().clone());
            let zeros = || Tensor::zeros(p.value().dtype(), p.value().shape());
            let (m, v) = self.state.remove(&id).unwrap_or_else(|| (zeros(), zeros()));
            let rates = self.rates(p, lr, self.step);
            let constants = self.constants(self.step);
            let value = p.take();
            dispatch_float!("adamw", value.dtype(), T => {
                let (mut value, mut m, mut v) = (value.into_host::<T>()?, m.into_host::<T>()?, v.into_host::<T>()?);
                update_elements::<T>(&mut value, &mut m, &mut v, g.host::<T>()?, clip_factor, rates, constants);
                p.set(Tensor::new(value, &shape)?);
                self.state.insert(id, (Tensor::new(m, &shape)?, Tensor::new(v, &shape)?));
                Ok(())
            })?;
        }
        Ok(returned)
    }

    /// Two factors of step t: `shrink` = 1 − lr · decay and `rate` = lr / (1 − β₁ᵗ), so that rate · m = lr · m̂. lr includes the
    /// parameter's factor.
    pub(super) fn rates(&self, p: &Parameter, lr: f64, step: i32) -> (f64, f64) {
        let lr = lr * (self.lr_factor)(p.name());
        let stays = self.no_bias_decay && (p.name().ends_with("bias") || in_layer_norm(p.name()));
        (1.0 - lr * if stays { 0.0 } else { self.weight_decay }, lr / (1.0 - self.betas.0.powi(step)))
    }

    /// Constants of the step: β₁, β₂, 1 − β₁, 1 − β₂, `root` = 1 / √(1 − β₂ᵗ), so that root · √v = √v̂, and eps.
    pub(super) fn constants(&self, step: i32) -> [f64; 6] {
        let (b1, b2) = self.betas;
        [b1, b2, 1.0 - b1, 1.0 - b2, (1.0 - b2.powi(step)).sqrt().recip(), self.eps]
    }

    /// Number of steps taken.
    pub fn steps(&self) -> usize {
        self.step as usize
    }

    /// m and v of a parameter, if it was ever updated.
    pub fn moments(&self, p: &Parameter) -> Option<(&Tensor, &Tensor)> {
        self.state.get(&p.id()).map(|(m, v)| (m, v))
    }

    /// Sets the step count and the moments, to resume a run.
    pub fn restore(&mut self, steps: usize, moments: impl IntoIterator<Item = (ParamId, (Tensor, Tensor))>) {
        self.state = moments.into_iter().collect();
        self.reset_steps(steps);
    }

    /// Resets the step count after updates that changed nothing, because a norm was not finite.
    pub(super) fn reset_steps(&mut self, steps: usize) {
        self.step = steps as i32;
        #[cfg(feature = "cuda")]
        {
            self.clip = None;
        }
    }
}

/// The update of one tensor: the formula of [`AdamW`], with m̂ and v̂ as [`AdamW::rates`] and [`AdamW::constants`] have them.
fn update_elements<T: Accum>(
    value: &mut [T],
    m: &mut [T],
    v: &mut [T],
    g: &[T],
    clip_factor: f64,
    (shrink, rate): (f64, f64),
    constants: [f64; 6],
) {
    let [clip_factor, shrink, rate] = [clip_factor, shrink, rate].map(T::of);
    let [b1, b2, c1, c2, root, eps] = constants.map(T::of);
    for (((value, m), v), &g) in value.iter_mut().zip(m).zip(v).zip(g) {
        let g = g * clip_factor;
        *m = b1 * *m + c1 * g;
        *v = b2 * *v + c2 * g * g;
        *value = *value * shrink - rate * *m / (v.sqrt() * root + eps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps on one number beside the formula in the doc of [`AdamW`], with decay and clipping.
    #[test]
    fn two_steps_are_those_of_the_formula() {
        let (mut adamw, lr, clip) = (AdamW::new(0.1), 0.5, 1.0);
        let mut p = Parameter::new("w", Tensor::new(vec![2.0_f64], [1]).unwrap());
        let (mut w, mut m, mut v) = (2.0_f64, 0.0, 0.0);
        for (t, g) in [(1, 4.0_f64), (2, -0.25)] {
            let mut grads = Grads::default();
            grads.insert(p.id(), Tensor::new(vec![g], [1]).unwrap()).unwrap();
            let norm = adamw.update(&mut [&mut p], grads, lr, clip).unwrap();
            assert_eq!(norm.item().unwrap(), g.abs());
            let g = g * (clip / g.abs()).min(1.0);
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9_f64.powi(t)), v / (1.0 - 0.999_f64.powi(t)));
            w = w - lr * 0.1 * w - lr * m_hat / (v_hat.sqrt() + 1e-8);
            assert!((p.value().item().unwrap() - w).abs() < 1e-5, "step {t}");
        }
    }
}
