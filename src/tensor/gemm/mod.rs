//! C = Σ A·B for matrices in any layout, blocked for the caches.
//!
//! The loop nest is that of Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication", with one packed operand. B is
//! packed into strips of `NR` columns ([`Packed`]). A task owns a tile of C that fits the second-level cache; for each block of the
//! inner size, one strip of B stays in a cache near by while the rows of A pass by, `MR` at a time, and a micro-kernel keeps an
//! `MR`×`NR` tile of C in registers. A is read where it lies, unless it lies column by column. Sums run over the inner size in a fixed order, so a result depends neither on
//! the number of threads nor on the other rows.
#![allow(unsafe_code)]

mod mat;
mod micro;
mod pack;

pub use super::element::Elements;
pub use mat::Mat;
pub use pack::Packed;

use super::simd::{self, Isa, Kernel};
use super::{Accum, Pooled, Scalar, alloc, rows};
use micro::{Operand, Place};
use pack::{Rows, Strips};

/// What a sum of products is added to.
#[derive(Clone, Copy)]
pub enum Init<'a, S> {
    /// Nothing: C is overwritten.
    Zero,
    /// C itself.
    Keep,
    /// One number per column of C.
    Bias(&'a [S]),
}

/// Whether to use all threads. Inside a task: `Serial`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread alone.
    Serial,
    /// All threads, if there is work enough.
    Parallel,
}

/// Rows and columns of a task's tile of C, which stays in the second-level cache; multiples of every `MR` and `NR`.
const MC: usize = 96;
const NC: usize = 384;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Multiply-adds worth a second thread.
const WORTH_THREADS: usize = 64 * 1024;
/// At most as many rows of A are packed in place of B.
const FEW_ROWS: usize = 48;

/// Depth of a block, even: a strip of B, as deep and `NR` wide, stays in the first-level cache; with AVX-512 in the second, which is fast
/// enough, and C is stored less often.
fn depth(isa: Isa) -> usize {
    if isa >= Isa::Avx512 { 768 } else { 384 }
}

/// `[MR, NR]`: rows and columns of the register tile for a C of n columns. 12 accumulators of the 16 registers of AVX2, 24 of the 32 of
/// AVX-512, half as wide without either; narrower where a wide tile would mostly multiply padding, with rows that divide attention's blocks.
fn tile<S: Accum>(isa: Isa, n: usize) -> [usize; 2] {
    let padded = |nr: usize| n.next_multiple_of(nr);
    match (isa, size_of::<S>()) {
        (Isa::Portable, 4) => [4, 8],
        (Isa::Portable, _) => [4, 4],
        (Isa::Avx2, 4) if n <= 8 => [12, 8],
        (Isa::Avx2, 4) => [6, 16],
        (_, 8) => [6, 8],
        _ if n <= 16 => [8, 16],
        _ if padded(32) < padded(48) => [8, 32],
        _ => [8, 48],
    }
}

/// C = A·B, or C += A·B if `accumulate`. C is `[a.rows, b.cols]`, row-major, its rows `ldc` elements apart.
///
/// Threads over threads: use [`gemm_serial`] inside a task.
pub fn gemm<S: Accum, C: Scalar<Acc = S>>(a: Mat<S>, b: Mat<S>, c: &mut [C], ldc: usize, accumulate: bool) {
    gemm_sum(&[(a, b)], if accumulate { Init::Keep } else { Init::Zero }, c, ldc, Threads::Parallel);
}

/// [`gemm`] on the calling thread alone.
pub fn gemm_serial<S: Accum, C: Scalar<Acc = S>>(a: Mat<S>, b: Mat<S>, c: &mut [C], ldc: usize, accumulate: bool) {
    gemm_sum(&[(a, b)], if accumulate { Init::Keep } else { Init::Zero }, c, ldc, Threads::Serial);
}

/// C = start + Σ A·B, rounded once. Every A has as many rows as C, every B as many columns.
///
/// Where the processor multiplies bf16, a product of two bf16 matrices is summed in pairs of its inner index, in f32.
///
/// # Panics
/// If the sizes differ, or C is too small.
pub fn gemm_sum<S: Accum, C: Scalar<Acc = S>>(products: &[(Mat<S>, Mat<S>)], start: Init<S>, c: &mut [C], ldc: usize, threads: Threads) {
    sum_on(simd::isa(), products, start, c, ldc, threads);
}

