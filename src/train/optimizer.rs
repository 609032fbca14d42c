//! AdamW. Loshchilov & Hutter 2017, <https://arxiv.org/abs/1711.05101>, algorithm 2, in the order of PyTorch's implementation.

#[cfg(feature = "cuda")]
use crate::autograd::ops;
use crate::autograd::{Grads, ParamId, Parameter};
use crate::tensor::{Float, Tensor};
use crate::{Error, Result, dispatch_float};
use std::collections::{BTreeSet, HashMap};

/// θ ← θ (1 − lr·wd); m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; θ ← θ − lr · m̂ / (√v̂ + eps), m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ).
pub struct AdamW {
    /// β₁ and β₂.
    pub betas: (f64, f64),
    /// Added to √v̂.
    pub eps: f64,
    /// The settings of a parameter, by its name.
    pub group: Groups,
    /// Decay of the groups that decay.
    pub weight_decay: f64,
    step: i32,
    state: HashMap<ParamId, (Tensor, Tensor)>,
}

/// Settings of a group of parameters.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Factor of the learning rate.
    pub lr: f64,
    /// Whether weight decay applies.
    pub decay: bool,
}

/// Settings by the name of a parameter.
pub type Groups = Box<dyn Fn(&str) -> Group + Send + Sync>;

/// LoRA+: the learning rate of B is `ratio` times that of A. Hayou et al. 2024, <https://arxiv.org/abs/2402.12354>, section 4. As in PEFT, that
/// of vectors, such as the head's biases, is too.
///
/// # Errors
/// If the ratio is not a positive number.
pub fn lora_plus(parameters: &[&Parameter], ratio: f64) -> Result<Groups> {
    if !(ratio > 0.0 && ratio.is_finite()) {
        return Err(Error::invalid(format!("lora+: the ratio is {ratio}, and must be positive")));
    }
    let faster = parameters.iter().filter(|p| p.name().contains(".lora_B.") || p.value().dims().len() == 1);
    let faster: BTreeSet<String> = faster.map(|p| p.name().to_string()).collect();
    Ok(Box::new(move |name| Group { lr: if faster.contains(name) { ratio } else { 1.0 }, decay: true }))
}

impl AdamW {
    /// β = (0.9, 0.999), eps = 1e-8, one group of all parameters, decay on all: PyTorch's defaults but for the decay.
    pub fn new(weight_decay: f64) -> AdamW {
        let group = Box::new(|_: &str| Group { lr: 1.0, decay: true });
        AdamW { betas: (0.9, 0.999), eps: 1e-8, group, weight_decay, step: 0, state: HashMap::new() }
    }

    /// Steps taken so far.
    pub fn steps(&self) -> usize {
        self.step as usize
    }

    /// m and v of a parameter, if it was ever updated.
    pub fn moments(&self, p: &Parameter) -> Option<(&Tensor, &Tensor)> {
        self.state.get(&p.id()).map(|(m, v)| (m, v))
    }

    /// Goes on from `steps` steps with the moments given.
    pub fn restore(&mut self, steps: usize, moments: impl IntoIterator<Item = (ParamId, (Tensor, Tensor))>) {
        self.step = steps as i32;
        self.state = moments.into_iter().collect();
    }

    /// One step at learning rate `lr`; each gradient is multiplied by `scale` first (clipping).
    ///
    /// # Errors
    /// If a gradient's type is not its parameter's.
    pub fn update(&mut self, parameters: &mut [&mut Parameter], mut grads: Grads, lr: f64, scale: f64) -> Result<()> {
        self.step += 1;
        for p in parameters.iter_mut() {
            let Some(g) = grads.take(p) else { continue };
            let group = (self.group)(p.name());
            let decay = if group.decay { self.weight_decay } else { 0.0 };
            let (m, v) = self.state.remove(&p.id()).unwrap_or_else(|| {
                let zeros = || Tensor::zeros(p.value().dtype(), p.value().shape());
                (zeros(), zeros())
            });
            let constants = self.constants(lr * group.lr, decay, scale);
            #[cfg(feature = "cuda")]
            if let Some(device) = p.value().device().cloned() {
                let (m, v) = (m.to_device(&device)?, v.to_device(&device)?);
                ops::adamw(&device, [p.value(), &m, &v, &g], constants)?;
                self.state.insert(p.id(), (m, v));
                continue;
            }
            let shape = g.shape().clone();
            let id = p.id();
            let value = p.take();
            dispatch_float!("adamw", value.dtype(), T => {
                let (mut value, mut m, mut v) = (value.into_host::<T>()?, m.into_host::<T>()?, v.into_host::<T>()?);
                update_host::<T>(&mut value, &mut m, &mut v, g.host::<T>()?, constants);
                p.set(Tensor::new(value, &shape)?);
                self.state.insert(id, (Tensor::new(m, &shape)?, Tensor::new(v, &shape)?));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What the formula of this step holds beside θ, m, v and g: the factor of g, β₁, β₂, 1 − β₁, 1 − β₂, the factor of θ, lr / (1 − β₁ᵗ),
    /// 1 / √(1 − β₂ᵗ) and eps.
    fn constants(&self, lr: f64, decay: f64, scale: f64) -> [f64; 9] {
        let (b1, b2) = self.betas;
        let (rate, root) = (lr / (1.0 - b1.powi(self.step)), (1.0 - b2.powi(self.step)).sqrt().recip());
        [scale, b1, b2, 1.0 - b1, 1.0 - b2, 1.0 - lr * decay, rate, root, self.eps]
    }
}

fn update_host<T: Float>(value: &mut [T], m: &mut [T], v: &mut [T], g: &[T], constants: [f64; 9]) {
    let [scale, b1, b2, c1, c2, shrink, rate, root, eps] = constants.map(T::of);
    for (((value, m), v), &g) in value.iter_mut().zip(m).zip(v).zip(g) {
        let g = g * scale;
        *m = b1 * *m + c1 * g;
        *v = b2 * *v + c2 * g * g;
        *value = *value * shrink - rate * *m / (v.sqrt() * root + eps);
    }
}

/// Factor that brings gradients of global norm `norm` to at most `most`: most / (norm + 1e-6), at most 1, as PyTorch's `clip_grad_norm_`.
pub fn clip_factor(norm: f64, most: f64) -> f64 {
    (most / (norm + 1e-6)).min(1.0)
}
