//! C = Σ A·B for matrices in any layout, blocked for the caches.
//!
//! The loop nest is that of Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication", with one packed operand. B is
//! packed into strips of `NR` columns ([`Packed`]). A task owns a tile of C that fits the second-level cache; for each block of `KC` of the
//! inner size, one strip of B stays in the first-level cache while the rows of A pass by, `MR` at a time, and a micro-kernel keeps an
//! `MR`×`NR` tile of C in registers. A is read where it lies. Sums run over the inner size in a fixed order, so a result depends neither on
//! the number of threads nor on the other rows.
#![allow(unsafe_code)]

use super::simd::{self, Isa, Kernel};
use super::{DType, Float, Pooled, Real, Tensor, rows, take};
use crate::Result;
use half::bf16;

/// A matrix `[rows, cols]` laid over a slice: element (i, j) is `data[i * row_stride + j * col_stride]`, read in the type of sums.
#[derive(Clone, Copy)]
pub struct Mat<'a, S> {
    data: Source<'a, S>,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// Numbers that are read as `S`.
#[derive(Clone, Copy)]
pub enum Source<'a, S> {
    /// In the type of sums already.
    Same(&'a [S]),
    /// To be widened.
    BF16(&'a [bf16]),
}

impl<'a, S: Float> Mat<'a, S> {
    /// A row-major matrix `[rows, cols]`.
    pub fn new<T: Real<Sum = S>>(data: &'a [T], rows: usize, cols: usize) -> Self {
        Mat::strided(data, rows, cols, cols)
    }

    /// The numbers of a tensor `[.., cols]`.
    ///
    /// # Errors
    /// If it is neither of type `S` nor, where sums are f32, bf16.
    pub fn of(tensor: &'a Tensor) -> Result<Self> {
        let (rows, cols) = (tensor.shape().rows(), tensor.shape().cols());
        let data = match tensor.dtype() {
            DType::BF16 if S::DTYPE == DType::F32 => Source::BF16(tensor.host::<bf16>()?),
            _ => Source::Same(tensor.host::<S>()?),
        };
        Ok(Mat { data, rows, cols, row_stride: cols, col_stride: 1 })
    }

    /// `rows` rows from `first`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn rows_from(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows, "gemm: rows out of range");
        let at = first * self.row_stride;
        let data = match self.data {
            Source::Same(data) => Source::Same(data.get(at..).unwrap_or_default()),
            Source::BF16(data) => Source::BF16(data.get(at..).unwrap_or_default()),
        };
        Mat { data, rows, ..self }
    }

    /// `cols` columns from `first`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn cols_from(self, first: usize, cols: usize) -> Self {
        self.t().rows_from(first, cols).t()
    }

    /// The numbers, row by row.
    pub fn to_sums(self) -> Pooled<S> {
        let mut to = take::<S>(self.rows * self.cols);
        simd::dispatch(Each { from: self, to: &mut to, f: |_, x| x });
        to
    }

    /// Multiplies the numbers of `by`, row by row, with these.
    pub fn scale(self, by: &mut [S]) {
        simd::dispatch(Each { from: self, to: by, f: |by, x| by * x });
    }

    /// A row-major matrix whose rows start `row_stride` elements apart.
    ///
    /// # Panics
    /// If it does not fit `data`.
    pub fn strided<T: Real<Sum = S>>(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || (rows - 1) * row_stride + cols <= data.len(), "gemm: a matrix larger than its data");
        Mat { data: T::source(data), rows, cols, row_stride, col_stride: 1 }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// What a sum of products is added to.
#[derive(Clone, Copy)]
pub enum Start<'a, S> {
    /// Nothing: C is overwritten.
    Zero,
    /// C itself.
    Keep,
    /// One number per column of C.
    Bias(&'a [S]),
}

/// Whether to use all threads. Inside a task: `Serial`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// The calling thread alone.
    Serial,
    /// All threads, if there is work enough.
    Parallel,
}

/// Depth of a block: a strip of B, `KC`×`NR`, stays in the first-level cache.
const KC: usize = 384;
/// Rows and columns of a task's tile of C, which stays in the second-level cache; multiples of every `MR` and `NR`.
const MC: usize = 96;
const NC: usize = 384;
/// Uses of a number of a transposed A that are worth copying it to a row.
const WORTH_COPY: usize = 128;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Multiply-adds worth a second thread.
const WORTH_THREADS: usize = 64 * 1024;