fn sum_on<S: Accum, C: Scalar<Acc = S>>(
    isa: Isa,
    products: &[(Mat<S>, Mat<S>)],
    start: Init<S>,
    c: &mut [C],
    ldc: usize,
    threads: Threads,
) {
    let Some(&(a, b)) = products.first() else { return };
    products.iter().for_each(|(a, b)| assert_eq!(a.cols, b.rows, "gemm: inner sizes"));
    // Of few rows, A is the cheaper one to pack: Cᵀ = Bᵀ Aᵀ.
    if a.rows <= FEW_ROWS && a.rows < b.cols {
        let packed: Vec<_> = products.iter().map(|(a, b)| Packed::on(isa, b.t(), a.t(), threads)).collect();
        let swapped: Vec<_> = products.iter().zip(&packed).map(|((_, b), a)| (b.t(), a)).collect();
        run(&swapped, start, c, [1, ldc], threads);
    } else {
        let packed: Vec<_> = products.iter().map(|(a, b)| Packed::on(isa, *a, *b, threads)).collect();
        let products: Vec<_> = products.iter().zip(&packed).map(|((a, _), b)| (*a, b)).collect();
        run(&products, start, c, [ldc, 1], threads);
    }
}

/// [`gemm_sum`] with every B packed before.
///
/// # Panics
/// If the sizes differ, C is too small, or a B was packed for products with another type.
pub fn gemm_packed<S: Accum, C: Scalar<Acc = S>>(
    products: &[(Mat<S>, &Packed<S>)],
    start: Init<S>,
    c: &mut [C],
    ldc: usize,
    threads: Threads,
) {
    run(products, start, c, [ldc, 1], threads);
}

/// C, whose element (i, j) is at i · strides[0] + j · strides[1]. Tasks write disjoint tiles of it.
#[derive(Clone, Copy)]
struct Target<C> {
    data: *mut C,
    strides: [usize; 2],
}

impl<C> Target<C> {
    /// From row i and column j on, which need not be there.
    #[inline(always)]
    fn from(self, i: usize, j: usize) -> Self {
        Target { data: self.data.wrapping_add(i * self.strides[0] + j * self.strides[1]), ..self }
    }

    /// `f` of the first numbers of the first row, and of those beside.
    ///
    /// # Safety
    /// The row has as many numbers, which no other task touches.
    #[inline(always)]
    unsafe fn each<S>(self, beside: &mut [S], f: impl Fn(&mut C, &mut S)) {
        if self.strides[1] == 1 {
            // SAFETY: the caller's promise.
            let row = unsafe { std::slice::from_raw_parts_mut(self.data, beside.len()) };
            // A loop, since what iterators call may be compiled for another instruction set than its caller.
            for (c, beside) in row.iter_mut().zip(beside) {
                f(c, beside);
            }
        } else {
            for (j, beside) in beside.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                f(unsafe { &mut *self.data.add(j * self.strides[1]) }, beside);
            }
        }
    }
}

// SAFETY: the tiles that tasks write do not overlap: see `run`.
unsafe impl<C: Send> Send for Target<C> {}
unsafe impl<C: Send> Sync for Target<C> {}

