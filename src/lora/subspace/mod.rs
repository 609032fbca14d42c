//! Training in a random subspace (intrinsic dimension): θ = θ₀ + P z, and only z and the head train.
//!
//! Li et al. 2018, <https://arxiv.org/abs/1804.08838>, equation 2; on language models Aghajanyan et al. 2020,
//! <https://arxiv.org/abs/2012.13255>, equation 1, without their scale per layer. All weights of the layers share one z `[d]`. Each has its own
//! random P, which is drawn from the seed and not stored in files.

mod op;
mod projection;
#[cfg(feature = "cuda")]
mod projection_cuda;

pub use op::Subspace;
pub(super) use op::suite;
pub use projection::Projection;

use super::pattern::layer;
use crate::Result;
use crate::autograd::{Tape, Var};
use crate::nn::{DistilBert, Weight, WeightFn, WeightMut};
use crate::tensor::{Shape, Tensor};
use std::sync::Arc;

/// Name of z in an adapter's file.
const VECTOR: &str = "intrinsic_vector";

/// The op as a weight of the model, with θ₀ as its origin.
impl WeightFn for Subspace {
    fn forward(&self, tape: &mut Tape, z: &Var) -> Result<Var> {
        tape.apply(self.clone(), &[z])
    }

    fn shape(&self) -> &Shape {
        self.origin.shape()
    }

    fn constants_mut(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.origin]
    }
}

/// Makes every weight of the layers a function of one vector z of `dimension` numbers. z starts at 0, which gives the base.
pub(super) fn project(model: &mut DistilBert, dimension: usize, seed: u64) -> Result<()> {
    for part in model.parts_mut() {
        if let WeightMut::Base(weight) = part
            && layer(weight.name()).is_some()
        {
            let (name, origin) = (weight.name().to_string(), weight.value()?);
            let projection = Arc::new(Projection::new(origin.shape().len(), dimension, seed, &name)?);
            *weight = Weight::Computed { name, function: Box::new(Subspace { origin, projection }) };
        }
    }
    model.shared = Some(Weight::trained(VECTOR, Tensor::zeros(model.dtype.accum(), [dimension])));
    Ok(())
}
