//! Loops over elements, compiled for the widest vectors. Each element is widened, and its result rounded once.

use crate::Result;
use crate::tensor::simd::vectorised;
use crate::tensor::{Real, Tensor, rows, take};

/// y = f(x).
pub fn map<T: Real>(x: &Tensor, f: impl Fn(T::Sum) -> T::Sum + Sync) -> Result<Tensor> {
    let from = x.host::<T>()?;
    let mut y = take::<T>(from.len());
    rows::for_each(&mut y, 1, |at, y| {
        let x = &from[at..at + y.len()];
        vectorised(|| y.iter_mut().zip(x).for_each(|(y, &x)| *y = T::narrow(f(x.widen()))));
    });
    Tensor::new(y, x.shape())
}

/// dx = f(x, dy), in dy's buffer where nothing else shares it.
pub fn zip_in_place<T: Real>(x: &Tensor, dy: Tensor, f: impl Fn(T::Sum, T::Sum) -> T::Sum + Sync) -> Result<Tensor> {
    let from = x.host::<T>()?;
    let mut dx = dy.into_host::<T>()?;
    rows::for_each(&mut dx, 1, |at, dx| {
        let x = &from[at..at + dx.len()];
        vectorised(|| dx.iter_mut().zip(x).for_each(|(dx, &x)| *dx = T::narrow(f(x.widen(), dx.widen()))));
    });
    Tensor::new(dx, x.shape())
}