fn run<S: Accum, C: Scalar<Acc = S>>(
    products: &[(Mat<S>, &Packed<S>)],
    start: Init<S>,
    c: &mut [C],
    strides: [usize; 2],
    threads: Threads,
) {
    let Some(&(a, b)) = products.first() else { return };
    let (m, n, isa) = (a.rows, b.n, b.isa);
    let depth: usize = products.iter().map(|(a, _)| a.cols).sum();
    for (a, b) in products {
        assert!(a.rows == m && b.n == n && a.cols == b.k && b.isa == isa, "gemm: sizes");
    }
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * strides[0] + (n - 1) * strides[1] < c.len(), "gemm: C too small");
    assert!(strides[0] >= n || strides[1] >= m, "gemm: rows of C overlap");
    if let Init::Bias(bias) = start {
        assert_eq!(bias.len(), if strides[1] == 1 { n } else { m }, "gemm: one bias per column");
    }
    let target = Target { data: c.as_mut_ptr(), strides };
    let tile = tile::<S>(isa, n);
    let (across, down) = (n.div_ceil(NC), m.div_ceil(MC));
    let parallel = threads == Threads::Parallel && m * n * depth.max(1) > WORTH_THREADS;
    rows::for_tasks(across * down, parallel, |task| {
        let (i, j) = (task % down * MC, task / down * NC);
        let place = [i, j, MC.min(m - i), NC.min(n - j)];
        if const { size_of::<S>() == 8 } {
            match tile {
                [6, 8] => simd::avx2(Tile::<S, C, 6, 8> { products, start, target, place }),
                _ => Tile::<S, C, 4, 4> { products, start, target, place }.run::<false>(),
            }
        } else {
            match tile {
                [8, 48] => simd::avx512(Tile::<S, C, 8, 48> { products, start, target, place }),
                [8, 32] => simd::avx512(Tile::<S, C, 8, 32> { products, start, target, place }),
                [8, 16] => simd::avx512(Tile::<S, C, 8, 16> { products, start, target, place }),
                [6, 16] => simd::avx2(Tile::<S, C, 6, 16> { products, start, target, place }),
                [12, 8] => simd::avx2(Tile::<S, C, 12, 8> { products, start, target, place }),
                _ => Tile::<S, C, 4, 8> { products, start, target, place }.run::<false>(),
            }
        }
    });
}

/// A task: the tile of C at row `place[0]`, column `place[1]`, of `place[2]` rows and `place[3]` columns, inside C.
struct Tile<'a, S: Accum, C, const MR: usize, const NR: usize> {
    products: &'a [(Mat<'a, S>, &'a Packed<S>)],
    start: Init<'a, S>,
    target: Target<C>,
    place: [usize; 4],
}

/// What a block's products are added to.
#[derive(Clone, Copy)]
enum Onto<'a, S> {
    Zero,
    /// One number per column.
    Columns(&'a [S]),
    /// One number per row.
    Rows(&'a [S]),
    /// The sums so far, from the task's first row and column on.
    Sums(Target<S>),
}

impl<S: Accum, C: Scalar<Acc = S>, const MR: usize, const NR: usize> Kernel for Tile<'_, S, C, MR, NR> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let [i0, j0, m, n] = self.place;
        let c = self.target.from(i0, j0);
        let blocks: usize = self.products.iter().map(|(a, b)| a.cols.max(1).div_ceil(depth(b.isa))).sum();
        // Sums that C cannot hold are kept beside it until the last block, and rounded once.
        let narrow = C::DTYPE != S::DTYPE;
        let mut beside = alloc::<S>(if narrow && (blocks > 1 || matches!(self.start, Init::Keep)) { m * n } else { 0 });
        if let (true, Init::Keep) = (narrow, self.start) {
            for (i, row) in beside.chunks_exact_mut(n).enumerate() {
                // SAFETY: the tile has row i, and is this task's own.
                unsafe { c.from(i, 0).each(row, |c, to| *to = c.widen()) };
            }
        }
        let sums = match narrow {
            true => Target { data: beside.as_mut_ptr(), strides: [n, 1] },
            // C's type is S.
            false => Target { data: c.data.cast(), strides: c.strides },
        };
        let mut onto = match self.start {
            Init::Zero => Onto::Zero,
            Init::Bias(bias) if c.strides[1] == 1 => Onto::Columns(bias),
            Init::Bias(bias) => Onto::Rows(bias),
            Init::Keep => Onto::Sums(sums),
        };
        let (mut a_wide, mut a_pairs) = (Pooled::from(Vec::new()), Pooled::from(Vec::new()));
        let mut block = 0;
        for &(a, b) in self.products {
            let deepest = depth(b.isa);
            for k0 in (0..a.cols.max(1)).step_by(deepest) {
                let a = a.rows_from(i0, m).cols_from(k0, deepest.min(a.cols - k0));
                let depths = [b.k, k0, a.cols];
                block += 1;
                let last = (block == blocks && narrow).then_some(c);
                match (&b.strips, a.data) {
                    (Strips::Pairs(strips), Elements::BF16(data)) => {
                        let rows = Rows::pairs::<S, MR>(a, data, &mut a_pairs);
                        self.block::<_, FMA>(&rows, strips, depths, onto, sums, last);
                    }
                    (Strips::Wide(strips), _) => {
                        let rows = Rows::wide::<MR>(a, n, &mut a_wide);
                        self.block::<_, FMA>(&rows, strips, depths, onto, sums, last);
                    }
                    (Strips::Pairs(_), Elements::Same(_)) => panic!("gemm: B was packed for a product with bf16"),
                }
                onto = Onto::Sums(sums);
            }
        }
    }
}

