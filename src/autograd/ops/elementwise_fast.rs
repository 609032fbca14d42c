//! Loops over elements, split over threads and compiled for the widest vectors. Each element is widened to the accumulator's type, and each
//! result is rounded once.

use super::elementwise::Elementwise;
use crate::Result;
use crate::tensor::simd::{Kernel, dispatch, vectorised};
use crate::tensor::{Scalar, Tensor, alloc, rows};

/// y = f(x).
pub fn forward<T: Scalar, E: Elementwise>(op: &E, x: &Tensor) -> Result<Tensor> {
    let from = x.host::<T>()?;
    let mut y = alloc::<T>(from.len());
    rows::for_each(&mut y, 1, |at, y| dispatch(Forward { op, x: &from[at..][..y.len()], y }));
    Tensor::new(y, x.shape())
}

/// dx = dy · df(kept), in dy's buffer where nothing else shares it.
pub fn backward<T: Scalar, E: Elementwise>(op: &E, kept: &Tensor, dy: Tensor) -> Result<Tensor> {
    let from = kept.host::<T>()?;
    let mut dx = dy.into_host::<T>()?;
    rows::for_each(&mut dx, 1, |at, dx| dispatch(Backward { op, kept: &from[at..][..dx.len()], dx }));
    Tensor::new(dx, kept.shape())
}

/// f(a, b), in a's buffer where nothing else shares it.
pub fn zip_in_place<T: Scalar>(a: Tensor, b: &Tensor, f: impl Fn(T::Acc, T::Acc) -> T::Acc + Copy + Sync) -> Result<Tensor> {
    let mut y = a.into_host::<T>()?;
    let from = b.host::<T>()?;
    rows::for_each(&mut y, 1, |at, y| {
        vectorised(|| y.iter_mut().zip(&from[at..]).for_each(|(y, &b)| *y = T::narrow(f(y.widen(), b.widen()))));
    });
    Tensor::new(y, b.shape())
}

struct Forward<'a, T, E> {
    op: &'a E,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Scalar, E: Elementwise> Kernel for Forward<'_, T, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = T::narrow(self.op.f_fast(x.widen(), FMA));
        }
    }
}

/// `dx` holds dy at first.
struct Backward<'a, T, E> {
    op: &'a E,
    kept: &'a [T],
    dx: &'a mut [T],
}

impl<T: Scalar, E: Elementwise> Kernel for Backward<'_, T, E> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (dx, &kept) in self.dx.iter_mut().zip(self.kept) {
            *dx = T::narrow(self.op.dx_fast(kept.widen(), dx.widen(), FMA));
        }
    }
}
