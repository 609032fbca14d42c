//! Loops over elements, compiled for the widest vectors. Each element is widened, and its result rounded once.
//!
//! The last argument of a function says whether fused multiply-add is one fast instruction, as in [`math`](crate::tensor::math). A function with
//! more than a few operations must be `#[inline(always)]`, not a closure, to be compiled with the loop.

use crate::Result;
use crate::tensor::simd::{Kernel, dispatch};
use crate::tensor::{Scalar, Tensor, alloc, rows};

/// y = f(x).
pub fn map<T: Scalar>(x: &Tensor, f: impl Fn(T::Acc, bool) -> T::Acc + Copy + Sync) -> Result<Tensor> {
    let from = x.host::<T>()?;
    let mut y = alloc::<T>(from.len());
    rows::for_each(&mut y, 1, |at, y| dispatch(Map { x: &from[at..][..y.len()], y, f }));
    Tensor::new(y, x.shape())
}

/// dx = f(x, dy), in dy's buffer where nothing else shares it.
pub fn zip_in_place<T: Scalar>(x: &Tensor, dy: Tensor, f: impl Fn(T::Acc, T::Acc, bool) -> T::Acc + Copy + Sync) -> Result<Tensor> {
    let from = x.host::<T>()?;
    let mut dx = dy.into_host::<T>()?;
    rows::for_each(&mut dx, 1, |at, dx| dispatch(ZipInPlace { x: &from[at..][..dx.len()], y: dx, f }));
    Tensor::new(dx, x.shape())
}

/// y = f(x).
struct Map<'a, T, F> {
    x: &'a [T],
    y: &'a mut [T],
    f: F,
}

impl<T: Scalar, F: Fn(T::Acc, bool) -> T::Acc> Kernel for Map<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = T::narrow((self.f)(x.widen(), FMA));
        }
    }
}

/// y = f(x, y).
struct ZipInPlace<'a, T, F> {
    x: &'a [T],
    y: &'a mut [T],
    f: F,
}

impl<T: Scalar, F: Fn(T::Acc, T::Acc, bool) -> T::Acc> Kernel for ZipInPlace<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = T::narrow((self.f)(x.widen(), y.widen(), FMA));
        }
    }
}
