//! The types of elements: [`DType`] as a value, and the Rust types behind it, with the traits that code on slices is generic over.
//!
//! A loop on the host reads and writes a [`Scalar`] type T: `f32`, `f64` or `bf16`. It computes in the accumulator type `T::Acc` ([`Accum`]: `f32` or `f64`),
//! because a sum of many bf16 numbers would lose most of its digits.

use super::special;
use half::{bf16, f16};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub};

/// The data type of the elements of a [`Tensor`](super::Tensor).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 64-bit float: for gradient checks, and for norms and merged weights. On a GPU no op computes in it.
    F64,
    /// The upper half of an f32: its 8 bits of exponent, and 7 of its 23 bits of mantissa.
    BF16,
    /// IEEE half precision: for storage only, converted on load and save.
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

    /// The accumulator type: f32 for the 16-bit floats, else the type itself. While a model trains, its parameters have this type.
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

/// Kernels read and write elements by address, and trust what a type says of itself. So no other crate can implement [`Element`].
mod sealed {
    pub trait Sealed: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable {}
}

/// A Rust type that a tensor can contain: one for each [`DType`].
pub trait Element: sealed::Sealed + Copy + Default + PartialEq + Send + Sync + fmt::Debug + 'static {
    /// Its data type.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($type:ident $dtype:ident),*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}
elements!(f32 F32, f64 F64, bf16 BF16, f16 F16, u32 U32);

/// The borrowed elements of a matrix, as an input of a matrix product (`gemm/`, the next step of the reading order). The product reads each as the accumulator
/// type `S`.
#[derive(Clone, Copy)]
pub enum Elements<'a, S> {
    /// Elements of type `S`.
    Same(&'a [S]),
    /// Elements of type bf16, for S = f32.
    BF16(&'a [bf16]),
}

/// A floating-point type that host loops read and write.
pub trait Scalar: Element {
    /// The accumulator: the type in which ops compute and sum. f32 for bf16, else the type itself.
    type Acc: Accum;
    /// The same value in the accumulator type.
    fn widen(self) -> Self::Acc;
    /// Rounds to nearest even.
    fn narrow(x: Self::Acc) -> Self;
    /// The elements as the input of a matrix product.
    fn source(data: &[Self]) -> Elements<'_, Self::Acc>;
}

/// A type of accumulators, with the arithmetic that ops need: `f32` or `f64`.
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
    /// Rounds an f64.
    fn of(x: f64) -> Self;
    /// The value as f64.
    fn f64(self) -> f64;
    /// self · a + b, rounded once. Slow on processors without such an instruction.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// e^self. `fma`: whether [`Accum::mul_add`] is one fast instruction. A loop is compiled for several instruction sets, and knows it
    /// ([`simd`](super::simd)).
    fn exp(self, fma: bool) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The pair (erf(self), e^(−self²)). The f32 formula for erf needs the second anyway. `fma` as in [`Accum::exp`].
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
            fn source(data: &[$type]) -> Elements<'_, $type> { Elements::Same(data) }
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
// The functions of each type for exp and erf. Those of f32 become vector code; those of f64 are library calls, and ignore `fma`.
floats!(f32 special::exp, special::erf; f64 |x: f64, _| x.exp(), |x: f64, _| (libm::erf(x), (-x * x).exp()));

impl Scalar for bf16 {
    type Acc = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        // To nearest even. A NaN stays a NaN. There is no branch, so that loops become vector code.
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
        bf16::from_bits(if x.is_nan() { (bits >> 16 | 0x40) as u16 } else { rounded as u16 })
    }
    fn source(data: &[bf16]) -> Elements<'_, f32> {
        Elements::BF16(data)
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