/// Rows and columns of the register tile. 12 accumulators of the 16 registers of AVX2, half as wide without it.
fn tile<S>() -> (usize, usize) {
    match (simd::isa(), size_of::<S>()) {
        (Isa::Avx2, 4) => (6, 16),
        (Isa::Avx2, _) => (6, 8),
        (Isa::Portable, 4) => (4, 8),
        (Isa::Portable, _) => (4, 4),
    }
}

/// B `[k, n]` in strips of `NR` columns: element (p, j) is at `[j / NR][p][j % NR]`; the last strip ends in zeros.
pub struct Packed<S: Float> {
    data: Pooled<S>,
    k: usize,
    n: usize,
}

impl<S: Float> Packed<S> {
    /// Packs `b`.
    pub fn new(b: Mat<S>, spread: Spread) -> Self {
        let nr = tile::<S>().1;
        let mut data = take::<S>(b.cols.next_multiple_of(nr) * b.rows);
        let strip = nr * b.rows.max(1);
        let spread = if b.rows * b.cols < WORTH_THREADS { Spread::Serial } else { spread };
        rows::for_chunks(&mut data, strip, spread == Spread::Parallel, |i, to| {
            let strip = Mat { cols: nr.min(b.cols - i * nr), ..b };
            let at = i * nr * b.col_stride;
            match nr {
                16 => simd::dispatch(Strip::<S, 16> { b: strip, at, to }),
                8 => simd::dispatch(Strip::<S, 8> { b: strip, at, to }),
                _ => simd::dispatch(Strip::<S, 4> { b: strip, at, to }),
            }
        });
        Packed { data, k: b.rows, n: b.cols }
    }
}

/// Packs the columns of `b`, at most `NR`, that start at element `at`.
struct Strip<'a, S: Float, const NR: usize> {
    b: Mat<'a, S>,
    at: usize,
    to: &'a mut [S],
}

impl<S: Float, const NR: usize> Kernel for Strip<'_, S, NR> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Strip { b, at, to } = self;
        match b.data {
            Source::Same(data) => strip::<S, S, NR>(b, data.get(at..).unwrap_or_default(), to, |x| x),
            Source::BF16(data) => strip::<S, bf16, NR>(b, data.get(at..).unwrap_or_default(), to, |x| S::of(x.widen().into())),
        }
    }
}

#[inline(always)]
fn strip<S: Float, T: Copy, const NR: usize>(b: Mat<S>, from: &[T], to: &mut [S], widen: impl Fn(T) -> S) {
    let to = to.as_chunks_mut::<NR>().0;
    if b.cols < NR {
        for (p, to) in to.iter_mut().enumerate() {
            *to = std::array::from_fn(|j| if j < b.cols { widen(from[p * b.row_stride + j * b.col_stride]) } else { S::ZERO });
        }
    } else if b.col_stride == 1 {
        for (p, to) in to.iter_mut().enumerate() {
            let from = &from[p * b.row_stride..][..NR];
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = widen(x));
        }
    } else {
        let rows: [&[T]; NR] = std::array::from_fn(|j| &from[j * b.col_stride..][..(b.rows - 1) * b.row_stride + 1]);
        for (p, to) in to.iter_mut().enumerate() {
            for j in 0..NR {
                to[j] = widen(rows[j][p * b.row_stride]);
            }
        }
    }
}

/// C = A·B, or C += A·B if `accumulate`. C is `[a.rows, b.cols]`, row-major, its rows `ldc` elements apart.
///
/// Spread over threads: use [`gemm_serial`] inside a task.
pub fn gemm<S: Float, C: Real<Sum = S>>(a: Mat<S>, b: Mat<S>, c: &mut [C], ldc: usize, accumulate: bool) {
    gemm_sum(&[(a, b)], if accumulate { Start::Keep } else { Start::Zero }, c, ldc, Spread::Parallel);
}

/// [`gemm`] on the calling thread alone.
pub fn gemm_serial<S: Float, C: Real<Sum = S>>(a: Mat<S>, b: Mat<S>, c: &mut [C], ldc: usize, accumulate: bool) {
    gemm_sum(&[(a, b)], if accumulate { Start::Keep } else { Start::Zero }, c, ldc, Spread::Serial);
}

