//! The low-rank terms of [`Linear`](super::Linear) on the host: forward reads x once, backward reads dy, x and dx once.
//!
//! Both passes take `BLOCK` rows at a time and do everything for those rows: at D = 768, a block of x, dy or dx is 96 KiB of f32, so a block stays
//! in the second-level cache from one term to the next. A and s B are packed once, before the pass; they are small and stay in that cache, too.
//! A dropout mask is never stored. Each pass draws it once, for the block at hand.

use crate::Result;
use crate::tensor::gemm::{Mat, Packed, gemm_packed, gemm_serial};
use crate::tensor::simd::vectorised;
use crate::tensor::{Accum, LowRankCotangent, LowRankTerm, Pooled, Tensor, alloc, rows, zeroed};

/// Rows of a block.
const BLOCK: usize = 32;
/// Rows of a task in backward. A task sums dA and dB of its rows; the sums of the tasks are then added in order.
const GROUP: usize = 8 * BLOCK;

/// s B.
pub(super) fn scaled_b<S: Accum>(term: &LowRankTerm) -> Result<Pooled<S>> {
    let mut b = term.b.to_accum::<S>()?;
    b.iter_mut().for_each(|b| *b *= S::of(term.scale));
    Ok(b)
}

/// Writes the dropout factors of rows `first..`, `cols` to a row. False if nothing is dropped.
fn draw_factors<S: Accum>(term: &LowRankTerm, first: usize, cols: usize, factors: &mut [S]) -> bool {
    if let Some((mask, sequences)) = term.drop {
        mask.factor_rows(sequences, first, cols, factors);
    }
    term.drop.is_some()
}

/// drop(x), computed in `factors` if they were drawn (`masked`); else x itself.
fn dropped<'a, S: Accum>(masked: bool, x: Mat<'a, S>, factors: &'a mut [S]) -> Mat<'a, S> {
    if !masked {
        return x;
    }
    x.scale(factors);
    Mat::new(factors, x.rows(), x.cols())
}

/// h = drop(x) Aᵀ `[n, r]` of each term, with x `[n, in]`.
pub(super) fn hidden<S: Accum>(x: Mat<S>, terms: &[&LowRankTerm]) -> Result<Vec<Tensor>> {
    let (n, d) = (x.rows(), x.cols());
    if terms.is_empty() {
        return Ok(Vec::new());
    }
    let packed_a = terms.iter().map(|t| Ok(Packed::new(Mat::of(&t.a)?.t()))).collect::<Result<Vec<_>>>()?;
    let mut hidden: Vec<Pooled<S>> = terms.iter().map(|t| alloc(n * t.rank())).collect();
    let mut blocks: Vec<_> = hidden.iter_mut().zip(terms).map(|(h, t)| h.chunks_mut((BLOCK * t.rank()).max(1))).collect();
    // A task takes a block of rows, and writes those rows of every h.
    let tasks = (0..n).step_by(BLOCK).map(|first| (first, blocks.iter_mut().map(|h| h.next().unwrap_or_default()).collect::<Vec<_>>()));
    rows::map(tasks.collect(), |(first, hidden)| {
        let x = x.rows_from(first, BLOCK.min(n - first));
        let mut factors = alloc::<S>(x.rows() * d);
        for ((term, a), h) in terms.iter().zip(&packed_a).zip(hidden) {
            let masked = draw_factors(term, first, d, &mut factors);
            gemm_packed(dropped(masked, x, &mut factors), a, h, term.rank(), false);
        }
    });
    hidden.into_iter().zip(terms).map(|(h, t)| Tensor::new(h, [n, t.rank()])).collect()
}

/// Adds drop(dh A) of each term to dx `[n, in]`, which is empty if it is not wanted. Returns [dA, dB] of each term.
pub(super) fn backward<S: Accum>(terms: &[LowRankCotangent], dx: &mut [S]) -> Result<Vec<[Option<Tensor>; 2]>> {
    let passes = terms.iter().map(TermPass::new).collect::<Result<Vec<_>>>()?;
    let (n, d) = (passes[0].dy.rows(), passes[0].cols);
    let mut dx_groups = dx.chunks_mut((GROUP * d).max(1));
    let tasks = (0..n).step_by(GROUP).map(|first| (first, dx_groups.next().unwrap_or_default())).collect();
    let mut parts = rows::map(tasks, |(first, dx)| group(&passes, first, GROUP.min(n - first), dx)).into_iter();
    let mut total = parts.next().unwrap_or_else(|| passes.iter().map(TermPass::zeros).collect());
    for part in parts {
        for (sum, part) in total.iter_mut().flatten().zip(part.iter().flatten()) {
            sum.iter_mut().zip(&**part).for_each(|(s, &p)| *s += p);
        }
    }
    let mut grads = Vec::new();
    for (pass, [da, mut db]) in passes.iter().zip(total) {
        let (r, out) = (pass.term.rank(), pass.dy.cols());
        // The sum is dBᵀ / s.
        db.iter_mut().for_each(|g| *g *= S::of(pass.term.scale));
        grads.push([
            pass.x.map(|_| Tensor::new(da, [r, d])).transpose()?,
            pass.h.map(|_| Tensor::new(Mat::new(&db, r, out).t().to_accum(), [out, r])).transpose()?,
        ]);
    }
    Ok(grads)
}

