//! Packs B into strips of NR columns, each of which the micro-kernel reads from start to end.

use super::blocking::{WORTH_THREADS, tile};
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
    /// Packs `b` in the accumulator type, on the calling thread.
    pub fn new(b: Mat<S>) -> Self {
        Packed::strips(simd::isa(), b, false, false)
    }

    /// Packs `b` on the calling thread for products with matrices of the type of `a`: in pairs if both are bf16 and the processor multiplies bf16,
    /// else in the accumulator type.
    pub fn for_products_of(a: Mat<S>, b: Mat<S>) -> Self {
        Packed::on(simd::isa(), a, b, false)
    }

    /// [`Packed::for_products_of`] on `isa`, with all threads if `parallel`.
    pub(super) fn on(isa: Isa, a: Mat<S>, b: Mat<S>, parallel: bool) -> Self {
        let pairs = isa == Isa::Avx512Bf16 && [a, b].iter().all(|m| matches!(m.data, Elements::BF16(_)));
        Packed::strips(isa, b, pairs, parallel)
    }

    /// Counts the zeros that pad the last strip as columns of B.
    pub fn padded(self) -> Self {
        let [_, nr] = tile::<S>(self.isa, self.n);
        Packed { n: self.n.next_multiple_of(nr), ..self }
    }

    /// Number of columns of B.
    pub fn cols(&self) -> usize {
        self.n
    }

    /// Packs `b`: in pairs if `pairs`, for which it must be bf16.
    fn strips(isa: Isa, b: Mat<S>, pairs: bool, parallel: bool) -> Self {
        let [_, nr] = tile::<S>(isa, b.cols);
        let parallel = parallel && b.rows * b.cols >= WORTH_THREADS;
        let columns = |i: usize| b.cols_from(i * nr, nr.min(b.cols - i * nr));
        let (width, pair_rows) = (b.cols.next_multiple_of(nr), b.rows.next_multiple_of(2));
        let strips = if pairs {
            let mut data = alloc::<bf16>(checked_product(width, pair_rows));
            rows::for_chunks(&mut data, nr * pair_rows, parallel, |i, to| simd::dispatch(Strip { b: columns(i), nr, to }));
            Strips::Pairs(data)
        } else {
            let mut data = alloc::<S>(checked_product(width, b.rows));
            rows::for_chunks(&mut data, nr * b.rows, parallel, |i, to| simd::dispatch(Strip { b: columns(i), nr, to }));
            Strips::Wide(data)
        };
        Packed { strips, k: b.rows, n: b.cols, isa }
    }
}

/// A number of elements. With the columns that pad a strip it can be too large even where B's own is not.
fn checked_product(a: usize, b: usize) -> usize {
    a.checked_mul(b).unwrap_or_else(|| panic!("gemm: {a} times {b} elements are too many to pack"))
}

/// Packs a matrix of at most NR columns as one strip: of elements of type S, or of pairs of bf16.
struct Strip<'a, S: Accum, T> {
    b: Mat<'a, S>,
    nr: usize,
    to: &'a mut [T],
}

impl<S: Accum> Kernel for Strip<'_, S, S> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        match self.b.data {
            Elements::Same(data) => wide_strip(self, data, |x| x),
            Elements::BF16(data) => wide_strip(self, data, |x: bf16| S::of(x.widen().into())),
        }
    }
}

/// Packs a strip of the elements `from`, each converted with `widen`.
#[inline(always)]
fn wide_strip<S: Accum, T: Copy>(Strip { b, nr, to }: Strip<S, S>, from: &[T], widen: impl Fn(T) -> S) {
    if b.col_stride == 1 {
        for (p, to) in to.chunks_exact_mut(nr).enumerate() {
            prefetch_ahead(from, p * b.row_stride, b.row_stride, b.cols);
            let from = &from[p * b.row_stride..][..b.cols];
            if b.cols == nr && nr.is_multiple_of(GROUP) {
                // A group is read as a whole before it is written, and so becomes vector moves: the compiler need not know that the slices do not
                // overlap. Loops, because the closures of iterator methods may be compiled for another instruction set.
                for (to, from) in to.as_chunks_mut::<GROUP>().0.iter_mut().zip(from.as_chunks::<GROUP>().0) {
                    let mut group = [S::ZERO; GROUP];
                    for i in 0..GROUP {
                        group[i] = widen(from[i]);
                    }
                    *to = group;
                }
            } else {
                to.iter_mut().zip(from).for_each(|(to, &x)| *to = widen(x));
                to[b.cols..].fill(S::ZERO);
            }
        }
        return;
    }
    let at = |p: usize, j: usize| if j < b.cols { widen(from[p * b.row_stride + j * b.col_stride]) } else { S::ZERO };
    turned(b.cols, nr, to, |j| &from[j * b.col_stride..][..b.rows], &widen, at);
}

/// Packs a column-major matrix. The first `whole` columns may be read with `column`, and are transposed in groups. The others are read with `at`:
/// row, column.
#[inline(always)]
fn turned<'a, T: Copy + 'a, U: Copy>(
    whole: usize,
    nr: usize,
    to: &mut [U],
    column: impl Fn(usize) -> &'a [T],
    convert: impl Fn(T) -> U,
    at: impl Fn(usize, usize) -> U,
) {
    for j0 in (0..nr).step_by(GROUP) {
        if j0 + GROUP <= whole {
            transpose(std::array::from_fn(|j| column(j0 + j)), &mut to[j0..], nr, &convert);
            continue;
        }
        for (p, to) in to.chunks_exact_mut(nr).enumerate() {
            for (j, to) in to.iter_mut().enumerate().skip(j0).take(GROUP) {
                *to = at(p, j);
            }
        }
    }
}

impl<S: Accum> Kernel for Strip<'_, S, bf16> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Strip { b, nr, to } = self;
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
        // A pair of rows is read as one element, which an odd number of rows does not allow.
        let whole = if b.rows.is_multiple_of(2) { b.cols } else { 0 };
        turned(whole, nr, to, |j| from[j * b.col_stride..][..b.rows].as_chunks::<2>().0, |pair| pair, pair);
    }
}

/// Whether products of bf16 matrices are computed in pairs of bf16. If not, bf16 is widened, and a caller need not round to it.
pub fn multiplies_pairs() -> bool {
    simd::isa() == Isa::Avx512Bf16
}
