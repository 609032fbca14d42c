//! Transposing columns of B while they are packed.
#![allow(unsafe_code)]

use super::blocking::LINE;
use crate::tensor::simd::{self, Isa};

/// Columns that are copied together. Their cache lines stay in the first-level cache until all elements in them are used. This number of 32-bit
/// elements fills a register of AVX-512.
pub(super) const GROUP: usize = 16;

/// Prefetches `len` elements that will be read some strides after `at`. They are on other pages, where the processor does not prefetch by itself.
#[inline(always)]
pub(super) fn prefetch_ahead<T>(from: &[T], at: usize, stride: usize, len: usize) {
    const STRIDES: usize = 16;
    let ahead = from.as_ptr().wrapping_add(at + STRIDES * stride);
    (0..len).step_by(LINE / size_of::<T>()).for_each(|i| simd::prefetch(ahead.wrapping_add(i)));
}

/// Element p of column j goes to `to[p * nr + j]`.
#[inline(always)]
pub(super) fn transpose<T: Copy, U: Copy>(columns: [&[T]; GROUP], to: &mut [U], nr: usize, convert: impl Fn(T) -> U) {
    let len = columns[0].len();
    #[allow(unused_mut)]
    let mut done = 0;
    // T and U of 32 bits are both f32, or both a pair of bf16. `convert` is then the identity, so the bits may be copied. A T of 16 bits is bf16, and
    // U is f32.
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() <= 4 && size_of::<U>() == 4 && simd::isa() >= Isa::Avx512 && len >= GROUP {
        done = len / GROUP * GROUP;
        assert!(columns.iter().all(|c| c.len() == len) && (done - 1) * nr + GROUP <= to.len());
        for p in (0..done).step_by(GROUP) {
            let columns = columns.map(|column| column[p..].as_ptr());
            // SAFETY: p + GROUP ≤ done ≤ len, so each column has GROUP elements from p on. Row p + GROUP - 1 of `to` has room for GROUP
            // elements, as asserted. The processor has AVX-512.
            unsafe { super::avx512::transpose::<T>(columns, to[p * nr..].as_mut_ptr().cast(), nr) };
        }
    }
    for (p, to) in to.chunks_mut(nr).enumerate().take(len).skip(done) {
        for (to, column) in to.iter_mut().zip(&columns) {
            *to = convert(column[p]);
        }
    }
}
