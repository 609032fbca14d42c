//! C = A·B or C += A·B for matrices in any layout, blocked for the caches.
//!
//! The loop nest is that of Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication": a block of B is packed into strips
//! of `NR` columns, a block of A into strips of `MR` rows, and a micro-kernel keeps an `MR`×`NR` tile of C in registers.
//! Sums over k run in a fixed order, so the result does not depend on the number of threads.

use super::simd::{self, Isa, Kernel};
use super::{Float, Real, take};
use rayon::prelude::*;

/// A matrix `[rows, cols]` laid over a slice: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A row-major matrix `[rows, cols]`.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Mat::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows start `row_stride` elements apart.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        debug_assert!(rows == 0 || cols == 0 || (rows - 1) * row_stride + cols <= data.len());
        Mat { data, rows, cols, row_stride, col_stride: 1 }
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

/// Depth of a packed block: a strip of B stays in the first-level cache.
const KC: usize = 256;
/// Rows of a packed block of A, which stays in the second-level cache; a multiple of every `MR`.
const MC: usize = 48;

/// C = A·B, or C += A·B if `accumulate`. C is `[a.rows, b.cols]`, row-major, its rows `ldc` elements apart.
///
/// Spread over threads: use [`gemm_serial`] inside a task.
pub fn gemm<T: Real>(a: Mat<T>, b: Mat<T>, c: &mut [T], ldc: usize, accumulate: bool) {
    run(a, b, c, ldc, accumulate, true);
}

/// [`gemm`] on the calling thread alone.
pub fn gemm_serial<T: Real>(a: Mat<T>, b: Mat<T>, c: &mut [T], ldc: usize, accumulate: bool) {
    run(a, b, c, ldc, accumulate, false);
}

fn run<T: Real>(a: Mat<T>, b: Mat<T>, c: &mut [T], ldc: usize, accumulate: bool, parallel: bool) {
    assert_eq!(a.cols, b.rows, "gemm: inner sizes");
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if m == 0 || n == 0 {
        return;
    }
    assert!(ldc >= n && (m - 1) * ldc + n <= c.len(), "gemm: C too small");
    if k == 0 {
        if !accumulate {
            c.chunks_mut(ldc).take(m).for_each(|row| row[..n].fill(T::default()));
        }
        return;
    }
    // Register tiles: 12 accumulators of 8 lanes (f32) or 4 lanes (f64) of the 16 registers of AVX2; half as wide without it.
    match (simd::isa(), size_of::<T::Sum>()) {
        (Isa::Avx2, 4) => blocked::<T, 6, 16>(a, b, c, ldc, accumulate, parallel),
        (Isa::Avx2, _) => blocked::<T, 6, 8>(a, b, c, ldc, accumulate, parallel),
        (_, 4) => blocked::<T, 4, 8>(a, b, c, ldc, accumulate, parallel),
        _ => blocked::<T, 4, 4>(a, b, c, ldc, accumulate, parallel),
    }
}

fn blocked<T: Real, const MR: usize, const NR: usize>(a: Mat<T>, b: Mat<T>, c: &mut [T], ldc: usize, accumulate: bool, parallel: bool) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let mut packed_b = take::<T::Sum>(n.next_multiple_of(NR) * KC.min(k));
    // A sum over k that is rounded once: for bf16 the depth is not cut into blocks.
    let kc_max = if size_of::<T>() < size_of::<T::Sum>() { k } else { KC.min(k) };
    if packed_b.len() < n.next_multiple_of(NR) * kc_max {
        packed_b = take(n.next_multiple_of(NR) * kc_max);
    }
    for k0 in (0..k).step_by(kc_max) {
        let kc = kc_max.min(k - k0);
        let add = accumulate || k0 > 0;
        let packed_b = &mut packed_b[..n.next_multiple_of(NR) * kc];
        let strip = |(j, strip): (usize, &mut [T::Sum])| pack::<T, NR>(b.t(), j * NR, k0, kc, strip);
        let block = |(i, c): (usize, &mut [T]), packed_b: &[T::Sum]| {
            let i0 = i * MC;
            let rows = MC.min(m - i0);
            let mut packed_a = take::<T::Sum>(rows.next_multiple_of(MR) * kc);
            for (s, strip) in packed_a.chunks_exact_mut(MR * kc).enumerate() {
                pack::<T, MR>(a, i0 + s * MR, k0, kc, strip);
            }
            simd::dispatch(Block::<T, MR, NR> { a: &packed_a, b: packed_b, c, ldc, rows, n, kc, add });
        };
        if parallel && m * n * kc > 32 * 1024 {
            packed_b.par_chunks_exact_mut(NR * kc).enumerate().for_each(strip);
            c.par_chunks_mut(MC * ldc).take(m.div_ceil(MC)).enumerate().for_each(|x| block(x, packed_b));
        } else {
            packed_b.chunks_exact_mut(NR * kc).enumerate().for_each(strip);
            c.chunks_mut(MC * ldc).take(m.div_ceil(MC)).enumerate().for_each(|x| block(x, packed_b));
        }
    }
}

