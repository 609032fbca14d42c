//! The micro-kernels: a tile of C, computed in registers.
//!
//! Plain loops, which the compiler turns to vector code; for AVX-512, whose tiles are too large for it, intrinsics. Each of those computes
//! what the loop beside it does, and is tested as such.

use crate::tensor::simd::Isa;
use crate::tensor::{Accum, DType, Scalar};
use half::bf16;

/// Rows of numbers, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Place<S> {
    pub at: *mut S,
    pub stride: usize,
}

/// What a micro-kernel multiplies: numbers in the type of sums `S`, or pairs of bf16.
pub(super) trait Operand<S>: Scalar {
    /// So many numbers of a row of A, or of a column of B, lie side by side and are multiplied at once.
    const AT_ONCE: usize;
    /// The first instruction set that [`Operand::vectors`] takes.
    const VECTORS: Isa;

    /// The tile Σₚ a[·, p] b[p, ·].
    ///
    /// # Safety
    /// As [`tile`].
    unsafe fn loops<const MR: usize, const NR: usize, const FMA: bool>(a: &[*const Self; MR], step: usize, b: &[Self]) -> [[S; NR]; MR];

    /// `to = start + Σₚ a[·, p] b[p, ·]` with AVX-512, a row of the tile being `V` registers.
    ///
    /// # Safety
    /// As [`tile`], and S is f32, so D is f32 or bf16.
    #[cfg(target_arch = "x86_64")]
    unsafe fn vectors<D: Scalar, const MR: usize, const V: usize>(
        a: &[*const Self; MR],
        step: usize,
        b: &[Self],
        start: Place<f32>,
        to: Place<D>,
        height: usize,
    );
}

/// `to = start + Σₚ a[·, p] b[p, ·]` of the first `height` of `MR` rows of A and a strip of B, rounded at the end, on `hardware`.
///
/// # Safety
/// `AT_ONCE` numbers at `a[i] + p · step` can be read for every i and every p < b.len() / (NR · AT_ONCE). `start` and `to` have
/// `height` rows of `NR` numbers, and are the same or apart. The processor has `hardware`.
#[inline(always)]
pub(super) unsafe fn tile<T: Operand<S>, S: Accum, D: Scalar<Acc = S>, const MR: usize, const NR: usize, const FMA: bool>(
    hardware: Isa,
    a: &[*const T; MR],
    step: usize,
    b: &[T],
    start: Place<S>,
    to: Place<D>,
    height: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if NR.is_multiple_of(x86::LANES) && S::DTYPE == DType::F32 && hardware >= T::VECTORS {
        let start = Place { at: start.at.cast(), stride: start.stride };
        // SAFETY: S is f32, so D is f32 or bf16; the rest is the caller's promise.
        unsafe {
            match NR / x86::LANES {
                1 => T::vectors::<D, MR, 1>(a, step, b, start, to, height),
                2 => T::vectors::<D, MR, 2>(a, step, b, start, to, height),
                _ => T::vectors::<D, MR, 3>(a, step, b, start, to, height),
            }
        }
        return;
    }
    // SAFETY: the caller's promise.
    let tile = unsafe { T::loops::<MR, NR, FMA>(a, step, b) };
    for (i, tile) in tile.iter().enumerate().take(height) {
        // SAFETY: both have row i.
        let (start, to) = unsafe { (*start.at.add(i * start.stride).cast::<[S; NR]>(), &mut *to.at.add(i * to.stride).cast::<[D; NR]>()) };
        for j in 0..NR {
            to[j] = D::narrow(start[j] + tile[j]);
        }
    }
}

impl<S: Accum> Operand<S> for S {
    const AT_ONCE: usize = 1;
    const VECTORS: Isa = Isa::Avx512;

    #[inline(always)]
    unsafe fn loops<const MR: usize, const NR: usize, const FMA: bool>(a: &[*const S; MR], step: usize, b: &[S]) -> [[S; NR]; MR] {
        let mut tile = [[S::ZERO; NR]; MR];
        for (p, b) in b.as_chunks::<NR>().0.iter().enumerate() {
            for i in 0..MR {
                // SAFETY: p < b.len() / NR.
                let a = unsafe { *a[i].add(p * step) };
                for j in 0..NR {
                    tile[i][j] = if FMA { a.mul_add(b[j], tile[i][j]) } else { tile[i][j] + a * b[j] };
                }
            }
        }
        tile
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn vectors<D: Scalar, const MR: usize, const V: usize>(
        a: &[*const S; MR],
        step: usize,
        b: &[S],
        start: Place<f32>,
        to: Place<D>,
        height: usize,
    ) {
        // SAFETY: the caller's promise: S is f32.
        unsafe {
            x86::numbers::<D, MR, V>(&*std::ptr::from_ref(a).cast(), step, b.as_ptr().cast(), b.len() / (V * x86::LANES), start, to, height)
        };
    }
}

impl<S: Accum> Operand<S> for bf16 {
    const AT_ONCE: usize = 2;
    const VECTORS: Isa = Isa::Avx512Bf16;

