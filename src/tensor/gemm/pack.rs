//! The operands of the micro-kernels: B in strips, A where it lies or copied.

use super::micro::Operand;
use super::{Elements, LINE, Mat, Threads, WORTH_THREADS, tile};
use crate::tensor::simd::{self, Isa, Kernel};
use crate::tensor::{Accum, Pooled, Scalar, alloc, rows};
use half::bf16;

/// B `[k, n]` in strips of `NR` columns; the last strip ends in zeros.
pub struct Packed<S: Accum> {
    pub(super) strips: Strips<S>,
    pub(super) k: usize,
    pub(super) n: usize,
    /// What it was packed for.
    pub(super) isa: Isa,
}

/// What a product multiplies.
pub(super) enum Strips<S: Accum> {
    /// Numbers in the type of sums: element (p, j) is at `[j / NR][p][j % NR]`.
    Wide(Pooled<S>),
    /// bf16, two consecutive numbers of a column side by side: element (p, j) is at `[j / NR][p / 2][j % NR][p % 2]`. A zero follows the
    /// last row of an odd number.
    Pairs(Pooled<bf16>),
}

impl<S: Accum> Packed<S> {
    /// Packs `b` in the type of sums.
    pub fn new(b: Mat<S>, threads: Threads) -> Self {
        Packed::strips(simd::isa(), b, false, threads)
    }

    /// Packs `b` for products of matrices like `a` and it: in pairs where both are bf16 and the processor multiplies those. Every A must
    /// then have the type of `a`.
    pub fn for_products_of(a: Mat<S>, b: Mat<S>, threads: Threads) -> Self {
        Packed::on(simd::isa(), a, b, threads)
    }

    /// [`Packed::for_products_of`] on `isa`.
    pub(super) fn on(isa: Isa, a: Mat<S>, b: Mat<S>, threads: Threads) -> Self {
        let pairs = isa == Isa::Avx512Bf16 && [a, b].iter().all(|m| matches!(m.data, Elements::BF16(_)));
        Packed::strips(isa, b, pairs, threads)
    }

    /// Packs `b`, in pairs only if it is bf16.
    fn strips(isa: Isa, b: Mat<S>, pairs: bool, threads: Threads) -> Self {
        let [_, nr] = tile::<S>(isa, b.cols);
        let parallel = threads == Threads::Parallel && b.rows * b.cols >= WORTH_THREADS;
        let strip = |i: usize| (b.cols_from(i * nr, nr.min(b.cols - i * nr)), nr);
        let width = b.cols.next_multiple_of(nr);
        let strips = match b.data {
            Elements::BF16(_) if pairs => {
                let k = b.rows.next_multiple_of(2);
                let mut data = alloc::<bf16>(width * k);
                rows::for_chunks(&mut data, nr * k, parallel, |i, to| simd::dispatch(PairStrip(strip(i), to)));
                Strips::Pairs(data)
            }
            _ => {
                let mut data = alloc::<S>(width * b.rows);
                rows::for_chunks(&mut data, nr * b.rows, parallel, |i, to| simd::dispatch(WideStrip(strip(i), to)));
                Strips::Wide(data)
            }
        };
        Packed { strips, k: b.rows, n: b.cols, isa }
    }
}

/// Packs columns, at most as many as the second number says.
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

/// Asks for `len` numbers that will be read some strides after `at`: they are on pages of their own, where no hardware looks ahead.
#[inline(always)]
fn look_ahead<T>(from: &[T], at: usize, stride: usize, len: usize) {
    const STRIDES: usize = 16;
    let ahead = from.as_ptr().wrapping_add(at + STRIDES * stride);
    (0..len).step_by(LINE / size_of::<T>()).for_each(|i| simd::prefetch(ahead.wrapping_add(i)));
}

/// Columns that are packed at a time: so many lines of B stay in the first-level cache while their numbers are used up. As many numbers of 32 bits fill
/// a register of AVX-512.
const GROUP: usize = 16;

