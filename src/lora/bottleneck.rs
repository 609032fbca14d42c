//! Bottlenecks (the papers' "adapters"): h becomes h + W_up gelu(W_down h + b_down) + b_up after a sublayer, before dropout, residual and layer norm.
//!
//! Houlsby et al. 2019, <https://arxiv.org/abs/1902.00751>, section 2.1: two bottlenecks in each layer, and trained layer norms. Pfeiffer et al. 2020,
//! <https://arxiv.org/abs/2005.00247>, section 3.4: one, after the feed-forward network. Both start near the identity, with W ~ N(0, 0.01²) and b = 0. The
//! papers leave the activation open; here it is GELU.

use crate::Result;
use crate::autograd::{Tape, Var};
use crate::nn::{DistilBert, Hook, Linear, Pass, Weight};
use crate::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Where the bottlenecks are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Placement {
    /// After both sublayers; layer norms train.
    Houlsby,
    /// After the feed-forward block.
    Pfeiffer,
}

/// Standard deviation of W_down and W_up at the start.
const NEAR_IDENTITY: f64 = 0.01;

/// A linear to m numbers and one back.
struct Bottleneck {
    /// `[m, D]`.
    down: Linear,
    /// `[D, m]`.
    up: Linear,
}

impl Hook for Bottleneck {
    fn forward<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, h: &Var) -> Result<Var> {
        let narrow = self.down.forward(tape, pass, h)?;
        let narrow = tape.gelu(&narrow)?;
        let back = self.up.forward(tape, pass, &narrow)?;
        tape.add(h, &back)
    }

    fn weights(&self) -> Vec<&Weight> {
        [&self.down, &self.up].into_iter().flat_map(|l| [Some(&l.weight), l.bias.as_ref()]).flatten().collect()
    }

    fn weights_mut(&mut self) -> Vec<&mut Weight> {
        [&mut self.down, &mut self.up].into_iter().flat_map(|l| [Some(&mut l.weight), l.bias.as_mut()]).flatten().collect()
    }
}

/// Puts bottlenecks of width m = `size` into every layer of `model`.
pub(super) fn insert(model: &mut DistilBert, size: usize, placement: Placement, seed: u64) -> Result<()> {
    let (d, dtype) = (model.config.dim, model.dtype.accum());
    for block in &mut model.blocks {
        let places: &[(usize, &str)] = match placement {
            Placement::Houlsby => &[(0, "attention"), (1, "ffn")],
            Placement::Pfeiffer => &[(1, "ffn")],
        };
        for &(place, name) in places {
            let name = format!("{}.{name}.adapter", block.name);
            let down = linear(format!("{name}.down"), [size, d], dtype, seed)?;
            let up = linear(format!("{name}.up"), [d, size], dtype, seed)?;
            block.hooks[place] = Some(Box::new(Bottleneck { down, up }));
        }
    }
    Ok(())
}

fn linear(name: String, dims: [usize; 2], dtype: DType, seed: u64) -> Result<Linear> {
    let weight = super::normal(format!("{name}.weight"), dims, NEAR_IDENTITY, dtype, seed)?;
    let bias = Weight::trained(format!("{name}.bias"), Tensor::zeros(dtype, [dims[0]]));
    Ok(Linear::new(name, weight, Some(bias), 0))
}
