//! AdamW. Loshchilov & Hutter 2017, <https://arxiv.org/abs/1711.05101>, algorithm 2, in the order of PyTorch's implementation.

use crate::autograd::{Grads, ParamId, Parameter};
#[cfg(feature = "cuda")]
use crate::cuda::Device;
#[cfg(feature = "cuda")]
use crate::cuda::launch::{Update, adamw};
#[cfg(feature = "cuda")]
use crate::tensor::DType;
use crate::tensor::{Accum, Tensor};
use crate::{Error, Result, dispatch_float};
#[cfg(feature = "cuda")]
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
#[cfg(feature = "cuda")]
use std::sync::Arc;

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
    /// On a GPU: the factor that clips, or NaN once a norm was not finite.
    #[cfg(feature = "cuda")]
    clip: Option<Tensor>,
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
        AdamW {
            betas: (0.9, 0.999),
            eps: 1e-8,
            group,
            weight_decay,
            step: 0,
            state: HashMap::new(),
            #[cfg(feature = "cuda")]
            clip: None,
        }
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
        self.forget_norm();
    }

    /// Takes back steps that changed nothing, since a norm was not finite; the next may change something again.
    pub(super) fn rewind(&mut self, steps: usize) {
        self.step = steps as i32;
        self.forget_norm();
    }

    fn forget_norm(&mut self) {
        #[cfg(feature = "cuda")]
        {
            self.clip = None;
        }
    }

    /// One step at learning rate `lr` with the gradients clipped to a global norm of `most`. Returns that norm before clipping, `[1]` f64 where the
    /// parameters are: on a GPU nothing has waited for it. If it is not finite nothing is changed and the step does not count; on a GPU it counts, and
    /// no later step changes anything either, since the host may read the norm late.
    ///
    /// # Errors
    /// If a gradient's type is not its parameter's.
    pub fn update(&mut self, parameters: &mut [&mut Parameter], mut grads: Grads, lr: f64, most: f64) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(device) = parameters.iter().find_map(|p| p.value().device().cloned()) {
            return self.update_on(&device, parameters, grads, lr, most);
        }
        let norm = grads.norm()?;
        let returned = Tensor::new(vec![norm], [1])?;
        if !norm.is_finite() {
            return Ok(returned);
        }
        self.step += 1;
        for p in parameters.iter_mut() {
            let Some(g) = grads.take(p) else { continue };
            let (shrink, rate) = self.rates(p, lr, self.step);
            let (m, v) = self.state.remove(&p.id()).unwrap_or_else(|| {
                let zeros = || Tensor::zeros(p.value().dtype(), p.value().shape());
                (zeros(), zeros())
            });
            let constants = self.constants(self.step);
            let shape = g.shape().clone();
            let id = p.id();
            let value = p.take();
            dispatch_float!("adamw", value.dtype(), T => {
                let (mut value, mut m, mut v) = (value.into_host::<T>()?, m.into_host::<T>()?, v.into_host::<T>()?);
                update_host::<T>(&mut value, &mut m, &mut v, g.host::<T>()?, [clip_factor(norm, most), shrink, rate], constants);
                p.set(Tensor::new(value, &shape)?);
                self.state.insert(id, (Tensor::new(m, &shape)?, Tensor::new(v, &shape)?));
                Ok(())
            })?;
        }
        Ok(returned)
    }

    /// All parameters in three launches, of which the host waits for none. Nothing is changed if the device has no more memory.
    #[cfg(feature = "cuda")]
    fn update_on(
        &mut self,
        device: &Arc<Device>,
        parameters: &mut [&mut Parameter],
        mut grads: Grads,
        lr: f64,
        most: f64,
    ) -> Result<Tensor> {
        let step = self.step + 1;
        let clip = match &self.clip {
            Some(clip) => clip.clone(),
            None => Tensor::zeros_on(device, DType::F32, [1])?,
        };
        let mut updates = Vec::new();
        for p in parameters.iter_mut() {
            let Some(grad) = grads.take(p) else { continue };
            let (shrink, rate) = self.rates(p, lr, step);
            let (m, v) = match self.state.entry(p.id()) {
                Entry::Occupied(moments) => moments.into_mut(),
                Entry::Vacant(place) => {
                    let zeros = || Tensor::zeros_on(device, p.value().dtype(), p.value().dims());
                    place.insert((zeros()?, zeros()?))
                }
            };
            m.own_on(device)?;
            v.own_on(device)?;
            // A value that someone kept, as the best so far, stays what it was.
            p.value_mut().own_on(device)?;
            updates.push(Update { state: [p.value().clone(), m.clone(), v.clone()], grad, shrink, rate });
        }
        let norm = adamw(device, &updates, &clip, most, self.constants(step))?;
        (self.step, self.clip) = (step, Some(clip));
        Ok(norm)
    }

    /// The factor of θ, and lr / (1 − β₁ᵗ), of a parameter's group.
    fn rates(&self, p: &Parameter, lr: f64, step: i32) -> (f64, f64) {
        let group = (self.group)(p.name());
        let (lr, decay) = (lr * group.lr, if group.decay { self.weight_decay } else { 0.0 });
        (1.0 - lr * decay, lr / (1.0 - self.betas.0.powi(step)))
    }

    /// What the formula of this step holds for all parameters: β₁, β₂, 1 − β₁, 1 − β₂, 1 / √(1 − β₂ᵗ) and eps.
    fn constants(&self, step: i32) -> [f64; 6] {
        let (b1, b2) = self.betas;
        [b1, b2, 1.0 - b1, 1.0 - b2, (1.0 - b2.powi(step)).sqrt().recip(), self.eps]
    }
}

fn update_host<T: Accum>(value: &mut [T], m: &mut [T], v: &mut [T], g: &[T], own: [f64; 3], constants: [f64; 6]) {
    let [scale, shrink, rate] = own.map(T::of);
    let [b1, b2, c1, c2, root, eps] = constants.map(T::of);
    for (((value, m), v), &g) in value.iter_mut().zip(m).zip(v).zip(g) {
        let g = g * scale;
        *m = b1 * *m + c1 * g;
        *v = b2 * *v + c2 * g * g;
        *value = *value * shrink - rate * *m / (v.sqrt() * root + eps);
    }
}

/// Factor that brings gradients of global norm `norm` to at most `most`: most / (norm + 1e-6), at most 1, as PyTorch's `clip_grad_norm_`.
fn clip_factor(norm: f64, most: f64) -> f64 {
    (most / (norm + 1e-6)).min(1.0)
}
