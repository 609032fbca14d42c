//! The differentiable operations, one a file: formula and source, struct, forward and backward, kernels, the [`Tape`](super::Tape) method,
//! and the cases of its gradient check.

mod arithmetic;
mod attention;
mod attention_fast;
mod attention_inputs;
mod cast;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod embedding_layer_norm;
mod first_row;
mod gelu;
mod layer_norm;
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

/// The gradient checks of every op, in the order of this list.
pub fn suites() -> Vec<Suite> {
    let mut suites = arithmetic::suites();
    suites.extend([
        relu::suite(),
        tanh::suite(),
        gelu::suite(),
        dropout::suite(),
        layer_norm::suite(),
        residual_layer_norm::suite(),
        linear_inputs::suite(),
    ]);
    suites.extend([
        embedding::suite(),
        embedding_layer_norm::suite(),
        attention::suite(),
        first_row::suite(),
        cross_entropy::suite(),
        cast::suite(),
    ]);
    suites
}
