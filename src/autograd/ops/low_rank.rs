//! The low-rank terms of [`super::Linear`], in two passes that touch what is large once: x in forward; dy, x and dx in backward.

use super::linear::Term;
use crate::Result;
use crate::autograd::Saved;
use crate::tensor::gemm::{Init, Mat, Packed, Threads, gemm_packed, gemm_serial, gemm_sum};
use crate::tensor::simd::vectorised;
use crate::tensor::{Accum, Pooled, Sequences, Tensor, alloc, rows, zeroed};

/// Rows that are taken at a time: they stay in the second-level cache.
const BLOCK: usize = 32;
/// Rows whose part of dA and dB is summed by one task.
const GROUP: usize = 8 * BLOCK;

/// A term, the member it belongs to, and where its A and B are in the op's inputs.
pub(super) struct Placed<'a> {
    pub member: usize,
    pub term: &'a Term,
    pub a: usize,
    pub b: usize,
}

impl Placed<'_> {
    /// Writes the dropout factors of the rows `first..`; false if nothing is dropped.
    fn factors<S: Accum>(&self, sequences: Option<&Sequences>, first: usize, cols: usize, out: &mut [S]) -> bool {
        let (Some(mask), Some(sequences)) = (&self.term.mask, sequences) else { return false };
        mask.factor_rows(sequences, first, cols, out);
        true
    }
}

/// s B.
pub(super) fn scaled<S: Accum>(b: &Tensor, scale: f64) -> Result<Pooled<S>> {
    let mut b = b.to_accum::<S>()?;
    b.iter_mut().for_each(|b| *b *= S::of(scale));
    Ok(b)
}

/// h = drop(x) Aᵀ of every term, side by side: `[n, Σ r]`.
pub(super) fn hidden<S: Accum>(terms: &[Placed], inputs: &[&Tensor], x: Mat<S>, sequences: Option<&Sequences>) -> Result<Option<Tensor>> {
    let (n, d) = (x.rows(), x.cols());
    let packed: Vec<_> = terms.iter().map(|t| Ok(Packed::new(Mat::of(inputs[t.a])?.t(), Threads::Serial))).collect::<Result<_>>()?;
    let ranks: Vec<usize> = terms.iter().map(|t| inputs[t.a].shape().rows()).collect();
    let width: usize = ranks.iter().sum();
    if width == 0 {
        return Ok(None);
    }
    let mut h = alloc::<S>(n * width);
    rows::for_chunks(&mut h, BLOCK * width, true, |i, h| {
        let x = x.rows_from(i * BLOCK, h.len() / width);
        let mut dropped = alloc::<S>(x.rows() * d);
        let mut column = 0;
        for ((t, a), r) in terms.iter().zip(&packed).zip(&ranks) {
            let masked = t.factors(sequences, i * BLOCK, d, &mut dropped);
            if masked {
                x.scale(&mut dropped);
            }
            let x = if masked { Mat::new(&dropped, x.rows(), d) } else { x };
            gemm_packed(&[(x, a)], Init::Zero, &mut h[column..], width, Threads::Serial);
            column += r;
        }
    });
    Ok(Some(Tensor::new(h, [n, width])?))
}

/// What backward reads of one term.
struct Prepared<'a, S: Accum> {
    placed: &'a Placed<'a>,
    /// r and the width of x.
    dims: [usize; 2],
    /// First column of its h.
    column: usize,
    /// s B, if dh is wanted.
    b: Option<Packed<S>>,
    /// A, if dx is wanted.
    a: Option<Packed<S>>,
}

/// What backward reads of all.
struct Backward<'a, S: Accum> {
    terms: Vec<Prepared<'a, S>>,
    dy: Vec<Mat<'a, S>>,
    x: Option<Mat<'a, S>>,
    h: Option<Mat<'a, S>>,
    sequences: Option<&'a Sequences>,
    needs: &'a [bool],
}

