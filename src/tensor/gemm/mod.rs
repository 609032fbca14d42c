//! C = A·B for matrices in any layout, and sums of such products. `naive.rs` has the loops that define it; the rest makes them fast.
//!
//! The method is that of Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication", <https://doi.org/10.1145/1356052.1356053>: each level
//! of cache keeps a block that is used many times before the next one is needed.
//!
//! Two words first. The *micro-kernel* is the innermost function: it computes MR rows and NR columns of C in registers. *Packing* copies a matrix into the
//! order in which the micro-kernel reads it. MC, NC and KC are sizes of larger blocks (`blocking.rs`).
//!
//! ```text
//!                             n
//!                     ┌──┬──┬──┬──┬──┐
//!                   k │  │▒▒│  │  │  │     B, packed in strips of NR columns. ▒: one strip
//!                     └──┴──┴──┴──┴──┘
//!            k                n
//!       ┌─────────┐   ┌───────────┬──┐
//!       │▒▒▒▒▒▒▒▒▒│   │   ▒▒      │  │     ▒: MR rows of A times one strip of B make MR × NR elements of C
//!     m │    A    │ m │ C         │  │
//!       │         │   ├───────────┼──┤     the lines in C: tiles of MC × NC elements, one for each task
//!       └─────────┘   └───────────┴──┘
//!
//!     loop                                        what stays close while the loops inside run        example: AVX2, f32
//!     5  for columns j0 of C, in steps of NC  ┐   the task's tile of C, MC × NC, in L2             96 × 672
//!     4  for rows i0 of C, in steps of MC     ┘   (each pair j0, i0 is a task of its own)
//!     3  for inner indices k0, in steps of KC     a block of A, MC × KC, in L2                     96 × 384
//!     2  for strips j, in steps of NR             a strip of B, KC × NR, in L1 (AVX-512: L2)       384 × 16
//!     1  for rows i, in steps of MR               a block of C, MR × NR, in registers              6 × 16
//!        micro-kernel: for p in k0..k0 + KC       one row of the strip times MR elements of A
//! ```
//!
//! In the example n is 3072 and the second-level cache has 512 KiB: the tile of C takes 258 KB of it, and the block of A 147 KB. NC follows the size of this
//! cache, the sizes of C and the number of threads, and MR and NR depend on n; KC is fixed for each instruction set, because sums depend on it.
//!
//! Loops 5 to 1 are in `loops.rs`, the micro-kernel is in `micro.rs` (plain loops), `avx2.rs` and `avx512.rs` (intrinsics). In Goto's method the loop over k0
//! is outside the loop over i0. Here it is inside, as loop 3, so that each task computes all of its tile of C, and tasks run in parallel.
//! - **B is packed** as a whole before loop 5, into strips of NR columns ([`Packed`], `pack.rs`). The micro-kernel then reads a strip from start to end. The
//!   last strip is padded with zeros.
//! - **A is not copied** if the micro-kernel can read it where it is; the cache alone then holds the block of loop 3. Loop 3 copies a block (`panels.rs`) in
//!   three cases. (1) Elements of bf16 must be widened. (2) The processor multiplies bf16 in pairs of neighbours, and A is column-major or its inner size is
//!   odd. (3) A is column-major and the tile of C has at least 128 columns.
//! - **A short A** (at most 48 rows, fewer than B has columns) changes roles with B: Cᵀ = Bᵀ·Aᵀ, so that the small matrix is the packed one.
//!
//! Each element of C is summed over the inner index in a fixed order. It depends neither on the number of threads nor on the number of other rows of A or their
//! values.
//!
//! The types, in the order of use: [`Mat`] is a matrix over a borrowed slice, with strides. [`Elements`] is that slice: of the accumulator type S, or of bf16.
//! [`Init`] is the value to which products are added. [`Packed`] is B in strips, for callers that use one B for several products. [`Isa`] is an instruction set
//! of the processor. An `Operand` (`micro.rs`) is what the micro-kernel multiplies: elements of type S, or pairs of bf16.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocking;
mod call;
mod loops;
mod mat;
mod micro;
mod naive;
mod pack;
mod panels;
#[cfg(test)]
mod tests;
mod transpose;

pub use super::element::Elements;
pub use loops::Init;
pub use mat::Mat;
pub use naive::gemm_naive;
pub use pack::{Packed, multiplies_pairs};

use super::simd::{self, Isa};
use super::{Accum, Scalar};

/// If A has at most this many rows, and fewer than B has columns, A is packed instead of B.
const SHORT: usize = 48;

/// C = A·B, or C += A·B if `accumulate`. C is `[a.rows, b.cols]` in row-major order; its rows start `ldc` elements apart.
///
/// Uses all threads. A task that already runs on one of them calls [`gemm_serial`].
///
/// # Panics
/// If the sizes do not fit.
pub fn gemm<S: Accum, C: Scalar<Acc = S>>(a: Mat<S>, b: Mat<S>, c: &mut [C], ldc: usize, accumulate: bool) {
    sum_on(simd::isa(), &[(a, b)], Init::of(accumulate), c, ldc, true);
}

/// [`gemm`] on the calling thread alone.
///
/// # Panics
/// If the sizes do not fit.
pub fn gemm_serial<S: Accum, C: Scalar<Acc = S>>(a: Mat<S>, b: Mat<S>, c: &mut [C], ldc: usize, accumulate: bool) {
    sum_on(simd::isa(), &[(a, b)], Init::of(accumulate), c, ldc, false);
}

/// [`gemm_serial`] with B already packed.
///
/// # Panics
/// If the sizes do not fit, or B was packed for an A of another type.
pub fn gemm_packed<S: Accum, C: Scalar<Acc = S>>(a: Mat<S>, b: &Packed<S>, c: &mut [C], ldc: usize, accumulate: bool) {
    loops::run(&[(a, b)], Init::of(accumulate), c, [ldc, 1], false);
}

/// C = init + Σ A·B over pairs (A, B), rounded once to C's type. Every A has C's rows, every B has C's columns. Without pairs, C stays as it is.
///
/// Uses all threads. On processors that multiply bf16, the product of two bf16 matrices adds pairs of neighbouring inner indices in f32.
///
/// # Panics
/// If the sizes do not fit.
pub fn gemm_sum<S: Accum, C: Scalar<Acc = S>>(products: &[(Mat<S>, Mat<S>)], init: Init<S>, c: &mut [C], ldc: usize) {
    sum_on(simd::isa(), products, init, c, ldc, true);
}

/// [`gemm_sum`] with the block sizes and the packing for the instruction set `isa`, with all threads if `parallel`.
fn sum_on<S: Accum, C: Scalar<Acc = S>>(isa: Isa, products: &[(Mat<S>, Mat<S>)], init: Init<S>, c: &mut [C], ldc: usize, parallel: bool) {
    let Some(&(a, b)) = products.first() else { return };
    products.iter().for_each(|(a, b)| assert_eq!(a.cols, b.rows, "gemm: inner sizes"));
    let swapped = a.rows <= SHORT && a.rows < b.cols;
    // Cᵀ = Bᵀ·Aᵀ for a short A.
    let operands = products.iter().map(|&(a, b)| if swapped { (b.t(), a.t()) } else { (a, b) });
    let products: Vec<_> = operands.map(|(a, b)| (a, Packed::on(isa, a, b, parallel))).collect();
    let products: Vec<_> = products.iter().map(|(a, b)| (*a, b)).collect();
    loops::run(&products, init, c, if swapped { [1, ldc] } else { [ldc, 1] }, parallel);
}
