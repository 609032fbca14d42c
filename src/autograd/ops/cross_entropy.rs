//! Cross-entropy of logits against class labels: the loss of classification.

use crate::autograd::gradcheck::{Case, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Accum, Tensor, alloc, on_device, philox::Stream};
use crate::{Error, Result, dispatch_float};

/// `L = −(1/N) Σ ln softmax(z)[label]`; logits z `[B, C]`, labels u32 `[B]`, L one element. dz = (softmax(z) − onehot(label)) dy / N, where dy is the
/// gradient that comes into L.
///
/// Computed through ln softmax(z) = z − ln Σ exp(z), with the largest z taken out of the sum, so that exp does not overflow.
pub struct CrossEntropy {
    /// N: the batch size B for a mean; for one micro-batch of several, the size of the whole batch.
    pub divisor: usize,
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let &[logits, labels] = inputs else { return Err(Error::invalid("cross_entropy: takes logits and labels")) };
        let (label, classes) = (check(logits, labels)?, logits.shape().cols());
        saved.keep_if(needs[0], "logits", logits);
        saved.keep_if(needs[0], "labels", labels);
        on_device!(
            logits,
            |device| launch::cross_entropy(device, logits, labels, self.divisor, None),
            dispatch_float!("cross_entropy", logits.dtype(), T => {
                let rows = logits.host::<T>()?.chunks_exact(classes.max(1));
                let sum: T = rows.zip(label).map(|(z, &l)| log_sum_exp(z) - z[l as usize]).sum();
                Tensor::new(vec![sum / T::of(self.divisor as f64)], [1])
            })
        )
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (logits, labels) = (saved.take("logits")?, saved.take("labels")?);
        let dz = on_device!(
            logits,
            |device| launch::cross_entropy(device, &logits, &labels, self.divisor, Some(&dy)),
            dispatch_float!("cross_entropy", logits.dtype(), T => {
                let (classes, scale) = (logits.shape().cols(), dy.host::<T>()?[0] / T::of(self.divisor as f64));
                let mut dz = alloc::<T>(logits.shape().len());
                let rows = logits.host::<T>()?.chunks_exact(classes).zip(labels.host::<u32>()?);
                for (dz, (z, &label)) in dz.chunks_exact_mut(classes).zip(rows) {
                    let lse = log_sum_exp(z);
                    for j in 0..classes {
                        let onehot = if j == label as usize { T::ONE } else { T::ZERO };
                        // T is a concrete type here, so this is std's exp. `log_sum_exp` uses that of `Accum`; for f32 they differ in rounding.
                        dz[j] = ((z[j] - lse).exp() - onehot) * scale;
                    }
                }
                Tensor::new(dz, logits.shape())
            })
        )?;
        Ok(vec![Some(dz), None])
    }
}

/// The labels, if there is one below C for each row of the logits `[B, C]`.
fn check<'a>(logits: &Tensor, labels: &'a Tensor) -> Result<&'a [u32]> {
    let &[batch, classes] = logits.dims() else {
        return Err(Error::shape("cross_entropy", "logits [B, C]", &[logits.shape()]));
    };
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
    /// Cross-entropy summed over the rows and divided by `divisor`; see [`CrossEntropy`].
    ///
    /// # Errors
    /// If a label is not below the number of classes.
    pub fn cross_entropy(&mut self, logits: &Var, labels: &[u32], divisor: usize) -> Result<Var> {
        let labels = self.constant(&Tensor::new(labels.to_vec(), [labels.len()])?);
        self.apply(CrossEntropy { divisor }, &[logits, &labels])
    }
}

/// Random sizes and inputs.
pub(super) fn random_case(random: &mut Stream) -> Result<Case> {
    let (b, c) = (random_size(random, 5), 2 + random.below(4));
    let labels: Vec<u32> = (0..b).map(|_| random.below(c) as u32).collect();
    let inputs = vec![random_tensor(random, &[b, c])?, Tensor::new(labels, [b])?];
    Ok(Case::new(CrossEntropy { divisor: b }, inputs))
}