/// Adds f ⊙ (dh A) to dx, and writes dA = dhᵀ (f ⊙ x) and dB = s dyᵀ h to `grads`, with dh = s dy B. Each mask is drawn once.
#[allow(clippy::too_many_arguments)] // What the op has at hand.
pub(super) fn backward<S: Accum>(
    terms: &[Placed],
    mut saved: Saved,
    dy: &[Tensor],
    x: Option<&Tensor>,
    sequences: Option<&Sequences>,
    needs: &[bool],
    dx: &mut [S],
    grads: &mut [Option<Tensor>],
) -> Result<()> {
    let h = saved.take("h").ok();
    let mut prepared = Vec::new();
    let mut column = 0;
    for placed in terms {
        let a = saved.take("a")?;
        let dims = [a.shape().rows(), a.shape().cols()];
        let b = if needs[0] || needs[placed.a] { Some(scaled::<S>(&saved.take("b")?, placed.term.scale)?) } else { None };
        let b = b.map(|b| Packed::new(Mat::new(&b, b.len() / dims[0], dims[0]), Threads::Serial));
        let a = if needs[0] { Some(Packed::new(Mat::of(&a)?, Threads::Serial)) } else { None };
        prepared.push(Prepared { placed, dims, column, b, a });
        column += dims[0];
    }
    let (n, d) = (dy[0].shape().rows(), prepared[0].dims[1]);
    let pass = Backward {
        terms: prepared,
        dy: dy.iter().map(Mat::of).collect::<Result<_>>()?,
        x: x.map(Mat::of).transpose()?,
        h: h.as_ref().map(Mat::of).transpose()?,
        sequences,
        needs,
    };
    let mut pieces = dx.chunks_mut((GROUP * d).max(1));
    let groups = (0..n.div_ceil(GROUP)).map(|g| (g * GROUP, pieces.next().unwrap_or_default())).collect();
    let mut parts = rows::map(groups, |(first, dx)| pass.group(first, GROUP.min(n - first), dx)).into_iter();
    let mut total = parts.next().unwrap_or_else(|| pass.zeros());
    for part in parts {
        let pairs = total.iter_mut().flatten().zip(part.iter().flatten());
        pairs.for_each(|(sum, part)| sum.iter_mut().zip(&**part).for_each(|(s, &p)| *s += p));
    }
    for (t, [da, mut db]) in pass.terms.iter().zip(total) {
        let (p, out) = (t.placed, dy[t.placed.member].shape().cols());
        if needs[p.a] {
            grads[p.a] = Some(Tensor::new(da, t.dims)?);
        }
        if needs[p.b] {
            // The sum is dBᵀ / s.
            db.iter_mut().for_each(|g| *g *= S::of(p.term.scale));
            grads[p.b] = Some(Tensor::new(Mat::new(&db, t.dims[0], out).t().to_accum(), [out, t.dims[0]])?);
        }
    }
    Ok(())
}

impl<S: Accum> Backward<'_, S> {
    /// dA `[r, d]` and dBᵀ `[r, out]` of each term before anything is added; empty where not wanted.
    fn zeros(&self) -> Vec<[Pooled<S>; 2]> {
        let size = |need: bool, len: usize| zeroed::<S>(if need { len } else { 0 });
        let of = |t: &Prepared<S>| {
            let [r, d] = t.dims;
            [size(self.needs[t.placed.a], r * d), size(self.needs[t.placed.b], r * self.dy[t.placed.member].cols())]
        };
        self.terms.iter().map(of).collect()
    }

    /// The part of `n` rows from `first`; `dx` holds those rows.
    fn group(&self, first: usize, n: usize, dx: &mut [S]) -> Vec<[Pooled<S>; 2]> {
        let mut sums = self.zeros();
        for at in (0..n).step_by(BLOCK) {
            let rows = BLOCK.min(n - at);
            for (t, [da, db]) in self.terms.iter().zip(&mut sums) {
                let dx = dx.get_mut(at * t.dims[1]..(at + rows) * t.dims[1]).unwrap_or_default();
                self.block(t, first + at, rows, dx, da, db);
            }
        }
        sums
    }

    fn block(&self, t: &Prepared<S>, first: usize, n: usize, dx: &mut [S], da: &mut [S], db: &mut [S]) {
        let [r, d] = t.dims;
        let dy = self.dy[t.placed.member].rows_from(first, n);
        if let (true, Some(h)) = (self.needs[t.placed.b], self.h) {
            let h = h.rows_from(first, n).cols_from(t.column, r);
            gemm_sum(&[(h.t(), dy)], Init::Keep, db, dy.cols(), Threads::Serial);
        }
        let Some(b) = &t.b else { return };
        let mut dh = alloc::<S>(n * r);
        gemm_packed(&[(dy, b)], Init::Zero, &mut dh, r, Threads::Serial);
        let dh = Mat::new(&dh, n, r);
        let mut factors = alloc::<S>(n * d);
        let masked = t.placed.factors(self.sequences, first, d, &mut factors);
        match &t.a {
            Some(a) if masked => {
                let mut through = alloc::<S>(n * d);
                gemm_packed(&[(dh, a)], Init::Zero, &mut through, d, Threads::Serial);
                vectorised(|| dx.iter_mut().zip(&*through).zip(&*factors).for_each(|((dx, &g), &f)| *dx += f * g));
            }
            Some(a) => gemm_packed(&[(dh, a)], Init::Keep, dx, d, Threads::Serial),
            None => {}
        }
        if let (true, Some(x)) = (self.needs[t.placed.a], self.x) {
            let x = x.rows_from(first, n);
            if masked {
                x.scale(&mut factors);
            }
            let x = if masked { Mat::new(&factors, n, d) } else { x };
            gemm_serial(dh.t(), x, da, d, true);
        }
    }
}
