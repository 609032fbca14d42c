//! The sizes of the blocks of `gemm/mod.rs`, chosen so that each stays in its cache.

use crate::tensor::simd::Isa;
use crate::tensor::{Accum, processor, rows};

/// Rows of a task's tile of C: a multiple of every MR.
pub(super) const MC: usize = 96;
/// The fewest columns of a task's tile of C, if C has as many.
const NARROWEST: usize = 384;
/// NC is a multiple of this number, and so of every NR.
const WIDTHS: usize = 96;
/// Tasks for each thread, so that none waits long for the last one.
const TASKS: usize = 4;
/// Bytes of a cache line.
pub(super) const LINE: usize = 64;
/// Multiply-adds, or elements to pack, that are worth a second thread.
pub(super) const WORTH_THREADS: usize = 64 * 1024;

/// NC: columns of a task's tile of C, for a C of n columns with `down` tiles below each other. A block of A may have to be copied once for each tile, so
/// tiles are wide. But MC rows of a tile in f32 fill at most half of the second-level cache, and there are enough tasks for all threads.
pub(super) fn columns(n: usize, down: usize, parallel: bool) -> usize {
    let widest = (processor::second_level_cache() / 2 / (MC * size_of::<f32>())).max(NARROWEST);
    let wanted = if parallel { (TASKS * rows::threads()).div_ceil(down) } else { 1 };
    let across = n.div_ceil(widest).max(wanted.min(n.div_ceil(NARROWEST)));
    n.div_ceil(across).next_multiple_of(WIDTHS)
}

/// KC: the depth of a block. It is even, for pairs of bf16. A strip of B, KC × NR, stays in the first-level cache. With AVX-512 it stays in the
/// second-level cache, which is fast enough, and the sums are written to C half as often.
pub(super) fn depth(isa: Isa) -> usize {
    if isa >= Isa::Avx512 { 768 } else { 384 }
}

/// `[MR, NR]`: rows and columns of the register tile, for a C of n columns.
///
/// AVX2 keeps 12 accumulators in its 16 registers, AVX-512 keeps 24 in its 32. Portable code uses half as many columns. If n is small, NR is
/// smaller, because a wide tile would mostly multiply padding; MR may then be larger. MR divides the number of queries that attention takes
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
        _ if padded(32) < padded(48) => [12, 32],
        _ => [8, 48],
    }
}