/// Copies `W` rows of `a` from `i0` and columns `k0..k0 + kc` to `to[p * W + i]`, widened, with zeros past the last row.
fn pack<T: Real, const W: usize>(a: Mat<T>, i0: usize, k0: usize, kc: usize, to: &mut [T::Sum]) {
    let rows = W.min(a.rows - i0);
    if rows < W {
        to.fill(T::Sum::ZERO);
    }
    let from = &a.data[i0 * a.row_stride + k0 * a.col_stride..];
    if a.row_stride == 1 {
        for (p, to) in to.chunks_exact_mut(W).take(kc).enumerate() {
            let from = &from[p * a.col_stride..][..rows];
            to.iter_mut().zip(from).for_each(|(to, x)| *to = x.widen());
        }
    } else {
        for i in 0..rows {
            let row = &from[i * a.row_stride..];
            for (p, to) in to.chunks_exact_mut(W).take(kc).enumerate() {
                to[i] = row[p * a.col_stride].widen();
            }
        }
    }
}

/// A block of rows of C against all of packed B.
struct Block<'a, T: Real, const MR: usize, const NR: usize> {
    a: &'a [T::Sum],
    b: &'a [T::Sum],
    c: &'a mut [T],
    ldc: usize,
    rows: usize,
    n: usize,
    kc: usize,
    add: bool,
}

impl<T: Real, const MR: usize, const NR: usize> Kernel for Block<'_, T, MR, NR> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Block { a, b, c, ldc, rows, n, kc, add } = self;
        for (j, b) in b.chunks_exact(NR * kc).enumerate() {
            let cols = NR.min(n - j * NR);
            for (i, a) in a.chunks_exact(MR * kc).enumerate() {
                let tile = micro::<T::Sum, MR, NR, FMA>(a, b);
                for (i, tile) in (i * MR..rows.min((i + 1) * MR)).zip(&tile) {
                    let c = &mut c[i * ldc + j * NR..][..cols];
                    for (c, &t) in c.iter_mut().zip(tile) {
                        *c = T::round(if add { c.widen() + t } else { t });
                    }
                }
            }
        }
    }
}

/// The tile Σₚ a[p, ·]ᵀ b[p, ·] of one strip of A and one of B.
#[inline(always)]
fn micro<T: Float, const MR: usize, const NR: usize, const FMA: bool>(a: &[T], b: &[T]) -> [[T; NR]; MR] {
    let mut tile = [[T::ZERO; NR]; MR];
    for (a, b) in a.as_chunks::<MR>().0.iter().zip(b.as_chunks::<NR>().0) {
        for i in 0..MR {
            for j in 0..NR {
                tile[i][j] = if FMA { a[i].mul_add(b[j], tile[i][j]) } else { tile[i][j] + a[i] * b[j] };
            }
        }
    }
    tile
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::philox::Stream;
    use proptest::prelude::*;

    fn naive(a: Mat<f64>, b: Mat<f64>) -> Vec<f64> {
        let at = |m: Mat<f64>, i: usize, j: usize| m.data[i * m.row_stride + j * m.col_stride];
        (0..a.rows).flat_map(|i| (0..b.cols).map(move |j| (0..a.cols).map(|p| at(a, i, p) * at(b, p, j)).sum())).collect()
    }

    fn stored<T>(data: &[T], rows: usize, cols: usize, transposed: bool) -> Mat<'_, T> {
        if transposed { Mat::new(data, cols, rows).t() } else { Mat::new(data, rows, cols) }
    }

    proptest! {
        #[test]
        fn every_layout_equals_the_triple_loop(
            (m, n, k) in prop_oneof![(1usize..20, 1usize..40, 1usize..30), (1usize..70, 1usize..70, 200usize..600), Just((1, 1, 1))],
            (ta, tb, accumulate, parallel) in any::<(bool, bool, bool, bool)>(), pad in 0usize..3, seed: u64,
        ) {
            let mut s = Stream::new(seed, "gemm");
            let a: Vec<f64> = (0..m * k).map(|_| s.uniform() - 0.5).collect();
            let b: Vec<f64> = (0..k * n).map(|_| s.uniform() - 0.5).collect();
            let ldc = n + pad;
            let c0: Vec<f64> = (0..m * ldc).map(|_| s.uniform() - 0.5).collect();
            let product = naive(stored(&a, m, k, ta), stored(&b, k, n, tb));
            let want = |i: usize| if i % ldc >= n { c0[i] } else { product[i / ldc * n + i % ldc] + if accumulate { c0[i] } else { 0.0 } };
            let run64 = |c: &mut [f64]| run(stored(&a, m, k, ta), stored(&b, k, n, tb), c, ldc, accumulate, parallel);
            let mut c = c0.clone();
            run64(&mut c);
            for (i, c) in c.iter().enumerate() {
                prop_assert!((c - want(i)).abs() < 1e-12 * (1.0 + k as f64), "f64 at {i}: {c} {}", want(i));
            }
            let narrow = |v: &[f64]| v.iter().map(|&x| x as f32).collect::<Vec<_>>();
            let (a32, b32, mut c32) = (narrow(&a), narrow(&b), narrow(&c0));
            run(stored(&a32, m, k, ta), stored(&b32, k, n, tb), &mut c32, ldc, accumulate, parallel);
            for (i, c) in c32.iter().enumerate() {
                prop_assert!((f64::from(*c) - want(i)).abs() < 1e-6 * (1.0 + (k as f64).sqrt()), "f32 at {i}: {c} {}", want(i));
            }
        }
    }
}
