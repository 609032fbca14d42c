//! The micro-kernels: a tile of C, computed in registers.
//!
//! They are plain loops, which the compiler turns into vector code. Its code spills registers, so there are intrinsics too. Each computes what the plain
//! loop computes, in the same order, and the tests compare them.
#![allow(unsafe_code)]

use super::call::{Call, prefetch_ahead};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::tensor::simd::Isa;
use crate::tensor::{Accum, DType, Scalar};
use half::bf16;

/// The elements that a micro-kernel multiplies: of the accumulator type S, or pairs of bf16.
pub(super) trait Operand<S>: Scalar {
    /// Elements of the inner dimension per multiply (bf16: 2). They are next to each other in memory.
    const AT_ONCE: usize;

    /// The tile Σₚ a[·, p] b[p, ·], as plain loops.
    ///
    /// # Safety
    /// As for [`tile`].
    unsafe fn loops<D, const MR: usize, const NR: usize, const FMA: bool>(call: &Call<Self, S, D, MR>) -> [[S; NR]; MR];

    /// [`tile`] in intrinsics. Returns false, and does nothing, if there are none for `hardware` and these columns.
    ///
    /// # Safety
    /// As for [`tile`]; and S is f32, so D is f32 or bf16.
    #[cfg(target_arch = "x86_64")]
    unsafe fn vectors<D: Scalar, const MR: usize, const NR: usize>(hardware: Isa, call: &Call<Self, S, D, MR>) -> bool;
}

/// `to = start + Σₚ a[·, p] b[p, ·]`, rounded at the end, on `hardware`.
///
/// # Safety
/// - For each row i and each p < b.len() / (NR · AT_ONCE), the AT_ONCE elements at `a[i] + p · step` can be read.
/// - `start` and `to` have `height` rows of NR elements. They are the same rows, or do not overlap.
/// - The processor has `hardware`.
#[inline(always)]
pub(super) unsafe fn tile<T: Operand<S>, S: Accum, D: Scalar<Acc = S>, const MR: usize, const NR: usize, const FMA: bool>(
    hardware: Isa,
    call: &Call<T, S, D, MR>,
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: S is f32, as just checked, so D is f32 or bf16. The rest is the caller's promise.
    if S::DTYPE == DType::F32 && unsafe { T::vectors::<D, MR, NR>(hardware, call) } {
        return;
    }
    // SAFETY: the caller's promise.
    let tile = unsafe { T::loops::<D, MR, NR, FMA>(call) };
    let Call { start, to, height, .. } = call;
    for (i, tile) in tile.iter().enumerate().take(*height) {
        // SAFETY: i < height, so both have row i, with NR elements.
        let (start, to) = unsafe { (*start.at.add(i * start.stride).cast::<[S; NR]>(), &mut *to.at.add(i * to.stride).cast::<[D; NR]>()) };
        for j in 0..NR {
            to[j] = D::narrow(start[j] + tile[j]);
        }
    }
}

impl<S: Accum> Operand<S> for S {
    const AT_ONCE: usize = 1;

    #[inline(always)]
    unsafe fn loops<D, const MR: usize, const NR: usize, const FMA: bool>(
        &Call { a, step, b, ahead, .. }: &Call<S, S, D, MR>,
    ) -> [[S; NR]; MR] {
        let mut tile = [[S::ZERO; NR]; MR];
        for (p, b) in b.as_chunks::<NR>().0.iter().enumerate() {
            prefetch_ahead::<S, S, MR>(ahead, p, NR);
            for i in 0..MR {
                // SAFETY: p < b.len() / NR, so the caller promises this element.
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
    unsafe fn vectors<D: Scalar, const MR: usize, const NR: usize>(hardware: Isa, call: &Call<S, S, D, MR>) -> bool {
        // SAFETY: S is f32, so the cast does not change the type. The processor has the instruction sets that are compared with `hardware`. A row has NR
        // elements. The rest is the caller's promise.
        unsafe {
            let call = &*std::ptr::from_ref(call).cast();
            match NR {
                8 if hardware == Isa::Avx2 => avx2::numbers::<D, MR, 1>(call),
                16 if hardware == Isa::Avx2 => avx2::numbers::<D, MR, 2>(call),
                16 if hardware >= Isa::Avx512 => avx512::numbers::<D, MR, 1>(call),
                32 if hardware >= Isa::Avx512 => avx512::numbers::<D, MR, 2>(call),
                48 if hardware >= Isa::Avx512 => avx512::numbers::<D, MR, 3>(call),
                _ => return false,
            }
        }
        true
    }
}

impl<S: Accum> Operand<S> for bf16 {
    const AT_ONCE: usize = 2;

    #[inline(always)]
    unsafe fn loops<D, const MR: usize, const NR: usize, const FMA: bool>(
        &Call { a, step, b, .. }: &Call<bf16, S, D, MR>,
    ) -> [[S; NR]; MR] {
        let mut tile = [[S::ZERO; NR]; MR];
        let widen = |x: bf16| S::of(x.widen().into());
        for (p, b) in b.chunks_exact(2 * NR).enumerate() {
            for i in 0..MR {
                // SAFETY: p < b.len() / (2 NR), so the caller promises these two elements.
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
    unsafe fn vectors<D: Scalar, const MR: usize, const NR: usize>(hardware: Isa, call: &Call<bf16, S, D, MR>) -> bool {
        if hardware < Isa::Avx512Bf16 {
            return false;
        }
        // SAFETY: S is f32, so the cast does not change the type. The processor has AVX512-BF16. A row has NR pairs. The rest is the caller's promise.
        unsafe {
            let call = &*std::ptr::from_ref(call).cast();
            match NR {
                16 => avx512::pairs::<D, MR, 1>(call),
                32 => avx512::pairs::<D, MR, 2>(call),
                48 => avx512::pairs::<D, MR, 3>(call),
                _ => return false,
            }
        }
        true
    }
}
