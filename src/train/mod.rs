//! Training: the loop (`fit.rs`), the optimizer (`optimizer.rs`), the schedule, evaluation, and the saved state of a run (`checkpoint.rs`).
//!
//! # On what the bits of a result depend
//! Two runs give the same bits, in every parameter, loss and metric, if all of these are equal (times and bytes are not among them):
//! - **the data**: the texts, their order in the file, the labels, the tokenizer's files, the maximum length, and the part of a longer
//!   text that is kept;
//! - **the base**: the bytes of the checkpoint;
//! - **the settings**: the method, the [`Recipe`] but for `recompute`, the settings of the optimizer ([`AdamW`]: decay, `no_bias_decay`,
//!   betas, eps, `lr_factor`), the [data type](crate::tensor::DType), and the seeds. Every random number is `philox(seed, counter)`
//!   (`tensor/philox.rs`). One word of the counter names a stream: a new weight has the stream of its own name, the data's order that of
//!   the epoch. The counter of a dropout mask has its site, the example number and the element;
//! - **the arithmetic**: the instruction set (`--simd` or `LOWRANK_SIMD` is `portable|avx2|avx512|avx512bf16`; the fastest of the processor
//!   is the default) or the model of the GPU with its libraries; the versions of this crate and of its dependencies; and the compiler with
//!   its standard library and the C library, because ln, tanh, cos and some exp are calls into them. Different arithmetic rounds
//!   differently.
//!
//! The result does not depend on the number of threads or of [`Ranks`], because each sum is computed in a fixed order. It does not depend
//! on `recompute` or on the cache of tokens, because both give the same numbers again. It does not depend on pauses: the saved state of a
//! run has all that the next step reads. `batch` and `accumulate` do change bits, because they change sums.

mod checkpoint;
mod checks;
mod evaluate;
mod exchange;
mod features;
mod fit;
mod lora_plus;
mod loss;
mod memory;
#[cfg(feature = "mpi")]
mod mpi;
mod observer;
mod optimizer;
#[cfg(feature = "cuda")]
mod optimizer_cuda;
mod ranks;
mod recipe;
mod schedule;
mod scores;

pub use checkpoint::{load_checkpoint, save_checkpoint, save_checkpoint_with};
pub use evaluate::{Evaluation, evaluate, evaluate_across, logits, logits_while, mean_logits, measure, predict};
pub use features::FrozenFeatures;
pub use fit::{Training, fit};
pub use lora_plus::lora_plus;
pub use loss::balanced_weights;
pub use memory::{memory_by_category, peak_memory};
#[cfg(feature = "mpi")]
pub use mpi::MpiRanks;
pub use observer::{Observer, RankReport, StepReport};
pub use optimizer::{AdamW, LrFactor};
pub use ranks::{OneRank, Ranks, ThreadRank, all_agree, check_same};
pub use recipe::Recipe;
pub use schedule::Schedule;
pub use scores::{LabelsFound, NumberErrors, labels_found, number_errors, scores};
