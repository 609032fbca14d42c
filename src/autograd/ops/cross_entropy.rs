//! Cross-entropy of logits against class labels: the loss of classification.

use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Accum, Tensor, alloc, on_device};
use crate::{Error, Result, dispatch_float};

/// `L = −(1/N) Σ_b Σ_c t[b, c] ln softmax(z)[b, c]`; logits z `[B, C]`, labels u32 `[B]`, L one element. dz = (softmax(z) Σ_c t − t) dy /
/// N, where dy is the gradient that comes into L.
///
/// t is the target of a row: 1 for its label and 0 for other classes. With class weights w and label smoothing ε, `t[c] = w[c] ((1 − ε) δ +
/// ε / C)`, where δ is 1 for the label and 0 for other classes. These are the terms of PyTorch's `CrossEntropyLoss`, whose mean has N = Σ_b
/// w[label of b]. Label smoothing: Szegedy et al. 2016, <https://arxiv.org/abs/1512.00567>, section 7.
///
/// Computed through ln softmax(z) = z − ln Σ exp(z), with the largest z taken out of the sum, so that exp does not overflow. With weights
/// or smoothing, a GPU sends its B·C logits to the host, and waits: the kernel knows plain labels alone.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// N: for a mean, the number B of rows or the sum of their labels' weights; for one micro-batch of several, that of the whole step.
    pub divisor: f64,
    /// w: `[C]`. Empty: every weight is 1.
    pub weights: Vec<f64>,
    /// ε, in [0, 1).
    pub smoothing: f64,
}

impl CrossEntropy {
    /// Without weights and smoothing.
    pub fn plain(divisor: usize) -> CrossEntropy {
        CrossEntropy { divisor: divisor as f64, weights: Vec::new(), smoothing: 0.0 }
    }

    /// Whether the kernel of a GPU computes it.
    #[cfg(feature = "cuda")]
    fn is_plain(&self) -> bool {
        self.weights.is_empty() && self.smoothing == 0.0
    }

    /// t: `[C]`.
    fn target<T: Accum>(&self, label: u32, classes: usize) -> impl Iterator<Item = T> {
        let even = self.smoothing / classes as f64;
        (0..classes).map(move |c| {
            let share = if c == label as usize { 1.0 - self.smoothing + even } else { even };
            T::of(share * self.weights.get(c).unwrap_or(&1.0))
        })
    }

    /// L of logits on the host.
    fn loss(&self, logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let classes = logits.shape().cols();
        dispatch_float!("cross_entropy", logits.dtype(), T => {
            let row = |(z, &label): (&[T], &u32)| -> T {
                let lse = log_sum_exp(z);
                self.target::<T>(label, classes).zip(z).filter(|(t, _)| *t != T::ZERO).map(|(t, z)| t * (lse - *z)).sum()
            };
            let sum: T = logits.host::<T>()?.chunks_exact(classes.max(1)).zip(labels).map(row).sum();
            Tensor::new(vec![sum / T::of(self.divisor)], [1])
        })
    }

    /// dz of logits on the host.
    fn gradient(&self, logits: &Tensor, labels: &[u32], dy: &Tensor) -> Result<Tensor> {
        dispatch_float!("cross_entropy", logits.dtype(), T => {
            let (classes, scale) = (logits.shape().cols(), dy.host::<T>()?[0] / T::of(self.divisor));
            let mut dz = alloc::<T>(logits.shape().len());
            let rows = logits.host::<T>()?.chunks_exact(classes).zip(labels);
            for (dz, (z, &label)) in dz.chunks_exact_mut(classes).zip(rows) {
                let lse = log_sum_exp(z);
                let mass: T = self.target::<T>(label, classes).sum();
                for (dz, (z, t)) in dz.iter_mut().zip(z.iter().zip(self.target::<T>(label, classes))) {
                    // T is a concrete type here, so this is std's exp. `log_sum_exp` uses that of `Accum`; for f32 they differ in rounding.
                    *dz = ((z - lse).exp() * mass - t) * scale;
                }
            }
            Tensor::new(dz, logits.shape())
        })
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let &[logits, labels] = inputs else { return Err(Error::invalid("cross_entropy: takes logits and labels")) };
        let label = check(logits, labels, &self.weights)?;
        saved.keep_if(needs[0], "logits", logits);
        saved.keep_if(needs[0], "labels", labels);
        on_device!(
            logits,
            |device| match self.is_plain() {
                true => launch::cross_entropy(device, logits, labels, self.divisor, None),
                false => self.loss(&logits.to_host()?, label)?.to_device(device),
            },
            self.loss(logits, label)
        )
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (logits, labels) = (saved.take("logits")?, saved.take("labels")?);
        let dz = on_device!(
            logits,
            |device| match self.is_plain() {
                true => launch::cross_entropy(device, &logits, &labels, self.divisor, Some(&dy)),
                false => self.gradient(&logits.to_host()?, labels.host::<u32>()?, &dy.to_host()?)?.to_device(device),
            },
            self.gradient(&logits, labels.host::<u32>()?, &dy)
        )?;
        Ok(vec![Some(dz), None])
    }
}

/// The labels, if there is one below C for each row of the logits `[B, C]`, and no weight or C of them.
fn check<'a>(logits: &Tensor, labels: &'a Tensor, weights: &[f64]) -> Result<&'a [u32]> {
    let &[batch, classes] = logits.dims() else {
        return Err(Error::shape("cross_entropy", "logits [B, C]", &[logits.shape()]));
    };
    if !weights.is_empty() && weights.len() != classes {
        return Err(Error::invalid(format!("cross_entropy: {} class weights for {classes} classes", weights.len())));
    }
    let label = labels.host::<u32>()?;
    if label.len() != batch {
        return Err(Error::shape("cross_entropy", "one label per row of the logits", &[logits.shape(), labels.shape()]));
    }
    match label.iter().find(|&&l| l as usize >= classes) {
        Some(bad) => Err(Error::invalid(format!("cross_entropy: label {bad} is not below the {classes} classes"))),
        None => Ok(label),
    }
}

/// ln Σ exp(z) = max + ln Σ exp(z − max). A NaN among z makes the result NaN: its exp is part of the sum.
fn log_sum_exp<T: Accum>(z: &[T]) -> T {
    let max = z.iter().copied().fold(z[0], |a, b| if b > a { b } else { a });
    max + z.iter().map(|&z| (z - max).exp(false)).sum::<T>().ln()
}

impl Tape<'_> {
    /// Cross-entropy summed over the rows and divided by `divisor`, without weights and smoothing.
    ///
    /// # Errors
    /// If a label is not below the number of classes.
    pub fn cross_entropy(&mut self, logits: &Var, labels: &[u32], divisor: usize) -> Result<Var> {
        self.cross_entropy_with(CrossEntropy::plain(divisor), logits, labels)
    }

    /// Cross-entropy as [`CrossEntropy`] has it.
    ///
    /// # Errors
    /// If a label is not below the number of classes, or there is not a weight for each class.
    pub fn cross_entropy_with(&mut self, op: CrossEntropy, logits: &Var, labels: &[u32]) -> Result<Var> {
        let labels = self.constant(&Tensor::new(labels.to_vec(), [labels.len()])?);
        self.apply(op, &[logits, &labels])
    }
}
