//! What is written with AVX-512 intrinsics: the micro-kernels and a transposition. A register has 16 elements of 32 bits.
#![allow(unsafe_code)]

use super::call::{Call, prefetch_ahead};
use crate::tensor::{DType, Scalar};
use half::bf16;
use std::arch::x86_64::*;

/// Elements of 32 bits in a register.
pub(super) const LANES: usize = 16;

/// `to = start + Σₚ a[·, p] b[p, ·]` in f32.
///
/// # Safety
/// As for [`tile`](super::micro::tile); `b` has rows of `V` registers; D is f32 or bf16.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn numbers<D: Scalar, const MR: usize, const V: usize>(call: &Call<f32, f32, D, MR>) {
    let &Call { a, step, b, ahead, .. } = call;
    let (b, depth) = (b.as_ptr(), b.len() / (V * LANES));
    let mut sums = [[_mm512_setzero_ps(); V]; MR];
    for p in 0..depth {
        prefetch_ahead::<f32, f32, MR>(ahead, p, V * LANES);
        // SAFETY: p < depth, so the caller promises these elements.
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
    unsafe { put(&sums, call) };
}

/// The same for pairs of bf16. VDPBF16PS adds the second product of a pair, then the first, and rounds each sum to f32. It takes subnormal
/// numbers as zero.
///
/// # Safety
/// As for [`tile`](super::micro::tile); `b` has rows of `V` registers of pairs; D is f32 or bf16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn pairs<D: Scalar, const MR: usize, const V: usize>(call: &Call<bf16, f32, D, MR>) {
    let &Call { a, step, b, ahead, .. } = call;
    let (b, depth) = (b.as_ptr(), b.len() / (2 * V * LANES));
    let mut sums = [[_mm512_setzero_ps(); V]; MR];
    for p in 0..depth {
        prefetch_ahead::<bf16, f32, MR>(ahead, p, V * LANES);
        // SAFETY: p < depth, so the caller promises these elements. A transmute changes only the type of the 512 bits.
        unsafe {
            let b: [__m512bh; V] = std::array::from_fn(|j| std::mem::transmute(_mm512_loadu_si512(b.add((p * V + j) * 2 * LANES).cast())));
            for i in 0..MR {
                let a: __m512bh = std::mem::transmute(_mm512_set1_epi32(a[i].add(p * step).cast::<i32>().read_unaligned()));
                for j in 0..V {
                    sums[i][j] = _mm512_dpbf16_ps(sums[i][j], a, b[j]);
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
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn put<T, D: Scalar, const MR: usize, const V: usize>(
    sums: &[[__m512; V]; MR],
    &Call { start, to, height, .. }: &Call<T, f32, D, MR>,
) {
    // The loop has a constant number of turns, MR. With `height` turns the sums would not stay in registers.
    for (i, row) in sums.iter().enumerate() {
        if i >= height {
            return;
        }
        for (j, &sum) in row.iter().enumerate() {
            // SAFETY: i < height, and the caller promises these rows. D is f32 or bf16, so the bytes written are one row of D.
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

/// Rounds to bf16 as `bf16::narrow` does: to nearest even; a NaN stays a NaN.
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

/// Transposes 16 × 16 elements of 32 bits: element j of `rows[i]` goes to `to[j * stride + i]`. If T has 16 bits, it is bf16, which becomes f32.
///
/// # Safety
/// Each row has 16 elements. `to` has 16 rows of 16 elements, `stride` elements apart.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose<T>(rows: [*const T; LANES], to: *mut i32, stride: usize) {
    let mut a = [_mm512_setzero_si512(); LANES];
    let mut b = a;
    for i in 0..LANES {
        // SAFETY: the caller's promise.
        a[i] = unsafe {
            match size_of::<T>() {
                2 => _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(rows[i].cast()))),
                _ => _mm512_loadu_si512(rows[i].cast()),
            }
        };
    }
    // Within each 128-bit lane of 4 elements: interleave rows 2i and 2i + 1, then the results with those of the next two rows.
    for i in 0..LANES / 2 {
        b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for i in 0..LANES / 4 {
        a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
        a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
    }
    // Now lane l of a[4g + c] is column 4l + c of rows 4g to 4g + 3. Move lane l of group g to lane g of group l.
    for c in 0..4 {
        let (even_low, odd_low) = (_mm512_shuffle_i32x4::<0x88>(a[c], a[4 + c]), _mm512_shuffle_i32x4::<0xDD>(a[c], a[4 + c]));
        let (even_high, odd_high) = (_mm512_shuffle_i32x4::<0x88>(a[8 + c], a[12 + c]), _mm512_shuffle_i32x4::<0xDD>(a[8 + c], a[12 + c]));
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
