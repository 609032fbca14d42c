//! A small tensor engine with its own reverse-mode autograd. It fine-tunes DistilBERT with LoRA on a CPU or an NVIDIA GPU, without an ML
//! framework.
//!
//! LoRA (low-rank adaptation) does not change a weight W of the model. It trains an addition to it, s·B·A: the product of two thin
//! matrices, times a scale. A linear layer with such an addition has a low-rank term.
//!
//! ```text
//! texts and labels
//!   │ data: WordPiece, packed batches
//!   ▼
//! token ids and sequence boundaries
//!   │ nn: DistilBERT; lora: low-rank terms A, B in its linear layers
//!   ▼
//! ops on a Tape (autograd), each computed by tensor (host) or cuda (GPU) ──► loss
//!   │ Tape::backward
//!   ▼
//! Grads: gradients of A, B and the classifier head
//!   │ train: clipping, AdamW
//!   ▼
//! new A, B and head
//! ```
//!
//! Folders of `src`, and a few single files, are rooms. A room uses only rooms to the left of it, and not all of them: `data`, for example,
//! knows no models.
//!
//! ```text
//! assets · text · cut · outputs ─► error ─► files ─► cuda ─► tensor ─► cuda/launch ─► autograd ─► nn ─► lora ─► data
//!                                                                         ─► metrics ─► train ─► explain · classifier
//! ```
//!
//! To fine-tune on your own texts from Rust, start with [`prelude`] and [`classifier::TextClassifier`]. `docs/adding-an-op.md` says how to
//! add an op, and `docs/architecture.md` lists every file.
//!
//! # Letters
//! In the model: B sequences of a batch, T tokens of all its sequences together, D model width, H heads, K width of a head (D = H·K), F
//! feed-forward width, V vocabulary, C classes, M positions, G linears of one group, P rows of a prompt, E extra keys and values of
//! attention (a prefix). N is the number of sequences in a data set; in the loss, what the sum over a step is divided by; in a block, the
//! number of rows that it computes. h is a hidden state, the rows `[T, D]` between two layers. d is the number of columns of any tensor,
//! and n its number of rows.
//!
//! In a low-rank term: A `[r, in]`, B `[out, r]`, r its rank, s its scale, and h = drop(x) Aᵀ. In a matrix product C = A·B, `[m, n]` = `[m,
//! k]`·`[k, n]`, the letters stand for any matrices. In attention: q, k and v are queries, keys and values, S the matrix of scores, P that
//! of probabilities, and δ the sum of dP ⊙ P over a row. In dropout, f are the factors, 0 or 1/(1 − p). In gradient checks, J is the matrix
//! of derivatives, u a direction of the inputs, v one of the outputs. In code, S is also the accumulator's type and T that of elements.
//!
//! ⊙ is the elementwise product. L is the loss. `dy` is dL/dy, the gradient that comes into a backward; `dx`, `dw`, `db` go out.
//!
//! # Reading order
//!
//! One path leads from a tensor to a whole LoRA training step. A step uses what the steps before it explain, and the words of this list.
//! Most fast versions stand in files of their own, named in the list; a first reader skips them. Some names occur before their step. A
//! first reader can take them as given:
//!
//! - `on_device!` chooses between host and GPU code, and `dispatch!` chooses the Rust type for a [`tensor::DType`].
//! - `alloc` takes a buffer with arbitrary content from a pool.
//! - `rows::for_each(out, cols, f)` cuts `out` into groups of whole rows, and calls `f(first row, group)` for each, with all threads.
//! - `vectorised(f)` runs the loop `f` with wider registers, where the processor has them.
//! - exp, erf and the fast forms of functions have an argument `fma`. It is true where the processor computes a·b + c in one fast
//!   instruction, which rounds once.
//! - `Mat` is a view of a slice as a matrix: `Mat::of(tensor)` has the tensor's rows and columns, `t` transposes it, `rows_from(i, n)`
//!   takes n rows from row i on, and `to_accum` copies the elements in the accumulator type. A tensor has `to_accum`, too; `from_f64`,
//!   `to_f64` and `to_dtype` convert its type, and `item` reads its only element.
//! - A *checkpoint* is a file of weights. (Two files have the name `checkpoint` for other things: in `train`, the saved state of a run; in
//!   `autograd`, a part of a model that backward computes again.)
//! - An *example number* is a number for each text of each epoch: epoch · N + index. Dropout masks are drawn from it.
//! - A *micro-batch* is the part of a step that is computed at once. A *prompt* is trained rows before those of the text, and a *prefix*
//!   trained keys and values before those of the text. The *ledger* counts bytes and operations.
//!
//! 1. **Tensors.** `tensor/mod.rs`: an array, its shape and its shared storage. `tensor/element.rs`: data types, and the accumulator type
//!    that sums use. `tensor/sequences.rs`: packed batches.
//! 2. **The matrix product.** `tensor/gemm/naive.rs`: plain loops. `tensor/gemm/mod.rs`: how the fast one uses the caches (fast: the rest
//!    of the folder).
//! 3. **Reverse mode.** `autograd/mod.rs`: what an op is. `autograd/saved.rs`: what its forward keeps for backward.
//!    `autograd/parameter.rs`: trained tensors. `autograd/grads.rs`: their gradients. `autograd/tape.rs`: recording and backward.
//! 4. **Random numbers.** `tensor/philox.rs`: random words from counters.
//! 5. **Checks.** `autograd/gradcheck.rs`: how every backward is checked. `autograd/planted_bugs.rs`: how the check itself is checked.
//! 6. **First ops.** `autograd/ops/mod.rs`: how ops are organised. `autograd/ops/elementwise.rs`: the shape of elementwise ops.
//!    `autograd/ops/gelu.rs`: one of them. `autograd/ops/arithmetic.rs`: sum and products.
//! 7. **Dropout.** `tensor/mask.rs`: a mask that can be drawn again. `autograd/ops/dropout.rs`: the op.
//! 8. **The ops of a transformer.** `autograd/ops/linear.rs`: a linear layer with LoRA terms (fast: `linear_fast`, `low_rank`). What its
//!    host and GPU code take are `LowRankLinear` (W, b and the terms), `LowRankTerm` (A, B, s and its dropout) and `LowRankCotangent` (a
//!    term, and the dy, x and h that its backward reads). `autograd/ops/attention.rs` (fast: `attention_fast`); both take
//!    `AttentionInputs`: q, k, v, the sequences and the dropout. `autograd/ops/layer_norm.rs` (shared by three ops: `layer_norm_shared`;
//!    fast: `layer_norm_fast`). `autograd/ops/embedding.rs`. The model runs two fused ops, `residual_layer_norm` (dropout, sum and layer
//!    norm in one) and `embedding_layer_norm` (embeddings, sum, layer norm and dropout in one); a first reader skips their files.
//!    `autograd/ops/first_row.rs`: the `[CLS]` row. `autograd/ops/cross_entropy.rs`: the loss of classes.
//! 9. **The model.** `nn/mod.rs`: what a forward pass needs. `nn/weight.rs`: frozen or trained. `nn/linear.rs`, `nn/layer_norm.rs`,
//!    `nn/block.rs`: layers. `nn/distilbert.rs`: DistilBERT, and BERT. The file `architecture` has the names of their weights, and `parts`
//!    lists their linears and weights; a first reader skips both.
//! 10. **LoRA.** `lora/mod.rs`, `lora/config.rs`: which linears get a term. `lora/method.rs`: how a model becomes a LoRA model.
//!     `lora/terms.rs`: how A and B start. `lora/merge.rs`: how they become part of W.
//! 11. **Training.** `data/batch.rs`: examples to batches. `train/mod.rs`: what the bits of a result depend on. `train/recipe.rs` and
//!     `train/schedule.rs`: settings. `train/loss.rs`: the loss of a step. `train/optimizer.rs`: AdamW. `train/fit.rs`: the loop. (The
//!     files `ranks` and `exchange` share it among several processes, and `checks` refuses what is not finite or does not train; a first
//!     reader skips them.) `prelude.rs`: all of it on your own texts.
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
pub mod cut;
pub mod data;
pub mod error;
pub mod explain;
pub mod files;
pub mod lora;
pub mod metrics;
pub mod nn;
pub mod outputs;
pub mod prelude;
pub mod tensor;
#[cfg(test)]
mod testing;
pub mod text;
pub mod train;

pub use error::{AtLayer, Error, Result};