/// C = start + Σ A·B, rounded once. Every A has as many rows as C, every B as many columns.
///
/// # Panics
/// If the sizes differ, or C is too small.
pub fn gemm_sum<S: Float, C: Real<Sum = S>>(products: &[(Mat<S>, Mat<S>)], start: Start<S>, c: &mut [C], ldc: usize, spread: Spread) {
    let Some(&(a, b)) = products.first() else { return };
    products.iter().for_each(|(a, b)| assert_eq!(a.cols, b.rows, "gemm: inner sizes"));
    // Of few rows, A is the cheaper one to pack: Cᵀ = Bᵀ Aᵀ.
    if a.rows <= FEW_ROWS && a.rows < b.cols {
        let packed: Vec<Packed<S>> = products.iter().map(|(a, _)| Packed::new(a.t(), spread)).collect();
        let swapped: Vec<_> = products.iter().zip(&packed).map(|((_, b), a)| (b.t(), a)).collect();
        run(&swapped, start, c, [1, ldc], spread);
    } else {
        let packed: Vec<Packed<S>> = products.iter().map(|(_, b)| Packed::new(*b, spread)).collect();
        let products: Vec<_> = products.iter().zip(&packed).map(|((a, _), b)| (*a, b)).collect();
        run(&products, start, c, [ldc, 1], spread);
    }
}

/// At most as many rows are packed in place of B.
const FEW_ROWS: usize = 48;

/// [`gemm_sum`] with every B packed before.
///
/// # Panics
/// If the sizes differ, or C is too small.
pub fn gemm_packed<S: Float, C: Real<Sum = S>>(
    products: &[(Mat<S>, &Packed<S>)],
    start: Start<S>,
    c: &mut [C],
    ldc: usize,
    spread: Spread,
) {
    run(products, start, c, [ldc, 1], spread);
}

/// C, whose element (i, j) is at i · strides[0] + j · strides[1]. Tasks write disjoint tiles of it.
#[derive(Clone, Copy)]
struct Target<C> {
    data: *mut C,
    strides: [usize; 2],
}

// SAFETY: the tiles that tasks write do not overlap: see `run`.
unsafe impl<C: Send> Send for Target<C> {}
unsafe impl<C: Send> Sync for Target<C> {}

fn run<S: Float, C: Real<Sum = S>>(products: &[(Mat<S>, &Packed<S>)], start: Start<S>, c: &mut [C], strides: [usize; 2], spread: Spread) {
    let Some(&(a, b)) = products.first() else { return };
    let (m, n) = (a.rows, b.n);
    let depth: usize = products.iter().map(|(a, _)| a.cols).sum();
    for (a, b) in products {
        assert!(a.rows == m && b.n == n && a.cols == b.k, "gemm: sizes");
    }
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * strides[0] + (n - 1) * strides[1] < c.len(), "gemm: C too small");
    assert!(strides[0] >= n || strides[1] >= m, "gemm: rows of C overlap");
    if let Start::Bias(bias) = start {
        assert_eq!(bias.len(), if strides[1] == 1 { n } else { m }, "gemm: one bias per column");
    }
    let target = Target { data: c.as_mut_ptr(), strides };
    let (across, down) = (n.div_ceil(NC), m.div_ceil(MC));
    let parallel = spread == Spread::Parallel && m * n * depth.max(1) > WORTH_THREADS;
    rows::for_tasks(across * down, parallel, |task| {
        let (i, j) = (task % down * MC, task / down * NC);
        let place = [i, j, MC.min(m - i), NC.min(n - j)];
        match tile::<S>() {
            (6, 16) => simd::dispatch(Tile::<S, C, 6, 16> { products, start, target, place }),
            (6, _) => simd::dispatch(Tile::<S, C, 6, 8> { products, start, target, place }),
            (_, 8) => simd::dispatch(Tile::<S, C, 4, 8> { products, start, target, place }),
            _ => simd::dispatch(Tile::<S, C, 4, 4> { products, start, target, place }),
        }
    });
}

/// A task: the tile of C at row `place[0]`, column `place[1]`, of `place[2]` rows and `place[3]` columns, inside C.
struct Tile<'a, S: Float, C, const MR: usize, const NR: usize> {
    products: &'a [(Mat<'a, S>, &'a Packed<S>)],
    start: Start<'a, S>,
    target: Target<C>,
    place: [usize; 4],
}

