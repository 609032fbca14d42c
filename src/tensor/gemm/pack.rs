//! Packs B into strips of NR columns, each of which the micro-kernel reads from start to end.

use super::blocking::{Threads, WORTH_THREADS, tile};
use super::mat::Mat;
use super::transpose::{GROUP, prefetch_ahead, transpose};
use crate::tensor::element::Elements;
use crate::tensor::simd::{self, Isa, Kernel};
use crate::tensor::{Accum, Pooled, Scalar, alloc, rows};
use half::bf16;

/// B `[k, n]` in strips of NR columns. The last strip is padded with zeros.
pub struct Packed<S: Accum> {
    pub(super) strips: Strips<S>,
    pub(super) k: usize,
    pub(super) n: usize,
    /// The instruction set whose NR was used.
    pub(super) isa: Isa,
}

/// The two layouts of strips.
pub(super) enum Strips<S: Accum> {
    /// Elements of the accumulator type: (p, j) is at `[j / NR][p][j % NR]`.
    Wide(Pooled<S>),
    /// bf16 in pairs of neighbours in a column: (p, j) is at `[j / NR][p / 2][j % NR][p % 2]`. If k is odd, the last pairs are padded with zeros.
    Pairs(Pooled<bf16>),
}

impl<S: Accum> Packed<S> {
    /// Packs `b` in the accumulator type.
    pub fn new(b: Mat<S>, threads: Threads) -> Self {
        Packed::strips(simd::isa(), b, false, threads)
    }

    /// Packs `b` for products with matrices of the type of `a`: in pairs if both are bf16 and the processor multiplies bf16, else in the
    /// accumulator type.
    pub fn for_products_of(a: Mat<S>, b: Mat<S>, threads: Threads) -> Self {
        Packed::on(simd::isa(), a, b, threads)
    }

    /// [`Packed::for_products_of`] on `isa`.
    pub(super) fn on(isa: Isa, a: Mat<S>, b: Mat<S>, threads: Threads) -> Self {
        let pairs = isa == Isa::Avx512Bf16 && [a, b].iter().all(|m| matches!(m.data, Elements::BF16(_)));
        Packed::strips(isa, b, pairs, threads)
    }

    /// Packs `b`: in pairs if `pairs` and it is bf16.
    fn strips(isa: Isa, b: Mat<S>, pairs: bool, threads: Threads) -> Self {
        let [_, nr] = tile::<S>(isa, b.cols);
        let parallel = threads == Threads::Parallel && b.rows * b.cols >= WORTH_THREADS;
        let strip = |i: usize| (b.cols_from(i * nr, nr.min(b.cols - i * nr)), nr);
        let width = b.cols.next_multiple_of(nr);
        let strips = match b.data {
            Elements::BF16(_) if pairs => {
                let k = b.rows.next_multiple_of(2);
                let mut data = alloc::<bf16>(checked_product(width, k));
                rows::for_chunks(&mut data, nr * k, parallel, |i, to| simd::dispatch(PairStrip(strip(i), to)));
                Strips::Pairs(data)
            }
            _ => {
                let mut data = alloc::<S>(checked_product(width, b.rows));
                rows::for_chunks(&mut data, nr * b.rows, parallel, |i, to| simd::dispatch(WideStrip(strip(i), to)));
                Strips::Wide(data)
            }
        };
        Packed { strips, k: b.rows, n: b.cols, isa }
    }
}

/// A number of elements. With the columns that pad a strip it can be too large even where B's own is not.
fn checked_product(a: usize, b: usize) -> usize {
    a.checked_mul(b).unwrap_or_else(|| panic!("gemm: {a} times {b} elements are too many to pack"))
}

/// Packs a matrix of at most NR columns as one strip. The first field is (matrix, NR).
struct WideStrip<'a, S: Accum>((Mat<'a, S>, usize), &'a mut [S]);

impl<S: Accum> Kernel for WideStrip<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let WideStrip((b, nr), to) = self;
        match b.data {
            Elements::Same(data) => wide_strip(b, data, nr, to, |x| x),
            Elements::BF16(data) => wide_strip(b, data, nr, to, |x: bf16| S::of(x.widen().into())),
        }
    }
}

