//! A small tensor engine with its own reverse-mode autograd that fine-tunes DistilBERT with LoRA, without an ML framework.
//!
//! ```text
//!             ids, offsets                                     loss
//! data ───────────────────────► nn (DistilBERT) ──► autograd (Tape) ──► Grads ──► train (AdamW)
//! text, labels → packed batch     lora                 ops/<op>.rs
//!                                                         │
//!                                                  tensor (host kernels) · cuda (device kernels)
//!
//! error ─► cuda ─► tensor ─► cuda::launch ─► autograd ─► nn ─► lora ─► data ─► train      ("is used by"; nothing points back)
//! ```
//!
//! # Reading order
//! 1. [`autograd`]: what an operation is, and the tape. `autograd/ops/gelu.rs` is a whole op on one page.
//! 2. [`autograd::gradcheck`]: how every backward is checked.
//! 3. `autograd/ops/linear.rs`: the op that LoRA is about, and what it does not save.
//! 4. [`nn`]: DistilBERT. [`lora`]: what trains: low-rank terms and the other methods.
//! 5. [`tensor`]: storage, [`tensor::gemm`], [`tensor::philox`], [`tensor::safetensors`].
//! 6. [`data`], [`train`]: from text to a trained adapter.
//! 7. `src/cuda/kernels`: the same ops on a GPU, a file each; `docs/gpu.md` says how they are checked without one.
//!
//! # Letters
//! B batch, T tokens of all sequences of a packed batch, D model width, H heads, K head width, F feed-forward width, V vocabulary, C classes,
//! r rank. `dy` comes into a backward; `dx`, `dw`, `db` go out.
//!
//! # Example
//! ```
//! use lowrank::autograd::{Parameter, Tape};
//! use lowrank::tensor::Tensor;
//!
//! // L = Σ (a·b)², differentiated at a = 2, b = 3.
//! let a = Parameter::new("a", Tensor::new(vec![2.0], [1])?);
//! let b = Tensor::new(vec![3.0], [1])?;
//! let mut tape = Tape::new();
//! let (av, bv) = (tape.parameter(&a), tape.constant(&b));
//! let product = tape.mul(&av, &bv)?;
//! let square = tape.mul(&product, &product)?;
//! let loss = tape.sum(&square)?;
//! let grads = tape.backward(&loss)?;
//! assert_eq!(grads.get(&a).unwrap().item()?, 2.0 * 2.0 * 3.0 * 3.0);
//! # Ok::<(), lowrank::Error>(())
//! ```

pub mod assets;
pub mod autograd;
pub mod classifier;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod data;
pub mod error;
pub mod files;
pub mod lora;
pub mod nn;
pub mod prelude;
pub mod tensor;
#[cfg(test)]
mod testing;
pub mod train;

pub use error::{AtLayer, Error, Result};
