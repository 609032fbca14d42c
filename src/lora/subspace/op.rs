//! The op of a random subspace.

use super::projection::Projection;
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved};
use crate::tensor::{Tensor, on_device};
use crate::{Error, Result, dispatch_float};
use std::rc::Rc;
use std::sync::Arc;

/// y = y₀ + P z. Li et al. 2018, <https://arxiv.org/abs/1804.08838>, equation 2. y₀ and y of any shape with n elements, z `[d]`, P `[n, d]`.
/// dz = Pᵀ dy. The only input is z; nothing is saved.
#[derive(Clone)]
pub struct Subspace {
    /// y₀.
    pub origin: Tensor,
    /// P.
    pub projection: Arc<Projection>,
}

impl Op for Subspace {
    fn name(&self) -> &'static str {
        "subspace"
    }

    fn forward(&self, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        let (z, [n, d]) = (inputs[0], self.projection.dims);
        if z.dims() != [d] || self.origin.shape().len() != n {
            return Err(Error::shape("subspace", "z [d] and an origin of n elements", &[z.shape(), self.origin.shape(), &[n, d].into()]));
        }
        on_device!(
            z,
            |device| self.projection.on(device)?.image(device, &self.origin, z),
            dispatch_float!("subspace", z.dtype(), T => {
                let mut y = self.origin.to_accum::<T>()?;
                self.projection.add_image(z.host::<T>()?, &mut y);
                Tensor::new(y, self.origin.shape())
            })
        )
    }

    fn backward(&self, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let dz = on_device!(
            dy,
            |device| self.projection.on(device)?.transposed(device, &dy),
            dispatch_float!("subspace", dy.dtype(), T => {
                Tensor::new(self.projection.transposed(dy.host::<T>()?), [self.projection.dims[1]])
            })
        )?;
        Ok(vec![Some(dz)])
    }
}

pub(in crate::lora) fn suite() -> Suite {
    Suite {
        op: "Subspace",
        tolerance: 1e-8,
        case: |random| {
            let (rows, cols, d) = (random_size(random, 5), random_size(random, 6), random_size(random, 5));
            let origin = random_tensor(random, &[rows, cols])?;
            let (n, seed) = (rows * cols, u64::from(random.word()));
            let projection = match random.below(2) {
                0 => Projection::new(n, d, seed, "P")?,
                _ => Projection::small_fastfood([n, d], random),
            };
            let z = random_tensor(random, &[d])?;
            Ok(Case { op: Rc::new(Subspace { origin, projection: Arc::new(projection) }), inputs: vec![z] })
        },
    }
}
