//! The differentiable operations, one a file (`arithmetic.rs` has four).
//!
//! The order inside a file: source and formula, the struct with its settings, forward and backward, the [`Tape`](super::Tape) method, and the
//! suite of the gradient check. (Attention and the two fused layer norms have no method: layers call `Tape::apply`. The suite of [`Linear`] is in
//! `linear_inputs.rs`.) If a plain implementation is too slow, the file has a plain form for the tests, and another file has the fast form:
//!
//! | op | formula | plain form | fast form on the host |
//! |---|---|---|---|
//! | [`Gelu`], [`Relu`], [`Tanh`] | y = f(x) | `f` and `df` in the op's file, see [`Elementwise`] | `gelu_fast.rs`, `elementwise_fast.rs` |
//! | [`Add`], [`Mul`], [`Scale`], [`Sum`] | sums and products | the code itself | `elementwise_fast.rs` |
//! | [`Dropout`] | y = f ⊙ x, f: 0 or 1/(1 − p) | `dropout.rs` | [`Mask::apply`](crate::tensor::Mask::apply) |
//! | [`LayerNorm`] | y = x̂ ⊙ γ + β | `layer_norm.rs` | `layer_norm_fast.rs` |
//! | [`ResidualLayerNorm`] | LN(drop(x) + r) | composed tape calls | `layer_norm_fast.rs` |
//! | [`EmbeddingLayerNorm`] | LN(words + positions) | composed tape calls | `layer_norm_fast.rs` |
//! | [`Embedding`], [`FirstRow`], [`CrossEntropy`], [`Cast`] | rows, loss, type | the code itself | none is needed |
//!
//! The files of [`Linear`] and [`Attention`] name their own plain and fast forms.
//!
//! On a GPU, `on_device!` inside forward and backward calls a function of `cuda::launch`, which starts a GPU kernel, instead of the host's loops.
//! Checking and saving happen outside of it, once for both. An op without a GPU kernel gives an error that names it.

mod arithmetic;
mod attention;
mod attention_fast;
mod attention_inputs;
mod cast;
mod cross_entropy;
mod dropout;
mod elementwise;
pub(super) mod elementwise_fast;
mod elementwise_op;
mod embedding;
mod embedding_layer_norm;
mod first_row;
mod gelu;
mod gelu_fast;
mod layer_norm;
mod layer_norm_fast;
mod linear;
mod linear_fast;
mod linear_inputs;
mod low_rank;
mod relu;
mod residual_layer_norm;
mod tanh;
#[cfg(test)]
mod testing;

pub use arithmetic::{Add, Mul, Scale, Sum};
pub use attention::Attention;
pub use cast::Cast;
pub use cross_entropy::CrossEntropy;
pub use dropout::Dropout;
pub use elementwise::{Elementwise, Keeps};
pub use embedding::Embedding;
pub use embedding_layer_norm::EmbeddingLayerNorm;
pub use first_row::FirstRow;
pub use gelu::Gelu;
pub use layer_norm::LayerNorm;
pub use linear::{GroupedLinear, Linear, Term, lora_composed};
pub use relu::Relu;
pub use residual_layer_norm::ResidualLayerNorm;
pub use tanh::Tanh;

use super::gradcheck::Suite;

/// The gradient checks of every op.
pub fn suites() -> Vec<Suite> {
    let mut suites = Vec::from(arithmetic::suites());
    suites.extend([relu::suite(), tanh::suite(), gelu::suite(), dropout::suite(), layer_norm::suite(), residual_layer_norm::suite()]);
    suites.push(linear_inputs::suite());
    suites.extend([embedding::suite(), embedding_layer_norm::suite(), attention::suite(), first_row::suite()]);
    suites.extend([cross_entropy::suite(), cast::suite()]);
    suites
}
