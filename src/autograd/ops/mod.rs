//! The differentiable operations, one a file (`arithmetic.rs` has four). The other files are fast forms, and what several ops share.
//!
//! The order inside a file: source and formula, the struct with its settings, forward and backward, and the [`Tape`](super::Tape) method.
//! (Attention and the two fused layer norms have none: layers call `Tape::apply`.) `cases.rs` has the settings and random inputs with which
//! each op is checked. A new op is a file here, a `mod` and a `pub use` below, and a suite in `cases.rs`; without a suite a test fails.
//! `docs/adding-an-op.md` has the details. Where a plain implementation is too slow, there is a plain form, to be read and to test against,
//! and a fast form. LN is the layer norm with its γ and β:
//!
//! | op | formula | plain form | fast form on the host |
//! |---|---|---|---|
//! | [`Gelu`], [`Relu`], [`Tanh`] | y = f(x) | `f` and `df`, see [`Elementwise`] | `f_fast` and `dx_fast`; loops in `elementwise_op.rs` |
//! | [`Add`], [`Mul`] | sum and product | the code itself; loops in `elementwise_op.rs` | none |
//! | [`Dropout`] | y = f ⊙ x, f: 0 or 1/(1 − p) | `dropout.rs` | [`Mask::apply`](crate::tensor::Mask::apply) |
//! | [`LayerNorm`] | y = x̂ ⊙ γ + β | `layer_norm.rs` | `layer_norm_fast.rs` |
//! | [`ResidualLayerNorm`] | LN(drop(x) + residual) | composed tape calls | `layer_norm_fast.rs` |
//! | [`EmbeddingLayerNorm`] | drop(LN(words + positions)) | composed tape calls | `layer_norm_fast.rs` |
//! | [`Scale`], [`Sum`], [`Embedding`], [`FirstRow`], [`CrossEntropy`], [`BceWithLogits`], [`SquaredError`], [`Cast`] | multiple, sum, rows, losses, type | the code itself | none |
//!
//! The files of [`Linear`] and [`Attention`] name their own plain and fast forms.
//!
//! On a GPU, `on_device!` inside forward and backward calls a function of `cuda::launch`, which starts a GPU kernel, instead of the host's
//! loops. Checking and saving happen outside of it, once for both. An op without a GPU kernel gives an error that names it.

mod arithmetic;
mod attention;
mod attention_fast;
mod attention_inputs;
mod attention_probabilities;
mod attention_scores;
mod bce_with_logits;
mod cases;
mod cast;
mod cross_entropy;
mod dropout;
mod elementwise;
pub(super) mod elementwise_op;
mod embedding;
mod embedding_layer_norm;
mod embedding_rows;
mod first_row;
mod gelu;
mod layer_norm;
mod layer_norm_fast;
mod layer_norm_shared;
mod linear;
mod linear_fast;
mod linear_inputs;
mod low_rank;
mod relu;
mod residual_layer_norm;
mod squared_error;
mod tanh;
mod target_loss;
#[cfg(test)]
mod testing;

pub use arithmetic::{Add, Mul, Scale, Sum};
pub use attention::Attention;
pub use bce_with_logits::BceWithLogits;
pub use cases::suites;
pub use cast::Cast;
pub use cross_entropy::CrossEntropy;
pub use dropout::Dropout;
pub use elementwise::Elementwise;
pub use embedding::Embedding;
pub use embedding_layer_norm::EmbeddingLayerNorm;
pub use first_row::FirstRow;
pub use gelu::Gelu;
pub use layer_norm::LayerNorm;
pub use linear::{GroupedLinear, Linear, Term, lora_composed};
pub use relu::Relu;
pub use residual_layer_norm::ResidualLayerNorm;
pub use squared_error::SquaredError;
pub use tanh::Tanh;