impl<S: Float, C: Real<Sum = S>, const MR: usize, const NR: usize> Kernel for Tile<'_, S, C, MR, NR> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let [i0, j0, m, n] = self.place;
        // Sums that C cannot hold are kept beside it and rounded once at the end.
        let narrow = C::DTYPE != S::DTYPE;
        let mut wide = take::<S>(if narrow { m * n } else { 0 });
        let out = match narrow {
            true => Target { data: wide.as_mut_ptr(), strides: [n, 1] },
            // SAFETY: the tile lies in C, and C's type is S.
            false => Target { data: unsafe { self.at(i0, j0) }.cast(), strides: self.target.strides },
        };
        let mut a_block = Pooled::from(Vec::new());
        let mut first = true;
        for &(a, b) in self.products {
            for k0 in (0..a.cols.max(1)).step_by(KC) {
                let kc = KC.min(a.cols - k0);
                let rows = Rows::new(a.rows_from(i0, m).cols_from(k0, kc), n, &mut a_block);
                for j in (0..n).step_by(NR) {
                    let at = ((j0 + j) / NR * b.k + k0) * NR;
                    let (strip, ahead) = (&b.data[at..][..kc * NR], kc * NR / m.div_ceil(MR));
                    for i in (0..m).step_by(MR) {
                        // By the time this strip is done, the next one has come to the first-level cache.
                        let next = b.data.as_ptr().wrapping_add(at + NR * b.k + i / MR * ahead);
                        (0..ahead).step_by(LINE / size_of::<S>()).for_each(|p| simd::prefetch(next.wrapping_add(p)));
                        // SAFETY: `rows` has m > i rows of kc elements, and repeats the last where it would end.
                        let tile = unsafe { micro::<S, MR, NR, FMA>(rows.data, rows.offsets(i), rows.step, strip) };
                        let start = if !first {
                            Start::Keep
                        } else if narrow {
                            Start::Zero
                        } else {
                            self.start
                        };
                        // SAFETY: rows i.. and columns j.. of `out` are this task's own, as many as the place has.
                        unsafe { store(&tile, out, [i, j, MR.min(m - i), NR.min(n - j)], start, [i0, j0]) };
                    }
                }
                first = false;
            }
        }
        for (i, row) in wide.chunks_exact(n).enumerate().take(if narrow { m } else { 0 }) {
            for (j, &sum) in row.iter().enumerate() {
                // SAFETY: i < m and j < n, so the element lies in this task's tile.
                let c = unsafe { &mut *self.at(i0 + i, j0 + j) };
                *c = C::narrow(sum + start_of(self.start, c.widen(), self.target.strides, i0 + i, j0 + j));
            }
        }
    }
}

impl<S: Float, C, const MR: usize, const NR: usize> Tile<'_, S, C, MR, NR> {
    /// # Safety
    /// (i, j) lies in C.
    unsafe fn at(&self, i: usize, j: usize) -> *mut C {
        // SAFETY: `run` checked the extent of C.
        unsafe { self.target.data.add(i * self.target.strides[0] + j * self.target.strides[1]) }
    }
}

#[inline(always)]
fn start_of<S: Float>(start: Start<S>, old: S, strides: [usize; 2], i: usize, j: usize) -> S {
    match start {
        Start::Zero => S::ZERO,
        Start::Keep => old,
        Start::Bias(bias) => bias[if strides[1] == 1 { j } else { i }],
    }
}

/// A block of A, where it lies or copied row by row.
struct Rows<S> {
    data: *const S,
    row_stride: usize,
    step: usize,
    last: usize,
}

impl<S: Float> Rows<S> {
    /// Each number will be read `reads` times. The constructor of `Mat` checked that rows and columns lie in the data.
    #[inline(always)]
    fn new(a: Mat<S>, reads: usize, buffer: &mut Pooled<S>) -> Rows<S> {
        let direct = a.col_stride == 1 || reads < WORTH_COPY;
        if let (Source::Same(data), true) = (a.data, direct) {
            return Rows { data: data.as_ptr(), row_stride: a.row_stride, step: a.col_stride, last: a.rows - 1 };
        }
        if buffer.is_empty() {
            *buffer = take(MC * KC);
        }
        match a.data {
            Source::Same(data) => each(a, data, buffer, |_, x| x),
            Source::BF16(data) => each(a, data, buffer, |_, x: bf16| S::of(x.widen().into())),
        }
        Rows { data: buffer.as_ptr(), row_stride: a.cols, step: 1, last: a.rows - 1 }
    }

