//! The sizes of the blocks of `gemm/mod.rs`, chosen so that each stays in its cache.

use crate::tensor::Accum;
use crate::tensor::simd::Isa;

/// Rows of a task's tile of C: a multiple of every MR.
pub(super) const MC: usize = 96;
/// Columns of a task's tile of C: a multiple of every NR.
pub(super) const NC: usize = 384;
/// Bytes of a cache line.
pub(super) const LINE: usize = 64;
/// Multiply-adds, or elements to pack, that are worth a second thread.
pub(super) const WORTH_THREADS: usize = 64 * 1024;

/// KC: the depth of a block. It is even, for pairs of bf16. A strip of B, KC × NR, stays in the first-level cache. With AVX-512 it stays in the
/// second-level cache, which is fast enough, and the sums are written to C half as often.
pub(super) fn depth(isa: Isa) -> usize {
    if isa >= Isa::Avx512 { 768 } else { 384 }
}

/// `[MR, NR]`: rows and columns of the register tile, for a C of n columns.
///
/// AVX2 keeps 12 accumulators in its 16 registers, AVX-512 keeps 24 in its 32. Portable code uses half as many columns. If n is small, NR is
/// smaller, because a wide tile would mostly multiply padding. MR divides the number of query rows that attention takes
/// at a time.
pub(super) fn tile<S: Accum>(isa: Isa, n: usize) -> [usize; 2] {
    let padded = |nr: usize| n.next_multiple_of(nr);
    match (isa, size_of::<S>()) {
        (Isa::Portable, 4) => [4, 8],
        (Isa::Portable, _) => [4, 4],
        (Isa::Avx2, 4) if n <= 8 => [12, 8],
        (Isa::Avx2, 4) => [6, 16],
        (_, 8) => [6, 8],
        _ if n <= 16 => [8, 16],
        _ if padded(32) < padded(48) => [8, 32],
        _ => [8, 48],
    }
}