impl<S: Accum, C: Scalar<Acc = S>, const MR: usize, const NR: usize> Tile<'_, S, C, MR, NR> {
    /// [`Tile::sweep`] to the sums, or, if it is the last one and C cannot hold them, to C.
    #[inline(always)]
    fn block<T: Operand<S>, const FMA: bool>(
        &self,
        rows: &Rows<T>,
        strips: &[T],
        depths: [usize; 3],
        onto: Onto<S>,
        sums: Target<S>,
        last: Option<Target<C>>,
    ) {
        match last {
            Some(c) => self.sweep::<_, _, FMA>(rows, strips, depths, onto, c),
            None => self.sweep::<_, _, FMA>(rows, strips, depths, onto, sums),
        }
    }

    /// `to = onto + ` the product of a block of A and the strips of B below it, tile by tile. `depths`: rows of B, the first one that is
    /// used, and how many.
    #[inline(always)]
    fn sweep<T: Operand<S>, D: Scalar<Acc = S>, const FMA: bool>(
        &self,
        rows: &Rows<T>,
        strips: &[T],
        depths: [usize; 3],
        onto: Onto<S>,
        to: Target<D>,
    ) {
        let [_, j0, m, n] = self.place;
        let [k, k0, kc] = depths.map(|rows| rows.next_multiple_of(T::AT_ONCE));
        let hardware = self.products[0].1.isa.min(simd::widest());
        // What a tile without a start is added to, and where one goes that cannot go to C as it is.
        let (mut zero, mut part) = ([S::ZERO; NR], [[S::ZERO; NR]; MR]);
        let zeros = Place { at: zero.as_mut_ptr(), stride: 0 };
        for j in (0..n).step_by(NR) {
            let at = ((j0 + j) / NR * k + k0) * NR;
            let (strip, ahead) = (&strips[at..][..kc * NR], kc * NR / m.div_ceil(MR));
            for i in (0..m).step_by(MR) {
                // By the time this strip is done, the next one has come to where this one is.
                let next = strips.as_ptr().wrapping_add(at + NR * k + i / MR * ahead);
                (0..ahead).step_by(LINE / size_of::<T>()).for_each(|p| simd::prefetch(next.wrapping_add(p)));
                // C's lines come while the tile is computed; so do, the first time, the next rows of A.
                (0..MR).for_each(|r| simd::prefetch(to.from(i + r, j).data));
                if j == 0 {
                    rows.ask_for::<MR>(i + MR, kc);
                }
                let height = MR.min(m - i);
                // Where C lies row by row, so do the sums.
                let start = match onto {
                    Onto::Zero => Some(zeros),
                    Onto::Sums(sums) => Some(Place { at: sums.from(i, j).data, stride: sums.strides[0] }),
                    Onto::Columns(bias) => bias[j0 + j..].first_chunk::<NR>().map(|b| Place { at: b.as_ptr().cast_mut(), stride: 0 }),
                    Onto::Rows(_) => None,
                };
                if let Some(start) = start.filter(|_| to.strides[1] == 1 && j + NR <= n) {
                    let to = Place { at: to.from(i, j).data, stride: to.strides[0] };
                    // SAFETY: `rows` was made of as many rows and columns of A; the tile at (i, j) is this task's own; `hardware` is there.
                    unsafe { micro::tile::<T, S, D, MR, NR, FMA>(hardware, &rows.starts(i), rows.step, strip, start, to, height) };
                } else {
                    let sums = Place { at: part.as_mut_ptr().cast(), stride: NR };
                    // SAFETY: as above, and `part` is a tile; its first rows and columns lie in C.
                    unsafe {
                        micro::tile::<T, S, S, MR, NR, FMA>(hardware, &rows.starts(i), rows.step, strip, zeros, sums, height);
                        self.store(&part, onto, to, [i, j]);
                    }
                }
            }
        }
    }

    /// Adds the sums of the tile at (i, j) to `onto`, as far as they lie in C, and puts them to `to`.
    ///
    /// # Safety
    /// Both targets have the place's rows and columns, and no other task touches them.
    #[inline(always)]
    unsafe fn store<D: Scalar<Acc = S>>(&self, sums: &[[S; NR]; MR], onto: Onto<S>, to: Target<D>, [i, j]: [usize; 2]) {
        let [i0, j0, m, n] = self.place;
        let cols = NR.min(n - j);
        for (r, sums) in sums.iter().enumerate().take(m - i) {
            let mut row = [S::ZERO; NR];
            // SAFETY: row i + r and `cols` columns from j on lie in the place.
            match onto {
                Onto::Zero => {}
                Onto::Sums(old) => unsafe { old.from(i + r, j).each(&mut row[..cols], |old, to| *to = *old) },
                Onto::Columns(bias) => row[..cols].copy_from_slice(&bias[j0 + j..][..cols]),
                Onto::Rows(bias) => row = [bias[i0 + i + r]; NR],
            }
            for (to, &sum) in row.iter_mut().zip(sums) {
                *to += sum;
            }
            // SAFETY: as above.
            unsafe { to.from(i + r, j).each(&mut row[..cols], |to, &mut sum| *to = D::narrow(sum)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::philox::Stream;
    use half::bf16;
    use proptest::prelude::*;

    fn stored<T: Scalar>(data: &[T], rows: usize, cols: usize, transposed: bool) -> Mat<'_, T::Acc> {
        if transposed { Mat::new(data, cols, rows).t() } else { Mat::new(data, rows, cols) }
    }

    /// The triple loop.
    fn naive(a: Mat<f64>, b: Mat<f64>) -> Vec<f64> {
        let at = |m: Mat<f64>, i: usize, j: usize| match m.data {
            Elements::Same(data) => data[i * m.row_stride + j * m.col_stride],
            Elements::BF16(_) => unreachable!("the oracle is f64"),
        };
        (0..a.rows).flat_map(|i| (0..b.cols).map(move |j| (0..a.cols).map(|p| at(a, i, p) * at(b, p, j)).sum())).collect()
    }

    fn as_type<T: Scalar<Acc = S>, S: Accum>(values: &[f64]) -> Vec<T> {
        values.iter().map(|&x| T::narrow(S::of(x))).collect()
    }

    /// Σ of two products in type `T`, of numbers that it holds exactly, against the triple loop.
    fn check<T: Scalar<Acc = S>, S: Accum>(isa: Isa, sizes: [usize; 4], layout: [bool; 4], start: usize, seed: u64, tolerance: f64) {
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
        let threads = if layout[3] { Threads::Parallel } else { Threads::Serial };
        let (ta, tb, ta2, tb2) = (as_type::<T, S>(&a), as_type::<T, S>(&b), as_type::<T, S>(&a2), as_type::<T, S>(&b2));
        let wide_bias: Vec<S> = bias.iter().map(|&x| S::of(x)).collect();
        let begin = [Init::Zero, Init::Keep, Init::Bias(&wide_bias)][start];
        let mut c = as_type::<T, S>(&c0);
        let products = [
            (stored(&ta, m, k, layout[0]), stored(&tb, k, n, layout[1])),
            (stored(&ta2, m, k2, layout[2]), stored(&tb2, k2, n, layout[1])),
        ];
        sum_on(isa, &products, begin, &mut c, ldc, threads);
        let mut wide = as_type::<S, S>(&c0);
        sum_on(isa, &products, begin, &mut wide, ldc, threads);
        assert!(c.iter().zip(&wide).all(|(&c, &wide)| c == T::narrow(wide)), "{isa} {}: rounded once, from the same sums", T::DTYPE);
        for (at, c) in c.iter().enumerate() {
            let (i, j, got) = (at / ldc, at % ldc, c.widen().f64());
            if j >= n {
                assert_eq!(got, c0[at], "outside of C");
                continue;
            }
            let want = [0.0, c0[at], bias[j]][start] + first[i * n + j] + second[i * n + j];
            let bound = tolerance * (1.0 + want.abs() + (k as f64).sqrt());
            assert!((got - want).abs() <= bound, "{isa} {} ({i}, {j}): {got} {want}", T::DTYPE);
        }
    }

    proptest! {
        #[test]
        fn every_layout_equals_the_triple_loop(
            (m, n, k) in prop_oneof![
                (0usize..20, 0usize..40, 0usize..30), (1usize..110, 1usize..70, 200usize..600), (49usize..60, 385usize..450, 1usize..9), (1usize..14, 1usize..60, 760usize..1600), (1usize..9, 300usize..500, 1usize..9), Just((1, 1, 1))
            ],
            layout: [bool; 4], start in 0usize..3, pad in 0usize..3, seed: u64,
        ) {
            // An instruction set that this machine lacks runs the same blocking and packing, with the micro-kernels' portable twins.
            for isa in Isa::ALL {
                check::<f64, f64>(isa, [m, n, k, pad], layout, start, seed, 1e-14);
                check::<f32, f32>(isa, [m, n, k, pad], layout, start, seed, 1e-6);
                check::<bf16, f32>(isa, [m, n, k, pad], layout, start, seed, 1.0 / 256.0);
            }
        }
    }

    /// A NaN in A makes its row of C NaN, and one in B its column, though all else is zero; the other numbers stay what they are.
    fn check_nan<T: Scalar<Acc = S>, S: Accum>(isa: Isa, [m, n, k]: [usize; 3], rows_first: [bool; 2]) {
        for (in_a, first) in [(true, true), (true, false), (false, true), (false, false)] {
            let [mut a, mut b] = [vec![0.0; m * k], vec![0.0; k * n]];
            let spoilt = if in_a { &mut a } else { &mut b };
            let at = if first { 0 } else { spoilt.len() - 1 };
            spoilt[at] = f64::NAN;
            let (a, b) = (as_type::<T, S>(&a), as_type::<T, S>(&b));
            let mut c = vec![T::narrow(S::ONE); m * n];
            let product = (stored(&a, m, k, rows_first[0]), stored(&b, k, n, rows_first[1]));
            sum_on(isa, &[product], Init::Zero, &mut c, n, Threads::Serial);
            for (at, c) in c.iter().enumerate() {
                let line = if in_a { (at / n, m) } else { (at % n, n) };
                let (c, nan) = (c.widen().f64(), line.0 == if first { 0 } else { line.1 - 1 });
                assert!(c.is_nan() == nan && (nan || c == 0.0), "{isa} {} {m} {n} {k} {rows_first:?} {in_a} {at}: {c}", T::DTYPE);
            }
        }
    }

    #[test]
    fn a_nan_shows_in_its_row_or_column_and_nowhere_else() {
        for isa in Isa::ALL {
            for sizes in [[1, 1, 1], [5, 3, 2], [13, 50, 7], [20, 100, 3], [60, 33, 41], [100, 49, 800]] {
                for rows_first in [[true, true], [true, false], [false, true], [false, false]] {
                    check_nan::<f64, f64>(isa, sizes, rows_first);
                    check_nan::<f32, f32>(isa, sizes, rows_first);
                    check_nan::<bf16, f32>(isa, sizes, rows_first);
                }
            }
        }
    }

    #[test]
    fn special_sums_are_rounded_as_single_numbers_are() {
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-40, -0.0];
        let halfway = [0x3F80_8000, 0x3F81_8000, 0x3F80_7FFF, 0x3F80_8001].map(f32::from_bits);
        let a: Vec<f32> = special.into_iter().chain(halfway).cycle().take(64).collect();
        for isa in Isa::ALL {
            // Whole tiles and tiles in part; with few rows, a transposed C.
            for (m, n) in [(64, 1), (64, 8), (64, 16), (64, 32), (64, 48), (64, 50), (20, 50)] {
                let (mut c, mut wide) = (vec![bf16::ZERO; m * n], vec![0.0; m * n]);
                let ones = vec![1.0f32; n];
                let product = (Mat::new(&a[..m], m, 1), Mat::new(&ones, 1, n));
                sum_on(isa, &[product], Init::Zero, &mut c, n, Threads::Serial);
                sum_on(isa, &[product], Init::Zero, &mut wide, n, Threads::Serial);
                for (at, (c, &wide)) in c.iter().zip(&wide).enumerate() {
                    let (x, want) = (a[at / n], bf16::narrow(wide));
                    assert!(wide == x || wide.is_nan() && x.is_nan(), "{isa} {n}: {x} became {wide}");
                    assert!(*c == want || c.is_nan() && want.is_nan(), "{isa} {n}: {x} became {c}, not {want}");
                }
            }
        }
    }
}