/// Packs `b`, whose elements are `from`, as one strip of `nr` columns, and converts each element with `widen`.
#[inline(always)]
fn wide_strip<S: Accum, T: Copy>(b: Mat<S>, from: &[T], nr: usize, to: &mut [S], widen: impl Fn(T) -> S) {
    if b.col_stride == 1 {
        for (p, to) in to.chunks_exact_mut(nr).enumerate() {
            prefetch_ahead(from, p * b.row_stride, b.row_stride, b.cols);
            let from = &from[p * b.row_stride..][..b.cols];
            if b.cols == nr && nr.is_multiple_of(GROUP) {
                // Groups of a fixed size become vector moves. A loop, because the closures of iterator methods may be compiled for another
                // instruction set.
                for (to, from) in to.as_chunks_mut::<GROUP>().0.iter_mut().zip(from.as_chunks::<GROUP>().0) {
                    for (to, &x) in to.iter_mut().zip(from) {
                        *to = widen(x);
                    }
                }
            } else {
                to.iter_mut().zip(from).for_each(|(to, &x)| *to = widen(x));
                to[b.cols..].fill(S::ZERO);
            }
        }
        return;
    }
    for j0 in (0..nr).step_by(GROUP) {
        if b.cols >= j0 + GROUP {
            transpose(std::array::from_fn(|j| &from[(j0 + j) * b.col_stride..][..b.rows]), &mut to[j0..], nr, &widen);
        } else {
            for (p, to) in to.chunks_exact_mut(nr).enumerate() {
                for (j, to) in to.iter_mut().enumerate().skip(j0).take(GROUP) {
                    *to = if j < b.cols { widen(from[p * b.row_stride + j * b.col_stride]) } else { S::ZERO };
                }
            }
        }
    }
}

/// Packs a bf16 matrix of at most NR columns as one strip of pairs. The first field is (matrix, NR).
struct PairStrip<'a, S: Accum>((Mat<'a, S>, usize), &'a mut [bf16]);

impl<S: Accum> Kernel for PairStrip<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let PairStrip((b, nr), to) = self;
        let Elements::BF16(from) = b.data else { return };
        let to = to.as_chunks_mut::<2>().0;
        let at = |p: usize, j: usize| if p < b.rows && j < b.cols { from[p * b.row_stride + j * b.col_stride] } else { bf16::ZERO };
        let pair = |q: usize, j: usize| [at(2 * q, j), at(2 * q + 1, j)];
        if b.col_stride == 1 {
            for (q, to) in to.chunks_exact_mut(nr).enumerate() {
                if 2 * q + 1 == b.rows {
                    to.iter_mut().enumerate().for_each(|(j, to)| *to = pair(q, j));
                    continue;
                }
                let row = |p: usize| &from[p * b.row_stride..][..b.cols];
                let (first, second) = (row(2 * q), row(2 * q + 1));
                prefetch_ahead(from, 2 * q * b.row_stride, b.row_stride, b.cols);
                prefetch_ahead(from, (2 * q + 1) * b.row_stride, b.row_stride, b.cols);
                for ((to, &x), &y) in to.iter_mut().zip(first).zip(second) {
                    *to = [x, y];
                }
                to[b.cols..].fill([bf16::ZERO; 2]);
            }
            return;
        }
        for j0 in (0..nr).step_by(GROUP) {
            if b.row_stride == 1 && b.cols >= j0 + GROUP && b.rows.is_multiple_of(2) {
                let column = |j: usize| from[(j0 + j) * b.col_stride..][..b.rows].as_chunks::<2>().0;
                transpose(std::array::from_fn(column), &mut to[j0..], nr, |pair| pair);
                continue;
            }
            for (q, to) in to.chunks_exact_mut(nr).enumerate() {
                for (j, to) in to.iter_mut().enumerate().skip(j0).take(GROUP) {
                    *to = pair(q, j);
                }
            }
        }
    }
}