/// Runs all terms over `n` rows from `first`; `dx` has those rows. Returns their part of [dA, dBᵀ / s] of each term.
fn group<S: Accum>(passes: &[TermPass<S>], first: usize, n: usize, dx: &mut [S]) -> Vec<[Pooled<S>; 2]> {
    let mut sums: Vec<_> = passes.iter().map(TermPass::zeros).collect();
    for at in (0..n).step_by(BLOCK) {
        let rows = BLOCK.min(n - at);
        for (pass, [da, db]) in passes.iter().zip(&mut sums) {
            let dx = dx.get_mut(at * pass.cols..(at + rows) * pass.cols).unwrap_or_default();
            pass.block(first + at, rows, dx, da, db);
        }
    }
    sums
}

/// What backward reads for one term.
struct TermPass<'a, S: Accum> {
    term: &'a LowRankTerm<'a>,
    /// Columns of x and dx.
    cols: usize,
    dy: Mat<'a, S>,
    /// `Some` if dA is needed.
    x: Option<Mat<'a, S>>,
    /// `Some` if dB is needed.
    h: Option<Mat<'a, S>>,
    /// s B.
    scaled_b: Packed<S>,
    a: Packed<S>,
}

impl<'a, S: Accum> TermPass<'a, S> {
    fn new(cotangent: &'a LowRankCotangent<'a>) -> Result<Self> {
        let LowRankCotangent { term, dy, x, h } = cotangent;
        let (dy, a, scaled_b) = (Mat::of(dy)?, Mat::of(&term.a)?, scaled_b::<S>(term)?);
        Ok(TermPass {
            term,
            cols: a.cols(),
            dy,
            x: x.as_ref().map(Mat::of).transpose()?,
            h: h.as_ref().map(Mat::of).transpose()?,
            scaled_b: Packed::new(Mat::new(&scaled_b, dy.cols(), term.rank())),
            a: Packed::new(a),
        })
    }

    /// dA `[r, in]` and dBᵀ `[r, out]` before anything is added; empty if not wanted.
    fn zeros(&self) -> [Pooled<S>; 2] {
        [self.x.map_or(0, |x| x.cols()), self.h.map_or(0, |_| self.dy.cols())].map(|cols| zeroed(self.term.rank() * cols))
    }

    /// One block of `n` rows from `first`; `dx` has those rows.
    fn block(&self, first: usize, n: usize, dx: &mut [S], da: &mut [S], db: &mut [S]) {
        let (r, d) = (self.term.rank(), self.cols);
        let dy = self.dy.rows_from(first, n);
        if let Some(h) = self.h {
            // dBᵀ / s += hᵀ dy
            gemm_serial(h.rows_from(first, n).t(), dy, db, dy.cols(), true);
        }
        if dx.is_empty() && self.x.is_none() {
            return;
        }
        // dh = dy (s B)
        let mut dh = alloc::<S>(n * r);
        gemm_packed(dy, &self.scaled_b, &mut dh, r, false);
        let dh = Mat::new(&dh, n, r);
        let mut factors = alloc::<S>(n * d);
        let masked = draw_factors(self.term, first, d, &mut factors);
        // dx += drop(dh A)
        if masked && !dx.is_empty() {
            let mut through = alloc::<S>(n * d);
            gemm_packed(dh, &self.a, &mut through, d, false);
            vectorised(|| dx.iter_mut().zip(&*through).zip(&*factors).for_each(|((dx, &g), &f)| *dx += f * g));
        } else if !dx.is_empty() {
            gemm_packed(dh, &self.a, dx, d, true);
        }
        // dA += dhᵀ drop(x)
        if let Some(x) = self.x {
            gemm_serial(dh.t(), dropped(masked, x.rows_from(first, n), &mut factors), da, d, true);
        }
    }
}