    #[inline(always)]
    unsafe fn loops<const MR: usize, const NR: usize, const FMA: bool>(a: &[*const bf16; MR], step: usize, b: &[bf16]) -> [[S; NR]; MR] {
        let mut tile = [[S::ZERO; NR]; MR];
        let widen = |x: bf16| S::of(x.widen().into());
        for (p, b) in b.chunks_exact(2 * NR).enumerate() {
            for i in 0..MR {
                // SAFETY: p < b.len() / (2 NR).
                let a = unsafe { a[i].add(p * step).cast::<[bf16; 2]>().read() };
                for (sum, b) in tile[i].iter_mut().zip(b.as_chunks::<2>().0) {
                    *sum = *sum + widen(a[1]) * widen(b[1]) + widen(a[0]) * widen(b[0]);
                }
            }
        }
        tile
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn vectors<D: Scalar, const MR: usize, const V: usize>(
        a: &[*const bf16; MR],
        step: usize,
        b: &[bf16],
        start: Place<f32>,
        to: Place<D>,
        height: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { x86::pairs::<D, MR, V>(a, step, b.as_ptr(), b.len() / (2 * V * x86::LANES), start, to, height) };
    }
}

/// With AVX-512: a row of the tile is `V` registers of 16 numbers.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Place;
    use crate::tensor::{DType, Scalar};
    use half::bf16;
    use std::arch::x86_64::*;

    pub const LANES: usize = 16;

    /// # Safety
    /// As [`super::tile`]; `b` has `depth` rows of `V` registers.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn numbers<D: Scalar, const MR: usize, const V: usize>(
        a: &[*const f32; MR],
        step: usize,
        b: *const f32,
        depth: usize,
        start: Place<f32>,
        to: Place<D>,
        height: usize,
    ) {
        let mut sums = [[_mm512_setzero_ps(); V]; MR];
        for p in 0..depth {
            // SAFETY: p < depth.
            unsafe {
                let b: [__m512; V] = std::array::from_fn(|j| _mm512_loadu_ps(b.add((p * V + j) * LANES)));
                for i in 0..MR {
                    let a = _mm512_set1_ps(*a[i].add(p * step));
                    for j in 0..V {
                        sums[i][j] = _mm512_fmadd_ps(a, b[j], sums[i][j]);
                    }
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { put(&sums, start, to, height) };
    }

    /// VDPBF16PS adds the second product of a pair, then the first, each rounded to f32; it takes subnormal numbers as zero.
    ///
    /// # Safety
    /// As [`super::tile`]; `b` has `depth` rows of `V` registers of pairs.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn pairs<D: Scalar, const MR: usize, const V: usize>(
        a: &[*const bf16; MR],
        step: usize,
        b: *const bf16,
        depth: usize,
        start: Place<f32>,
        to: Place<D>,
        height: usize,
    ) {
        let mut sums = [[_mm512_setzero_ps(); V]; MR];
        for p in 0..depth {
            // SAFETY: p < depth. A register holds the same 512 bits whatever they stand for.
            unsafe {
                let b: [__m512bh; V] =
                    std::array::from_fn(|j| std::mem::transmute(_mm512_loadu_si512(b.add((p * V + j) * 2 * LANES).cast())));
                for i in 0..MR {
                    let a: __m512bh = std::mem::transmute(_mm512_set1_epi32(a[i].add(p * step).cast::<i32>().read_unaligned()));
                    for j in 0..V {
                        sums[i][j] = _mm512_dpbf16_ps(sums[i][j], a, b[j]);
                    }
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { put(&sums, start, to, height) };
    }

    /// `to = start + sums`, in the first `height` rows.
    ///
    /// # Safety
    /// Both have `height` rows of `V` registers.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn put<D: Scalar, const MR: usize, const V: usize>(sums: &[[__m512; V]; MR], start: Place<f32>, to: Place<D>, height: usize) {
        // As many turns as the tile has rows, or the sums would not stay in registers.
        for (i, row) in sums.iter().enumerate() {
            if i >= height {
                return;
            }
            for (j, &sum) in row.iter().enumerate() {
                // SAFETY: the caller's promise; D is f32 or bf16.
                unsafe {
                    let start = _mm512_loadu_ps(start.at.add(i * start.stride + j * LANES));
                    let (sum, to) = (_mm512_add_ps(start, sum), to.at.add(i * to.stride + j * LANES));
                    match D::DTYPE {
                        DType::BF16 => _mm256_storeu_si256(to.cast(), round(sum)),
                        _ => _mm512_storeu_ps(to.cast(), sum),
                    }
                }
            }
        }
    }

    /// The numbers as bf16: what `bf16::narrow` does.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn round(x: __m512) -> __m256i {
        let bits = _mm512_castps_si512(x);
        let upper = _mm512_srli_epi32::<16>(bits);
        let even = _mm512_add_epi32(_mm512_and_si512(upper, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7FFF));
        let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, even));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x40)))
    }
}
