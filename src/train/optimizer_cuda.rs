//! AdamW's update on a GPU: `optimizer.rs` has the formula, `cuda/kernels/adamw.cu` the kernels.

use super::AdamW;
use crate::Result;
use crate::autograd::{Grads, Parameter};
use crate::cuda::Device;
use crate::cuda::launch::{Update, adamw};
use crate::tensor::{DType, Tensor};
use std::collections::hash_map::Entry;
use std::sync::Arc;

impl AdamW {
    /// [`AdamW::update`] of all parameters in three launches. The host does not wait for them. Nothing is changed if the device has no memory left.
    pub(super) fn update_on(
        &mut self,
        device: &Arc<Device>,
        parameters: &mut [&mut Parameter],
        mut grads: Grads,
        lr: f64,
        clip: f64,
    ) -> Result<Tensor> {
        let step = self.step + 1;
        let clip_factor = match &self.clip {
            Some(factor) => factor.clone(),
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
            // The kernel writes in place. Someone else may hold this value, for example as that of the best epoch.
            p.value_mut().own_on(device)?;
            updates.push(Update { state: [p.value().clone(), m.clone(), v.clone()], grad, shrink, rate });
        }
        let norm = adamw(device, &updates, &clip_factor, clip, self.constants(step))?;
        (self.step, self.clip) = (step, Some(clip_factor));
        Ok(norm)
    }
}
