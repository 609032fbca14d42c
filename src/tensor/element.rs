//! Element types, and the two numeric traits that kernels are generic over.

use super::simd;
use super::storage::{Host, Pooled};
use half::{bf16, f16};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub};

/// Type of the elements of a [`Tensor`](super::Tensor).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 64-bit float: for gradient checks, host only.
    F64,
    /// The upper half of an f32.
    BF16,
    /// IEEE half: storage only, converted on load and save.
    F16,
    /// Unsigned 32-bit integer: token ids and offsets.
    U32,
}

impl DType {
    /// Every data type.
    pub const ALL: [DType; 5] = [DType::F32, DType::F64, DType::BF16, DType::F16, DType::U32];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::U32 => 4,
            DType::BF16 | DType::F16 => 2,
        }
    }

    /// The type that sums of it, and what trains beside it, are kept in: f32 for the 16-bit floats, else itself.
    pub fn accum(self) -> DType {
        match self {
            DType::BF16 | DType::F16 => DType::F32,
            other => other,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A Rust type that a tensor can hold. Sealed: the five types of [`DType`].
pub trait Element:
    Copy
    + Default
    + PartialEq
    + Send
    + Sync
    + fmt::Debug
    + zerocopy::FromBytes
    + zerocopy::IntoBytes
    + zerocopy::Immutable
    + sealed::Buffered
    + 'static
{
    /// Its data type.
    const DTYPE: DType;
}

pub(super) mod sealed {
    use super::{Host, Pooled};
    use crate::tensor::storage::FreeLists;

    /// How an element type finds its buffers.
    pub trait Buffered: Sized {
        fn wrap(buffer: Pooled<Self>) -> Host
        where
            Self: super::Element;
        fn peek(host: &Host) -> Option<&Pooled<Self>>
        where
            Self: super::Element;
        fn peek_mut(host: &mut Host) -> Option<&mut Pooled<Self>>
        where
            Self: super::Element;
        fn free_lists() -> &'static FreeLists<Self>;
    }
}

macro_rules! elements {
    ($($type:ident $dtype:ident),*) => {$(
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
        impl sealed::Buffered for $type {
            fn wrap(buffer: Pooled<Self>) -> Host {
                Host::$dtype(buffer)
            }
            fn peek(host: &Host) -> Option<&Pooled<Self>> {
                if let Host::$dtype(buffer) = host { Some(buffer) } else { None }
            }
            fn peek_mut(host: &mut Host) -> Option<&mut Pooled<Self>> {
                if let Host::$dtype(buffer) = host { Some(buffer) } else { None }
            }
            fn free_lists() -> &'static super::storage::FreeLists<Self> {
                static LISTS: super::storage::FreeLists<$type> = super::storage::FreeLists::new();
                &LISTS
            }
        }
    )*};
}
elements!(f32 F32, f64 F64, bf16 BF16, f16 F16, u32 U32);

/// A floating-point element that kernels read and write; sums are kept in [`Scalar::Acc`].
pub trait Scalar: Element {
    /// What sums inside an op are kept in: f32 for bf16, else the type itself.
    type Acc: Accum;
    /// The value in the wider type.
    fn widen(self) -> Self::Acc;
    /// Rounds once, to nearest even.
    fn narrow(x: Self::Acc) -> Self;
    /// Numbers for a matrix product to read.
    fn source(data: &[Self]) -> super::gemm::Elements<'_, Self::Acc>;
    /// Rounds every number; without a copy if there is nothing to round.
    fn narrow_all(sums: Pooled<Self::Acc>) -> Pooled<Self>;
}

/// A type that arithmetic is done in.
pub trait Accum:
    Scalar<Acc = Self>
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + MulAssign
    + Sum
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Rounds an f64 constant.
    fn of(x: f64) -> Self;
    /// The value as f64.
    fn f64(self) -> f64;
    /// self · a + b, rounded once. Slow where the processor has no such instruction.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// e^self; `fma` as in [`math`](super::math).
    fn exp(self, fma: bool) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Error function, and e^(−self²), which that of f32 takes anyway; `fma` as in [`math`](super::math).
    fn erf(self, fma: bool) -> (Self, Self);
}

macro_rules! floats {
    ($($type:ident $exp:expr, $erf:expr);*) => {$(
        impl Scalar for $type {
            type Acc = $type;
            #[inline(always)]
            fn widen(self) -> $type { self }
            #[inline(always)]
            fn narrow(x: $type) -> $type { x }
            fn source(data: &[$type]) -> super::gemm::Elements<'_, $type> { super::gemm::Elements::Same(data) }
            fn narrow_all(sums: Pooled<$type>) -> Pooled<$type> { sums }
        }
        impl Accum for $type {
            const ZERO: $type = 0.0;
            const ONE: $type = 1.0;
            #[inline(always)]
            fn of(x: f64) -> $type { x as $type }
            #[inline(always)]
            fn f64(self) -> f64 { self.into() }
            #[inline(always)]
            fn mul_add(self, a: $type, b: $type) -> $type { $type::mul_add(self, a, b) }
            #[inline(always)]
            fn exp(self, fma: bool) -> $type { $exp(self, fma) }
            #[inline(always)]
            fn ln(self) -> $type { $type::ln(self) }
            #[inline(always)]
            fn sqrt(self) -> $type { $type::sqrt(self) }
            #[inline(always)]
            fn tanh(self) -> $type { $type::tanh(self) }
            #[inline(always)]
            fn erf(self, fma: bool) -> ($type, $type) { $erf(self, fma) }
        }
    )*};
}
floats!(f32 super::math::exp, super::math::erf; f64 |x: f64, _| x.exp(), |x: f64, _| (libm::erf(x), (-x * x).exp()));

impl Scalar for bf16 {
    type Acc = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        // To nearest even; a NaN stays one. Without a branch, so that loops become vector code.
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
        bf16::from_bits(if x.is_nan() { (bits >> 16 | 0x40) as u16 } else { rounded as u16 })
    }
    fn source(data: &[bf16]) -> super::gemm::Elements<'_, f32> {
        super::gemm::Elements::BF16(data)
    }
    fn narrow_all(sums: Pooled<f32>) -> Pooled<bf16> {
        let mut rounded = super::alloc(sums.len());
        super::rows::for_each(&mut rounded, 1, |at, to: &mut [bf16]| {
            simd::vectorised(|| to.iter_mut().zip(&sums[at..]).for_each(|(to, &x)| *to = bf16::narrow(x)));
        });
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even() {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE, 1e-40];
        let halfway =
            (0..=u16::MAX).step_by(7).flat_map(|high| [0x7FFF, 0x8000, 0x8001].map(|low| f32::from_bits(u32::from(high) << 16 | low)));
        for x in halfway.chain(special) {
            let (ours, theirs) = (bf16::narrow(x), bf16::from_f32(x));
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{x}: {ours} {theirs}");
        }
    }
}
