//! The differentiable operations, one a file (`arithmetic.rs` has four).
//!
//! The order inside a file: source and formula, the struct with its settings, forward and backward, the [`Tape`](super::Tape) method, and
//! random inputs for the gradient check. (Attention and the two fused layer norms have no method: layers call `Tape::apply`. Random inputs
//! of [`Linear`] are in `linear_inputs.rs`.) Where a plain implementation is too slow, there is a plain form, to be read and to test
//! against, and a fast form. LN is the layer norm with its γ and β:
//!
//! | op | formula | plain form | fast form on the host |
//! |---|---|---|---|
//! | [`Gelu`], [`Relu`], [`Tanh`] | y = f(x) | `f` and `df`, see [`Elementwise`] | `f_fast` and `dx_fast`; loops in `elementwise_op.rs` |
//! | [`Add`], [`Mul`], [`Scale`], [`Sum`] | sums and products | the code itself | `elementwise_op.rs` |
//! | [`Dropout`] | y = f ⊙ x, f: 0 or 1/(1 − p) | `dropout.rs` | [`Mask::apply`](crate::tensor::Mask::apply) |
//! | [`LayerNorm`] | y = x̂ ⊙ γ + β | `layer_norm.rs` | `layer_norm_fast.rs` |
//! | [`ResidualLayerNorm`] | LN(drop(x) + residual) | composed tape calls | `layer_norm_fast.rs` |
//! | [`EmbeddingLayerNorm`] | drop(LN(words + positions)) | composed tape calls | `layer_norm_fast.rs` |
//! | [`Embedding`], [`FirstRow`], [`CrossEntropy`], [`BceWithLogits`], [`Cast`] | rows, loss, type | the code itself | none is needed |
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
mod bce_with_logits;
mod cast;
mod cross_entropy;
mod dropout;
mod elementwise;
pub(super) mod elementwise_op;
mod embedding;
mod embedding_layer_norm;
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
#[cfg(test)]
mod testing;

pub use arithmetic::{Add, Mul, Scale, Sum};
pub use attention::Attention;
pub use bce_with_logits::BceWithLogits;
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
pub use tanh::Tanh;

use super::gradcheck::{Case, Suite};
use crate::tensor::DType;

/// The gradient checks of every op. For the tolerances see [`Suite::tolerance`].
pub fn suites() -> Vec<Suite> {
    vec![
        Suite { op: "Add", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Add, 2, random) },
        Suite { op: "Mul", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Mul, 2, random) },
        Suite { op: "Scale", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Scale(-1.7), 1, random) },
        Suite { op: "Sum", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Sum, 1, random) },
        Suite { op: "Relu", tolerance: 1e-8, case: relu::random_case },
        Suite { op: "Tanh", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Tanh, 1, random) },
        Suite { op: "Gelu", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Gelu, 1, random) },
        Suite { op: "Dropout", tolerance: 1e-8, case: dropout::random_case },
        Suite { op: "LayerNorm", tolerance: 1e-6, case: layer_norm::random_case },
        Suite { op: "ResidualLayerNorm", tolerance: 1e-6, case: residual_layer_norm::random_case },
        Suite { op: "Linear", tolerance: 1e-8, case: |random| linear_inputs::random_group(random).map(|(op, x)| Case::new(op, x)) },
        Suite { op: "Embedding", tolerance: 1e-8, case: embedding::random_case },
        Suite { op: "EmbeddingLayerNorm", tolerance: 1e-6, case: embedding_layer_norm::random_case },
        Suite { op: "Attention", tolerance: 1e-6, case: |random| attention::random_inputs(random).map(|(op, x)| Case::new(op, x)) },
        Suite { op: "FirstRow", tolerance: 1e-8, case: first_row::random_case },
        Suite { op: "CrossEntropy", tolerance: 1e-8, case: cross_entropy::random_case },
        Suite { op: "BceWithLogits", tolerance: 1e-8, case: bce_with_logits::random_case },
        Suite { op: "Cast", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Cast { dtype: DType::F64 }, 1, random) },
    ]
}
