//! What the linear, attention and layer norm ops give to their code for the host and for a GPU.
//!
//! The types of a linear: a [`LowRankLinear`] has W, b and its terms. A [`LowRankTerm`] is one term: A, B, s and its dropout. A
//! [`LowRankCotangent`] is a term with what its backward reads: dy (the cotangent of the output), x and h.

use super::{DType, Mask, Sequences, Tensor};

/// What attention reads.
pub(crate) struct AttentionInputs<'a> {
    /// q `[Tq, D]`, k and v `[T, D]`: views of the op's one, two or three input tensors.
    pub qkv: [Tensor; 3],
    /// More keys and values `[E, D]`, which every sequence sees before its own.
    pub extra: Option<[Tensor; 2]>,
    /// H.
    pub heads: usize,
    /// Sequence boundaries of q.
    pub queries: &'a Sequences,
    /// Sequence boundaries of k and v.
    pub keys: &'a Sequences,
    /// Dropout of the probabilities.
    pub mask: Option<&'a Mask>,
}

impl AttentionInputs<'_> {
    /// E.
    pub fn extra_rows(&self) -> usize {
        self.extra.as_ref().map_or(0, |[k, _]| k.shape().rows())
    }
}

/// x Wᵀ + b + Σ s · drop(x) Aᵀ Bᵀ without its x.
pub(crate) struct LowRankLinear<'a> {
    /// W `[out, in]`.
    pub w: &'a Tensor,
    /// b `[out]`.
    pub bias: Option<&'a Tensor>,
    /// The terms of the sum.
    pub terms: Vec<LowRankTerm<'a>>,
}

/// s · drop(x) Aᵀ Bᵀ without its x.
pub(crate) struct LowRankTerm<'a> {
    /// A `[r, in]`.
    pub a: Tensor,
    /// B `[out, r]`.
    pub b: Tensor,
    /// s.
    pub scale: f64,
    /// Dropout of the rows of x.
    pub drop: Option<(&'a Mask, &'a Sequences)>,
}

/// A low-rank term in backward.
pub(crate) struct LowRankCotangent<'a> {
    /// The term.
    pub term: LowRankTerm<'a>,
    /// Cotangent of the linear's output `[n, out]`.
    pub dy: Tensor,
    /// x `[n, in]`, if dA is needed.
    pub x: Option<Tensor>,
    /// h = drop(x) Aᵀ `[n, r]`, if dB is needed.
    pub h: Option<Tensor>,
}

/// dx, and [dA, dB] of each term. A gradient that is not needed is `None`.
pub(crate) type LinearGradients = (Option<Tensor>, Vec<[Option<Tensor>; 2]>);

impl LowRankTerm<'_> {
    /// r.
    pub fn rank(&self) -> usize {
        self.a.shape().rows()
    }
}

/// The rows s `[n, d]` that a layer norm normalises. They are computed just before, and never stored.
pub(crate) enum NormRows<'a> {
    /// s = f ⊙ x + r, with the factors f of dropout and the residual r: the end of a sublayer. s = x without a residual and dropout.
    Sublayer { x: &'a Tensor, residual: Option<&'a Tensor>, drop: Option<(&'a Mask, &'a Sequences)> },
    /// Rows of the words plus rows of the positions, in `dtype`. In each sequence, the rows of the prompt come first.
    Embeddings {
        dtype: DType,
        ids: &'a Tensor,
        words: &'a Tensor,
        positions: &'a Tensor,
        prompt: Option<&'a Tensor>,
        sequences: &'a Sequences,
        /// Dropout of y.
        mask: Option<&'a Mask>,
    },
}
