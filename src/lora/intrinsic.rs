//! Training in a random subspace: θ = θ₀ + P z, z the only thing that trains beside the head. Li et al. 2018,
//! <https://arxiv.org/abs/1804.08838>; on language models Aghajanyan et al. 2020, <https://arxiv.org/abs/2012.13255>, equation 1, without their
//! scale per layer. All weights of the layers share one z; each has a P of its own, drawn from the seed, never stored.

use crate::autograd::ops::Projection;
use crate::autograd::{Tape, Var};
use crate::nn::{DistilBert, Weight, WeightFn, WeightMut};
use crate::tensor::{Shape, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// Key of z.
const VECTOR: &str = "intrinsic_vector";

/// θ₀ + P z of one weight.
struct Image {
    origin: Tensor,
    projection: Arc<Projection>,
}

impl WeightFn for Image {
    fn forward<'m>(&'m self, tape: &mut Tape<'m>) -> Result<Var> {
        let z = tape.shared().ok_or_else(|| Error::invalid("a subspace's vector is not on the tape"))?;
        tape.subspace(&z, &self.origin, &self.projection)
    }

    fn shape(&self) -> &Shape {
        self.origin.shape()
    }

    fn constants_mut(&mut self) -> Vec<&mut Tensor> {
        vec![&mut self.origin]
    }
}

/// Makes every weight of the layers a function of one vector of `dimension` numbers, which starts at 0: the base.
pub(super) fn project(model: &mut DistilBert, dimension: usize, seed: u64) -> Result<()> {
    let mut done = Ok(());
    model.visit_mut(&mut |part| {
        let WeightMut::Base(weight) = part else { return };
        if done.is_err() || !weight.name().starts_with("distilbert.transformer.") {
            return;
        }
        done = weight.value().and_then(|origin| {
            let projection = Projection::new(origin.shape().len(), dimension, seed, weight.name())?;
            let function = Box::new(Image { origin, projection: Arc::new(projection) });
            *weight = Weight::Computed { name: weight.name().to_string(), function };
            Ok(())
        });
    });
    done?;
    model.shared = Some(Weight::trained(VECTOR, Tensor::zeros(model.dtype.accum(), [dimension])));
    Ok(())
}