    /// Where the rows i.. start; the last again where there are no more.
    #[inline(always)]
    fn offsets<const MR: usize>(&self, i: usize) -> [usize; MR] {
        std::array::from_fn(|r| (i + r).min(self.last) * self.row_stride)
    }
}

/// `to[i, j] = f(to[i, j], from[i, j])`, rows of `to` one after another.
struct Each<'a, S, F> {
    from: Mat<'a, S>,
    to: &'a mut [S],
    f: F,
}

impl<S: Float, F: Fn(S, S) -> S> Kernel for Each<'_, S, F> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Each { from, to, f } = self;
        match from.data {
            Source::Same(data) => each(from, data, to, &f),
            Source::BF16(data) => each(from, data, to, |to, x: bf16| f(to, S::of(x.widen().into()))),
        }
    }
}

/// Rows and columns that are transposed together: lines of both sides stay in the first-level cache.
const CORNER: usize = 16;

#[inline(always)]
fn each<S: Float, T: Copy>(a: Mat<S>, from: &[T], to: &mut [S], f: impl Fn(S, T) -> S) {
    let cols = a.cols.max(1);
    if a.col_stride == 1 {
        for (i, to) in to.chunks_exact_mut(cols).take(a.rows).enumerate() {
            to.iter_mut().zip(&from[i * a.row_stride..]).for_each(|(to, &x)| *to = f(*to, x));
        }
        return;
    }
    for (i0, to) in to.chunks_mut(CORNER * cols).take(a.rows.div_ceil(CORNER)).enumerate() {
        let rows = CORNER.min(a.rows - i0 * CORNER);
        for j0 in (0..a.cols).step_by(CORNER) {
            for j in j0..a.cols.min(j0 + CORNER) {
                for i in 0..rows {
                    let to = &mut to[i * cols + j];
                    *to = f(*to, from[(i0 * CORNER + i) * a.row_stride + j * a.col_stride]);
                }
            }
        }
    }
}

/// The tile Σₚ a[·, p] b[p, ·] of `MR` rows of A and a strip of B.
///
/// # Safety
/// `a + offsets[i] + p · step` can be read for every i and every p < b.len() / NR.
#[inline(always)]
unsafe fn micro<S: Float, const MR: usize, const NR: usize, const FMA: bool>(
    a: *const S,
    offsets: [usize; MR],
    step: usize,
    b: &[S],
) -> [[S; NR]; MR] {
    let mut tile = [[S::ZERO; NR]; MR];
    for (p, b) in b.as_chunks::<NR>().0.iter().enumerate() {
        for i in 0..MR {
            // SAFETY: p < b.len() / NR.
            let a = unsafe { *a.add(offsets[i] + p * step) };
            for j in 0..NR {
                tile[i][j] = if FMA { a.mul_add(b[j], tile[i][j]) } else { tile[i][j] + a * b[j] };
            }
        }
    }
    tile
}

