//! Loops over elements, compiled for the widest vectors.

use crate::Result;
use crate::tensor::{Float, Tensor, rows, simd, take};

struct Map<'a, T, F>(&'a [T], &'a mut [T], &'a F);

impl<T: Float, F: Fn(T) -> T> simd::Kernel for Map<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.1.iter_mut().zip(self.0).for_each(|(y, &x)| *y = (self.2)(x));
    }
}

/// y = f(x).
pub fn map<T: Float>(x: &Tensor, f: impl Fn(T) -> T + Sync) -> Result<Tensor> {
    let from = x.host::<T>()?;
    let mut y = take::<T>(from.len());
    rows::for_each(&mut y, 1, |at, y| simd::dispatch(Map(&from[at..at + y.len()], y, &f)));
    Tensor::new(y, x.shape())
}

struct Zip<'a, T, F>(&'a [T], &'a mut [T], &'a F);

impl<T: Float, F: Fn(T, T) -> T> simd::Kernel for Zip<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.1.iter_mut().zip(self.0).for_each(|(dy, &x)| *dy = (self.2)(x, *dy));
    }
}

/// dx = f(x, dy), in dy's buffer where nothing else shares it.
pub fn zip_in_place<T: Float>(x: &Tensor, dy: Tensor, f: impl Fn(T, T) -> T + Sync) -> Result<Tensor> {
    let from = x.host::<T>()?;
    let mut dx = dy.into_host::<T>()?;
    rows::for_each(&mut dx, 1, |at, dx| simd::dispatch(Zip(&from[at..at + dx.len()], dx, &f)));
    Tensor::new(dx, x.shape())
}