#[inline(always)]
fn wide_strip<S: Accum, T: Copy>(b: Mat<S>, from: &[T], nr: usize, to: &mut [S], widen: impl Fn(T) -> S) {
    if b.col_stride == 1 {
        for (p, to) in to.chunks_exact_mut(nr).enumerate() {
            look_ahead(from, p * b.row_stride, b.row_stride, b.cols);
            let from = &from[p * b.row_stride..][..b.cols];
            if b.cols == nr && nr.is_multiple_of(GROUP) {
                // Groups of a fixed size become vector moves; a loop, since what iterators call may be compiled for another instruction set.
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

/// Element p of column j goes to `to[p * nr + j]`.
#[inline(always)]
fn transpose<T: Copy, U: Copy>(columns: [&[T]; GROUP], to: &mut [U], nr: usize, convert: impl Fn(T) -> U) {
    let len = columns[0].len();
    #[allow(unused_mut)]
    let mut done = 0;
    // Types of 32 bits here are f32, or a pair of bf16, on both sides, and `convert` changes nothing.
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() == 4 && size_of::<U>() == 4 && simd::isa() >= Isa::Avx512 && len >= GROUP {
        done = len / GROUP * GROUP;
        assert!(columns.iter().all(|c| c.len() == len) && (done - 1) * nr + GROUP <= to.len());
        for p in (0..done).step_by(GROUP) {
            let columns = columns.map(|column| column[p..].as_ptr().cast());
            // SAFETY: from p on, columns and rows have a group more, as asserted, and a row has room for one; the processor has AVX-512.
            unsafe { x86::transpose(columns, to[p * nr..].as_mut_ptr().cast(), nr) };
        }
    }
    for (p, to) in to.chunks_mut(nr).enumerate().take(len).skip(done) {
        for (to, column) in to.iter_mut().zip(&columns) {
            *to = convert(column[p]);
        }
    }
}

/// Packs pairs of at most as many columns as the second number says.
struct PairStrip<'a, S: Accum>((Mat<'a, S>, usize), &'a mut [bf16]);

impl<S: Accum> Kernel for PairStrip<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let PairStrip((b, nr), to) = self;
        let Elements::BF16(from) = b.data else { return };
        let to = to.as_chunks_mut::<2>().0;
        if b.col_stride == 1 {
            for (q, to) in to.chunks_exact_mut(nr).enumerate() {
                let first = &from[2 * q * b.row_stride..][..b.cols];
                look_ahead(from, 2 * q * b.row_stride, b.row_stride, b.cols);
                look_ahead(from, (2 * q + 1) * b.row_stride, b.row_stride, b.cols);
                if 2 * q + 1 < b.rows {
                    let second = &from[(2 * q + 1) * b.row_stride..][..b.cols];
                    for ((to, &x), &y) in to.iter_mut().zip(first).zip(second) {
                        *to = [x, y];
                    }
                } else {
                    for (to, &x) in to.iter_mut().zip(first) {
                        *to = [x, bf16::ZERO];
                    }
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
                    let at = |p: usize| if p < b.rows && j < b.cols { from[p * b.row_stride + j * b.col_stride] } else { bf16::ZERO };
                    *to = [at(2 * q), at(2 * q + 1)];
                }
            }
        }
    }
}

/// A block of A, as large as a task takes at a time, for micro-kernels of `MR` rows: where it lies, or copied so that they read it in one go.
pub(super) struct Rows<T> {
    data: *const T,
    /// Elements from one group of `MR` rows to the next, and from one row of a group to the next.
    group: usize,
    row: usize,
    /// Elements from what a micro-kernel reads of a row at once to the next: one number or a pair.
    pub step: usize,
    last: usize,
}

/// Uses of a number of a transposed A that are worth copying it.
const WORTH_COPY: usize = 128;

impl<T: Copy> Rows<T> {
    /// Every row `stride` after the one before.
    fn plain(data: *const T, stride: usize, step: usize, rows: usize, mr: usize) -> Self {
        Rows { data, group: mr * stride, row: stride, step, last: rows - 1 }
    }

    /// Where the rows i.. start, i a multiple of `MR`; the last again where there are no more.
    #[inline(always)]
    pub fn starts<const MR: usize>(&self, i: usize) -> [*const T; MR] {
        std::array::from_fn(|r| self.data.wrapping_add(i / MR * self.group + r.min(self.last - i) * self.row))
    }

    /// Asks for `len` numbers of each of the rows i.., if there are any.
    #[inline(always)]
    pub fn ask_for<const MR: usize>(&self, i: usize, len: usize) {
        if i <= self.last {
            for row in self.starts::<MR>(i) {
                (0..len).step_by(LINE / size_of::<T>()).for_each(|p| simd::prefetch(row.wrapping_add(p)));
            }
        }
    }
}

impl<S: Accum> Rows<S> {
    /// A's numbers in the type of sums, each to be read `reads` times. The constructor of `Mat` checked that rows and columns lie in the data.
    #[inline(always)]
    pub fn wide<const MR: usize>(a: Mat<S>, reads: usize, buffer: &mut Pooled<S>) -> Self {
        if let Elements::Same(data) = a.data
            && (a.col_stride == 1 || reads < WORTH_COPY)
        {
            return Rows::plain(data.as_ptr(), a.row_stride, a.col_stride, a.rows, MR);
        }
        match a.data {
            Elements::Same(data) => copy::<S, S, S, MR>(a, data, buffer, |x| x),
            Elements::BF16(data) => copy::<S, bf16, S, MR>(a, data, buffer, |x: bf16| S::of(x.widen().into())),
        }
    }
}

impl Rows<bf16> {
    /// A's numbers in pairs. `data` are those of `a`.
    #[inline(always)]
    pub fn pairs<S: Accum, const MR: usize>(a: Mat<S>, data: &[bf16], buffer: &mut Pooled<bf16>) -> Self {
        if a.col_stride == 1 && a.cols.is_multiple_of(2) {
            return Rows::plain(data.as_ptr(), a.row_stride, 2, a.rows, MR);
        }
        copy::<S, bf16, bf16, MR>(a, data, buffer, |x| x)
    }
}

/// Copies a block of A for micro-kernels to `to`, made longer if need be, its columns filled up with zeros to a multiple of P = `AT_ONCE`.
///
/// What lies row by row stays so. What lies column by column goes to groups of `MR` rows: element (i, p) to
/// `[i / MR][p / P][i % MR][p % P]`.
#[inline(always)]
fn copy<S: Accum, U: Copy, T: Operand<S>, const MR: usize>(a: Mat<S>, from: &[U], to: &mut Pooled<T>, convert: impl Fn(U) -> T) -> Rows<T> {
    let (at_once, cols) = (T::AT_ONCE, a.cols.max(1).next_multiple_of(T::AT_ONCE));
    let apart = MR * cols;
    let room = a.rows.div_ceil(MR) * apart;
    if to.len() < room {
        *to = alloc(room);
    }
    if a.col_stride == 1 {
        for (i, to) in to.chunks_exact_mut(cols).take(a.rows).enumerate() {
            to.iter_mut().zip(&from[i * a.row_stride..][..a.cols]).for_each(|(to, &x)| *to = convert(x));
            to[a.cols..].fill(T::default());
        }
        return Rows::plain(to.as_ptr(), cols, at_once, a.rows, MR);
    }
    let column = |p: usize| if p < a.cols { &from[p * a.col_stride..][..a.rows] } else { &[] };
    for p in (0..cols).step_by(at_once) {
        (p..p + at_once).for_each(|p| look_ahead(from, p * a.col_stride, a.col_stride, a.rows));
        let (first, second) = (column(p), if at_once == 2 { column(p + 1) } else { &[] });
        for (group, to) in to.chunks_exact_mut(apart).take(a.rows.div_ceil(MR)).enumerate() {
            let to = &mut to[p * MR..][..MR * at_once];
            let [x, y] = [first, second].map(|column| column.get(group * MR..).unwrap_or_default());
            match (x.first_chunk::<MR>(), y.first_chunk::<MR>()) {
                (Some(x), _) if at_once == 1 => {
                    for i in 0..MR {
                        to[i] = convert(x[i]);
                    }
                }
                (Some(x), Some(y)) => {
                    for i in 0..MR {
                        to[2 * i] = convert(x[i]);
                        to[2 * i + 1] = convert(y[i]);
                    }
                }
                _ => {
                    for (at, to) in to.iter_mut().enumerate() {
                        let column = if at % at_once == 0 { x } else { y };
                        *to = column.get(at / at_once).map_or(T::default(), |&x| convert(x));
                    }
                }
            }
        }
    }
    Rows { data: to.as_ptr(), group: apart, row: at_once, step: MR * at_once, last: a.rows - 1 }
}

/// With AVX-512.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::GROUP;
    use std::arch::x86_64::*;

    /// Number j of `rows[i]` goes to `to[j * stride + i]`: groups of 1, 2, 4 and 8 numbers change places in turn.
    ///
    /// # Safety
    /// Each row has `GROUP` numbers of 32 bits, and `to` has room for as many rows.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn transpose(rows: [*const i32; GROUP], to: *mut i32, stride: usize) {
        let mut a = [_mm512_setzero_si512(); GROUP];
        let mut b = a;
        for i in 0..GROUP {
            // SAFETY: the caller's promise.
            a[i] = unsafe { _mm512_loadu_si512(rows[i].cast()) };
        }
        // Within each lane of 4 numbers, first rows 2i and 2i + 1, then of these two and the two after.
        for i in 0..GROUP / 2 {
            b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
        }
        for i in 0..GROUP / 4 {
            a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
            a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
            a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
            a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
        }
        // Lane l of a[4g + c] is column 4l + c of rows 4g to 4g + 3: lanes change places with groups.
        for c in 0..4 {
            let (even_low, odd_low) = (_mm512_shuffle_i32x4::<0x88>(a[c], a[4 + c]), _mm512_shuffle_i32x4::<0xDD>(a[c], a[4 + c]));
            let (even_high, odd_high) =
                (_mm512_shuffle_i32x4::<0x88>(a[8 + c], a[12 + c]), _mm512_shuffle_i32x4::<0xDD>(a[8 + c], a[12 + c]));
            b[c] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
            b[8 + c] = _mm512_shuffle_i32x4::<0xDD>(even_low, even_high);
            b[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
            b[12 + c] = _mm512_shuffle_i32x4::<0xDD>(odd_low, odd_high);
        }
        for (j, row) in b.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_si512(to.add(j * stride).cast(), row) };
        }
    }
}
