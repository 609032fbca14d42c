//! The micro-kernel in AVX2 intrinsics. A register has 8 elements of 32 bits.
//!
//! The compiler's code for the plain loop is as fast inside the loop. But it moves the tile through memory before and after it, and spills addresses: at a
//! depth of 384 this took a twelfth of the time.
#![allow(unsafe_code)]

use super::call::{Call, prefetch_ahead};
use crate::tensor::{DType, Scalar};
use std::arch::x86_64::*;

/// Elements of 32 bits in a register.
const LANES: usize = 8;

/// `to = start + Σₚ a[·, p] b[p, ·]` in f32.
///
/// # Safety
/// As for [`tile`](super::micro::tile); `b` has rows of `V` registers; D is f32 or bf16.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn numbers<D: Scalar, const MR: usize, const V: usize>(call: &Call<f32, f32, D, MR>) {
    let &Call { a, step, b, ahead, .. } = call;
    let (b, depth) = (b.as_ptr(), b.len() / (V * LANES));
    let mut sums = [[_mm256_setzero_ps(); V]; MR];
    for p in 0..depth {
        prefetch_ahead::<f32, f32, MR>(ahead, p, V * LANES);
        // SAFETY: p < depth, so the caller promises these elements.
        unsafe {
            let b: [__m256; V] = std::array::from_fn(|j| _mm256_loadu_ps(b.add((p * V + j) * LANES)));
            for i in 0..MR {
                let a = _mm256_broadcast_ss(&*a[i].add(p * step));
                for j in 0..V {
                    sums[i][j] = _mm256_fmadd_ps(a, b[j], sums[i][j]);
                }
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { put(&sums, call) };
}

/// `to = start + sums`, in the first `height` rows.
///
/// # Safety
/// `start` and `to` have `height` rows of `V` registers; D is f32 or bf16.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn put<D: Scalar, const MR: usize, const V: usize>(
    sums: &[[__m256; V]; MR],
    &Call { start, to, height, .. }: &Call<f32, f32, D, MR>,
) {
    // The loop has a constant number of turns, MR. With `height` turns the sums would not stay in registers.
    for (i, row) in sums.iter().enumerate() {
        if i >= height {
            return;
        }
        for (j, &sum) in row.iter().enumerate() {
            // SAFETY: i < height, and the caller promises these rows. D is f32 or bf16, so the bytes written are one row of D.
            unsafe {
                let start = _mm256_loadu_ps(start.at.add(i * start.stride + j * LANES));
                let (sum, to) = (_mm256_add_ps(start, sum), to.at.add(i * to.stride + j * LANES));
                match D::DTYPE {
                    DType::BF16 => _mm_storeu_si128(to.cast(), round(sum)),
                    _ => _mm256_storeu_ps(to.cast(), sum),
                }
            }
        }
    }
}

/// Rounds to bf16 as `bf16::narrow` does: to nearest even; a NaN stays a NaN.
#[target_feature(enable = "avx2")]
#[inline]
fn round(x: __m256) -> __m128i {
    let bits = _mm256_castps_si256(x);
    let upper = _mm256_srli_epi32::<16>(bits);
    let even = _mm256_add_epi32(_mm256_and_si256(upper, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7FFF));
    let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, even));
    let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
    let words = _mm256_blendv_epi8(rounded, _mm256_or_si256(upper, _mm256_set1_epi32(0x40)), nan);
    // Each 128-bit lane packs its four words: they are the first and the third quarter.
    let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(words, words));
    _mm256_castsi256_si128(packed)
}
