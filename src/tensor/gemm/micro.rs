//! The micro-kernels: a tile of C, computed in registers.
//!
//! Plain loops, which the compiler turns to vector code; for AVX-512, whose tiles are too large for it, intrinsics. Each of those computes
//! what the loop beside it does, and is tested as such.

use crate::tensor::simd::Isa;
use crate::tensor::{DType, Float, Real};
use half::bf16;

/// What a micro-kernel multiplies: numbers in the type of sums `S`, or pairs of bf16.
pub(super) trait Operand<S>: Real {
    /// So many numbers of a row of A, or of a column of B, lie side by side and are multiplied at once.
    const AT_ONCE: usize;

    /// The tile Σₚ a[·, p] b[p, ·] of `MR` rows of A and a strip of B, on `hardware`.
    ///
    /// # Safety
    /// `AT_ONCE` numbers at `a + offsets[i] + p · step` can be read for every i and every p < b.len() / (NR · AT_ONCE). The processor has
    /// `hardware`.
    unsafe fn tile<const MR: usize, const NR: usize, const FMA: bool>(
        hardware: Isa,
        a: *const Self,
        offsets: [usize; MR],
        step: usize,
        b: &[Self],
    ) -> [[S; NR]; MR];
}

impl<S: Float> Operand<S> for S {
    const AT_ONCE: usize = 1;

    #[inline(always)]
    unsafe fn tile<const MR: usize, const NR: usize, const FMA: bool>(
        hardware: Isa,
        a: *const S,
        offsets: [usize; MR],
        step: usize,
        b: &[S],
    ) -> [[S; NR]; MR] {
        #[cfg(target_arch = "x86_64")]
        if NR.is_multiple_of(x86::LANES) && S::DTYPE == DType::F32 && hardware >= Isa::Avx512 {
            let mut tile = [[S::ZERO; NR]; MR];
            let (a, b, depth, to) = (a.cast(), b.as_ptr().cast(), b.len() / NR, tile.as_mut_ptr().cast());
            // SAFETY: S is f32, the strip has depth · NR numbers, the tile MR · NR; A is the caller's promise.
            unsafe {
                match NR / x86::LANES {
                    1 => x86::numbers::<MR, 1>(a, &offsets, step, b, depth, to),
                    2 => x86::numbers::<MR, 2>(a, &offsets, step, b, depth, to),
                    _ => x86::numbers::<MR, 3>(a, &offsets, step, b, depth, to),
                }
            }
            return tile;
        }
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
}

impl<S: Float> Operand<S> for bf16 {
    const AT_ONCE: usize = 2;

    #[inline(always)]
    unsafe fn tile<const MR: usize, const NR: usize, const FMA: bool>(
        hardware: Isa,
        a: *const bf16,
        offsets: [usize; MR],
        step: usize,
        b: &[bf16],
    ) -> [[S; NR]; MR] {
        #[cfg(target_arch = "x86_64")]
        if NR.is_multiple_of(x86::LANES) && S::DTYPE == DType::F32 && hardware >= Isa::Avx512Bf16 {
            let mut tile = [[S::ZERO; NR]; MR];
            let (b, depth, to) = (b.as_ptr(), b.len() / (2 * NR), tile.as_mut_ptr().cast());
            // SAFETY: S is f32, the strip has depth · NR pairs, the tile MR · NR numbers; A is the caller's promise.
            unsafe {
                match NR / x86::LANES {
                    1 => x86::pairs::<MR, 1>(a, &offsets, step, b, depth, to),
                    2 => x86::pairs::<MR, 2>(a, &offsets, step, b, depth, to),
                    _ => x86::pairs::<MR, 3>(a, &offsets, step, b, depth, to),
                }
            }
            return tile;
        }
        let mut tile = [[S::ZERO; NR]; MR];
        let widen = |x: bf16| S::of(x.widen().into());
        for (p, b) in b.chunks_exact(2 * NR).enumerate() {
            for i in 0..MR {
                // SAFETY: p < b.len() / (2 NR).
                let a = unsafe { a.add(offsets[i] + p * step).cast::<[bf16; 2]>().read() };
                for (sum, b) in tile[i].iter_mut().zip(b.as_chunks::<2>().0) {
                    *sum = *sum + widen(a[1]) * widen(b[1]) + widen(a[0]) * widen(b[0]);
                }
            }
        }
        tile
    }
}

/// With AVX-512: a row of the tile is `V` registers of 16 numbers.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use half::bf16;
    use std::arch::x86_64::*;

    pub const LANES: usize = 16;

    /// # Safety
    /// As [`super::Operand::tile`]; `b` has `depth` rows of `V` registers, `tile` `MR`.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn numbers<const MR: usize, const V: usize>(
        a: *const f32,
        offsets: &[usize; MR],
        step: usize,
        b: *const f32,
        depth: usize,
        tile: *mut f32,
    ) {
        let rows = offsets.map(|at| a.wrapping_add(at));
        let mut sums = [[_mm512_setzero_ps(); V]; MR];
        for p in 0..depth {
            // SAFETY: p < depth.
            unsafe {
                let b: [__m512; V] = std::array::from_fn(|j| _mm512_loadu_ps(b.add((p * V + j) * LANES)));
                for i in 0..MR {
                    let a = _mm512_set1_ps(*rows[i].add(p * step));
                    for j in 0..V {
                        sums[i][j] = _mm512_fmadd_ps(a, b[j], sums[i][j]);
                    }
                }
            }
        }
        // SAFETY: the tile is as large as the sums.
        unsafe { put(&sums, tile) };
    }

    /// VDPBF16PS adds the second product of a pair, then the first, each rounded to f32; it takes subnormal numbers as zero.
    ///
    /// # Safety
    /// As [`super::Operand::tile`]; `b` has `depth` rows of `V` registers of pairs, `tile` `MR` of numbers.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn pairs<const MR: usize, const V: usize>(
        a: *const bf16,
        offsets: &[usize; MR],
        step: usize,
        b: *const bf16,
        depth: usize,
        tile: *mut f32,
    ) {
        let rows = offsets.map(|at| a.wrapping_add(at));
        let mut sums = [[_mm512_setzero_ps(); V]; MR];
        for p in 0..depth {
            // SAFETY: p < depth. A register holds the same 512 bits whatever they stand for.
            unsafe {
                let b: [__m512bh; V] =
                    std::array::from_fn(|j| std::mem::transmute(_mm512_loadu_si512(b.add((p * V + j) * 2 * LANES).cast())));
                for i in 0..MR {
                    let a: __m512bh = std::mem::transmute(_mm512_set1_epi32(rows[i].add(p * step).cast::<i32>().read_unaligned()));
                    for j in 0..V {
                        sums[i][j] = _mm512_dpbf16_ps(sums[i][j], a, b[j]);
                    }
                }
            }
        }
        // SAFETY: the tile is as large as the sums.
        unsafe { put(&sums, tile) };
    }

    /// # Safety
    /// `tile` has room for the sums.
    #[target_feature(enable = "avx512f")]
    unsafe fn put<const MR: usize, const V: usize>(sums: &[[__m512; V]; MR], tile: *mut f32) {
        for (at, &sum) in sums.as_flattened().iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_ps(tile.add(at * LANES), sum) };
        }
    }
}
