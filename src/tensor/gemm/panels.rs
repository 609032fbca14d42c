//! Blocks of A for the micro-kernel: read in place, or copied.

use super::blocking::LINE;
use super::mat::Mat;
use super::micro::Operand;
use super::transpose::prefetch_ahead;
use crate::tensor::element::Elements;
use crate::tensor::{Accum, Pooled, Scalar, alloc};
use half::bf16;

/// A block of A for micro-kernels that take MR rows at a time: the matrix itself, or a copy.
pub(super) struct Panels<T> {
    data: *const T,
    /// Elements from one panel of MR rows to the next.
    group: usize,
    /// Elements from one row of a panel to the next.
    row: usize,
    /// Elements from one read of the micro-kernel in a row to the next. It reads one element, or a pair.
    pub step: usize,
    /// Index of the last row.
    last: usize,
}

/// Reads of each element of a transposed A that are worth a copy.
const WORTH_COPY: usize = 128;

impl<T: Copy> Panels<T> {
    /// Rows at a fixed distance of `stride` elements.
    fn plain(data: *const T, stride: usize, step: usize, rows: usize, mr: usize) -> Self {
        Panels { data, group: mr * stride, row: stride, step, last: rows - 1 }
    }

    /// The addresses of the MR rows from i on, a multiple of MR. After the last row, its address is repeated.
    #[inline(always)]
    pub fn rows<const MR: usize>(&self, i: usize) -> [*const T; MR] {
        std::array::from_fn(|r| self.data.wrapping_add(i / MR * self.group + r.min(self.last - i) * self.row))
    }
}

impl<S: Accum> Panels<S> {
    /// A in the accumulator type; each element will be read `reads` times. `Mat` guarantees that all rows and columns lie in its data.
    #[inline(always)]
    pub fn wide<const MR: usize>(a: Mat<S>, reads: usize, buffer: &mut Pooled<S>) -> Self {
        if let Elements::Same(data) = a.data
            && (a.col_stride == 1 || reads < WORTH_COPY)
        {
            return Panels::plain(data.as_ptr(), a.row_stride, a.col_stride, a.rows, MR);
        }
        match a.data {
            Elements::Same(data) => copy::<S, S, S, MR>(a, data, buffer, |x| x),
            Elements::BF16(data) => copy::<S, bf16, S, MR>(a, data, buffer, |x: bf16| S::of(x.widen().into())),
        }
    }
}

impl Panels<bf16> {
    /// A in pairs of bf16. `data` are the elements of `a`.
    #[inline(always)]
    pub fn pairs<S: Accum, const MR: usize>(a: Mat<S>, data: &[bf16], buffer: &mut Pooled<bf16>) -> Self {
        if a.col_stride == 1 && a.cols.is_multiple_of(2) {
            return Panels::plain(data.as_ptr(), a.row_stride, 2, a.rows, MR);
        }
        copy::<S, bf16, bf16, MR>(a, data, buffer, |x| x)
    }
}

/// Copies a block of A to the start of `to`, which grows if it is too short. Zeros pad the columns to a multiple of P = `T::AT_ONCE`.
///
/// A row-major block stays row-major. A column-major block becomes panels of MR rows: element (i, p) goes to `[i / MR][p / P][i % MR][p % P]`.
#[inline(always)]
fn copy<S: Accum, U: Copy, T: Operand<S>, const MR: usize>(
    a: Mat<S>,
    from: &[U],
    to: &mut Pooled<T>,
    convert: impl Fn(U) -> T,
) -> Panels<T> {
    let (at_once, cols) = (T::AT_ONCE, a.cols.max(1).next_multiple_of(T::AT_ONCE));
    // One cache line more than a panel has: panels a multiple of 4 KiB apart would fall on the same lines of the first-level cache.
    let panel = MR * cols + LINE / size_of::<T>();
    let room = a.rows.div_ceil(MR) * panel;
    if to.len() < room {
        *to = alloc(room);
    }
    if a.col_stride == 1 {
        for (i, to) in to.chunks_exact_mut(cols).take(a.rows).enumerate() {
            // A loop, because the closures of iterator methods may be compiled for another instruction set.
            for (to, &x) in to.iter_mut().zip(&from[i * a.row_stride..][..a.cols]) {
                *to = convert(x);
            }
            to[a.cols..].fill(T::default());
        }
        return Panels::plain(to.as_ptr(), cols, at_once, a.rows, MR);
    }
    let column = |p: usize| if p < a.cols { &from[p * a.col_stride..][..a.rows] } else { &[] };
    for p in (0..cols).step_by(at_once) {
        (p..p + at_once).for_each(|p| prefetch_ahead(from, p * a.col_stride, a.col_stride, a.rows));
        let columns: [&[U]; 2] = [column(p), if at_once == 2 { column(p + 1) } else { &[] }];
        let [first, second] = columns.map(|column| column.as_chunks::<MR>().0);
        // Whole groups of MR rows.
        let whole = if at_once == 2 { first.len().min(second.len()) } else { first.len() };
        for group in 0..whole {
            let to = &mut to[group * panel + p * MR..][..MR * at_once];
            if at_once == 1 {
                for i in 0..MR {
                    to[i] = convert(first[group][i]);
                }
            } else {
                for i in 0..MR {
                    to[2 * i] = convert(first[group][i]);
                    to[2 * i + 1] = convert(second[group][i]);
                }
            }
        }
        for i in whole * MR..a.rows.next_multiple_of(MR) {
            for (q, column) in columns[..at_once].iter().enumerate() {
                to[i / MR * panel + p * MR + i % MR * at_once + q] = column.get(i).map_or(T::default(), |&x| convert(x));
            }
        }
    }
    Panels { data: to.as_ptr(), group: panel, row: at_once, step: MR * at_once, last: a.rows - 1 }
}
