//! What a micro-kernel gets.

use super::blocking::{LINE, MC};

/// Rows by address, which start `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<S> {
    pub at: *mut S,
    pub stride: usize,
}

/// Steps of the micro-kernel for each cache line of the next strip of B that it prefetches, for a register tile of `mr` rows and `nr` columns: so
/// many that the calls for MC rows of A prefetch one strip. All prefetches at once would fill the queue of the first-level cache, and the
/// micro-kernel's own reads would wait behind them.
pub(super) const fn spread<S>(mr: usize, nr: usize) -> usize {
    // A power of two, so that the test in the loop is cheap.
    let lines = LINE * MC / (mr * nr * size_of::<S>());
    1 << lines.ilog2()
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
