//! What a micro-kernel gets.

use super::blocking::{LINE, MC};
use crate::tensor::simd;

/// Rows by address, which start `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<S> {
    pub at: *mut S,
    pub stride: usize,
}

/// The micro-kernel prefetches one cache line of the next strip of B every so many steps, for a register tile of `mr` rows and `nr` columns. With
/// this number, the calls for MC rows of A prefetch the whole strip. All prefetches at once would fill the queue of the first-level cache, and the
/// micro-kernel's own reads would wait behind them.
pub(super) const fn spread<S>(mr: usize, nr: usize) -> usize {
    // A power of two, so that the test in the loop is cheap.
    let steps = LINE * MC / (mr * nr * size_of::<S>());
    1 << steps.ilog2()
}

/// Prefetches a cache line of `ahead`, the part of the next strip that this call prefetches, if it is the turn of one in step `p`.
#[inline(always)]
pub(super) fn prefetch_ahead<T, S, const MR: usize>(ahead: *const T, p: usize, nr: usize) {
    let spread = spread::<S>(MR, nr);
    if p.is_multiple_of(spread) {
        simd::prefetch(ahead.wrapping_add(p / spread * (LINE / size_of::<T>())));
    }
}

/// The arguments of a micro-kernel for `to = start + Σₚ a[·, p] b[p, ·]`.
pub(super) struct Call<'a, T, S, D, const MR: usize> {
    /// The addresses of MR rows of A.
    pub a: [*const T; MR],
    /// Elements from one read in a row of A to the next.
    pub step: usize,
    /// A strip of B.
    pub b: &'a [T],
    /// The part of the next strip of B to prefetch, one cache line every [`spread`] steps. The address may be invalid.
    pub ahead: *const T,
    /// The values to which the products are added.
    pub start: Rows<S>,
    /// The result.
    pub to: Rows<D>,
    /// The number of rows to write, at most MR.
    pub height: usize,
}
