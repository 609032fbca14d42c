//! Reverse-mode differentiation on an explicit tape.
//!
//! A [`Tape`] records the operations of a forward pass. [`Tape::backward`] walks them in reverse order, and gives dL/dp for every
//! [`Parameter`] p that it reaches. The file `tape.rs` is the algorithm; `ops/` has the operations; [`gradcheck`] compares each backward
//! with finite differences. The ledger (`ledger.rs`) and checkpointing (`checkpoint.rs`) are extras, and a first reader can skip them.
//!
//! The gradient dL/dy of a value y is also called its cotangent.
//!
//! An operation is a type with forward and backward side by side. In the example below, `needs[0]` says whether a gradient must reach the
//! input, `saved` keeps tensors from forward for backward, and `apply` runs the operation and records it. (An elementwise one is shorter:
//! see [`ops::Elementwise`].) This example computes in f64 only, so it would give an error in a model in f32. `docs/adding-an-op.md` says
//! how an op computes in every type, and on a GPU.
//! ```
//! use lowrank::autograd::{Op, Parameter, Saved, Tape};
//! use lowrank::{Result, tensor::Tensor};
//!
//! /// y = x², elementwise.
//! struct Square;
//!
//! impl Op for Square {
//!     fn name(&self) -> &'static str {
//!         "square"
//!     }
//!     fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
//!         saved.keep_if(needs[0], "x", inputs[0]);
//!         let y: Vec<f64> = inputs[0].host::<f64>()?.iter().map(|x| x * x).collect();
//!         Tensor::new(y, inputs[0].shape())
//!     }
//!     fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
//!         let x = saved.take("x")?;
//!         let dx: Vec<f64> = x.host::<f64>()?.iter().zip(dy.host::<f64>()?).map(|(x, dy)| 2.0 * x * dy).collect();
//!         Ok(vec![Some(Tensor::new(dx, x.shape())?)])
//!     }
//! }
//!
//! let p = Parameter::new("x", Tensor::new(vec![3.0], [1])?);
//! let mut tape = Tape::new();
//! let x = tape.parameter(&p);
//! let y = tape.apply(Square, &[&x])?;
//! assert_eq!(tape.backward(&y)?.get(&p).unwrap().host::<f64>()?, [6.0]);
//! # Ok::<(), lowrank::Error>(())
//! ```

mod checkpoint;
pub mod gradcheck;
mod grads;
mod ledger;
pub mod ops;
mod parameter;
mod planted_bugs;
mod record;
mod run;
mod saved;
mod tape;
#[cfg(test)]
mod tests;

pub use grads::Grads;
pub(crate) use grads::accumulate;
pub use parameter::{ParamId, Parameter};
pub use planted_bugs::Bug;
pub use record::Record;
pub use saved::Saved;
pub use tape::{Tape, Var};

use crate::{Result, tensor::Tensor};

/// A differentiable operation y = f(x₀, x₁, …). Forward computes y. Backward gets dy = dL/dy, and returns dL/dxᵢ for each input: by the
/// chain rule the product dyᵀ · ∂y/∂xᵢ of a vector and a Jacobian matrix, which is itself never formed.
pub trait Op: 'static {
    /// Name in errors and ledgers.
    fn name(&self) -> &'static str;

    /// The value y. `needs[i]`: a gradient must reach input i. Keeps in `saved` what backward will read. Most
    /// ops keep no activation that no needed gradient reads. A weight of the model may always be kept: that costs no memory.
    ///
    /// # Errors
    /// If shapes or data types do not fit. The message names the op, the rule and the shapes.
    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor>;

    /// From `dy` = dL/dy, the contribution dL/dxᵢ of each input, `None` where it is not needed. The tape adds contributions. `dy` is owned,
    /// so its buffer can be reused.
    ///
    /// # Errors
    /// As in `forward`.
    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>>;

    /// Whether, on a GPU, backward takes dy in two parts, which it adds while it reads them ([`Op::backward_of_two`]). This saves a pass
    /// over memory.
    fn adds_cotangents(&self) -> bool {
        false
    }

    /// [`Op::backward`] of `dy` + `more`.
    ///
    /// # Errors
    /// As in `forward`.
    fn backward_of_two(&self, saved: Saved, dy: Tensor, more: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        self.backward(saved, accumulate(Some(dy), more)?, needs)
    }

    /// Floating-point operations of forward, and of backward under `needs`, for the ledger. A multiply-add counts two; small ops say zero.
    fn flops(&self, _inputs: &[&Tensor], _needs: &[bool]) -> (u64, u64) {
        (0, 0)
    }
}
