//! Why a model answers as it does: integrated gradients, and the answer without a word. The attention is [`DistilBert::attention`](crate::nn::DistilBert::attention).
//!
//! ```text
//! ids ─► embeddings x ─┐
//!                      ├─► points between x′ and x ─► layers, head ─► logit of a class ─► Tape::vjp ─► its gradient at each point
//! baseline ids ─► x′ ──┘                                                                                │ weighted sum, times x − x′
//!                                                                                                       ▼
//!                                                                              one number for each token; their sum is F(x) − F(x′)
//! ```

mod deletion;
mod integrated_gradients;
mod quadrature;

pub use deletion::{deletions, words};
pub use integrated_gradients::{Attribution, FEWEST_STEPS, MOST_STEPS, baseline, integrated_gradients};
pub use quadrature::gauss_legendre;