/// Adds rows and columns of a tile, `[first row, first column, rows, columns]`, to `start`, and puts them there.
///
/// # Safety
/// The place lies in `out`, and no other task touches it.
#[inline(always)]
unsafe fn store<S: Float, const MR: usize, const NR: usize>(
    tile: &[[S; NR]; MR],
    out: Target<S>,
    place: [usize; 4],
    start: Start<S>,
    origin: [usize; 2],
) {
    let [i0, j0, m, n] = place;
    for (i, tile) in tile.iter().enumerate().take(m) {
        if out.strides[1] == 1 && n == NR {
            // SAFETY: NR columns of row i0 + i lie in the place.
            let c = unsafe { &mut *out.data.add((i0 + i) * out.strides[0] + j0).cast::<[S; NR]>() };
            match start {
                Start::Zero => *c = *tile,
                Start::Keep => (0..NR).for_each(|j| c[j] += tile[j]),
                Start::Bias(bias) => {
                    let bias = &bias[origin[1] + j0..][..NR];
                    (0..NR).for_each(|j| c[j] = bias[j] + tile[j]);
                }
            }
        } else {
            for (j, &sum) in tile.iter().enumerate().take(n) {
                // SAFETY: i < m and j < n, so the element lies in the place.
                let c = unsafe { &mut *out.data.add((i0 + i) * out.strides[0] + (j0 + j) * out.strides[1]) };
                *c = sum + start_of(start, *c, out.strides, origin[0] + i0 + i, origin[1] + j0 + j);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::philox::Stream;
    use proptest::prelude::*;

    fn stored<T: Real>(data: &[T], rows: usize, cols: usize, transposed: bool) -> Mat<'_, T::Sum> {
        if transposed { Mat::new(data, cols, rows).t() } else { Mat::new(data, rows, cols) }
    }

    /// The triple loop.
    fn naive(a: Mat<f64>, b: Mat<f64>) -> Vec<f64> {
        let at = |m: Mat<f64>, i: usize, j: usize| match m.data {
            Source::Same(data) => data[i * m.row_stride + j * m.col_stride],
            Source::BF16(_) => unreachable!("the oracle is f64"),
        };
        (0..a.rows).flat_map(|i| (0..b.cols).map(move |j| (0..a.cols).map(|p| at(a, i, p) * at(b, p, j)).sum())).collect()
    }

    fn as_type<T: Real<Sum = S>, S: Float>(values: &[f64]) -> Vec<T> {
        values.iter().map(|&x| T::narrow(S::of(x))).collect()
    }

    /// Σ of two products in type `T`, of numbers that it holds exactly, against the triple loop.
    fn check<T: Real<Sum = S>, S: Float>(sizes: [usize; 4], layout: [bool; 4], start: usize, seed: u64, tolerance: f64) {
        let [m, n, k, pad] = sizes;
        let mut s = Stream::new(seed, "gemm");
        // Multiples of 1/128 below 1: exact in bf16.
        let mut draw = |len: usize| -> Vec<f64> { (0..len).map(|_| (s.below(255) as f64 - 127.0) / 128.0).collect() };
        let k2 = k.min(5);
        let (a, b, a2, b2, bias) = (draw(m * k), draw(k * n), draw(m * k2), draw(k2 * n), draw(n));
        let ldc = n + pad;
        let c0 = draw(m * ldc);
        let first = naive(stored(&a, m, k, layout[0]), stored(&b, k, n, layout[1]));
        let second = naive(stored(&a2, m, k2, layout[2]), stored(&b2, k2, n, layout[1]));
        let spread = if layout[3] { Spread::Parallel } else { Spread::Serial };
        let (ta, tb, ta2, tb2) = (as_type::<T, S>(&a), as_type::<T, S>(&b), as_type::<T, S>(&a2), as_type::<T, S>(&b2));
        let wide_bias: Vec<S> = bias.iter().map(|&x| S::of(x)).collect();
        let begin = [Start::Zero, Start::Keep, Start::Bias(&wide_bias)][start];
        let mut c = as_type::<T, S>(&c0);
        let products = [
            (stored(&ta, m, k, layout[0]), stored(&tb, k, n, layout[1])),
            (stored(&ta2, m, k2, layout[2]), stored(&tb2, k2, n, layout[1])),
        ];
        gemm_sum(&products, begin, &mut c, ldc, spread);
        for (at, c) in c.iter().enumerate() {
            let (i, j, got) = (at / ldc, at % ldc, c.widen().f64());
            if j >= n {
                assert_eq!(got, c0[at], "outside of C");
                continue;
            }
            let want = [0.0, c0[at], bias[j]][start] + first[i * n + j] + second[i * n + j];
            let bound = tolerance * (1.0 + want.abs() + (k as f64).sqrt());
            assert!((got - want).abs() <= bound, "{} ({i}, {j}): {got} {want}", T::DTYPE);
        }
    }

    proptest! {
        #[test]
        fn every_layout_equals_the_triple_loop(
            (m, n, k) in prop_oneof![
                (0usize..20, 0usize..40, 0usize..30), (1usize..110, 1usize..70, 200usize..600), (1usize..9, 300usize..500, 1usize..9), Just((1, 1, 1))
            ],
            layout: [bool; 4], start in 0usize..3, pad in 0usize..3, seed: u64,
        ) {
            check::<f64, f64>([m, n, k, pad], layout, start, seed, 1e-14);
            check::<f32, f32>([m, n, k, pad], layout, start, seed, 1e-6);
            check::<bf16, f32>([m, n, k, pad], layout, start, seed, 1.0 / 256.0);
        }
    }
}
