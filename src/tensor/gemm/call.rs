//! What a micro-kernel gets.

/// Rows by address, which start `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<S> {
    pub at: *mut S,
    pub stride: usize,
}

/// The arguments of a micro-kernel for `to = start + Σₚ a[·, p] b[p, ·]`.
pub(super) struct Call<'a, T, S, D, const MR: usize> {
    /// The addresses of MR rows of A.
    pub a: [*const T; MR],
    /// Elements from one read in a row of A to the next.
    pub step: usize,
    /// A strip of B.
    pub b: &'a [T],
    /// The values to which the products are added.
    pub start: Rows<S>,
    /// The result.
    pub to: Rows<D>,
    /// The number of rows to write, at most MR.
    pub height: usize,
}
