//! Elementwise functions, y = f(x).
//!
//! `elementwise_op.rs` implements [`Op`](crate::autograd::Op) for every type that implements [`Elementwise`]: it makes forward and backward
//! from f and its derivative, for the host and for a GPU.

use crate::tensor::Accum;

/// An elementwise function, y = f(x), of a tensor of any shape. Backward is dx = dy · f′.
///
/// An op of your own, and its gradient check:
/// ```
/// use lowrank::autograd::{gradcheck, ops::Elementwise};
/// use lowrank::tensor::Tensor;
///
/// /// y = x³.
/// struct Cube;
/// impl Elementwise for Cube {
///     const NAME: &'static str = "cube";
///     fn f(&self, x: f64) -> f64 {
///         x * x * x
///     }
///     fn df(&self, x: f64) -> f64 {
///         3.0 * x * x
///     }
/// }
///
/// let found = gradcheck::check(|tape, x| tape.apply(Cube, x), &[Tensor::new(vec![0.5, -1.5], [2])?])?;
/// assert!(found.error < 1e-8, "{found:?}");
/// # Ok::<(), lowrank::Error>(())
/// ```
pub trait Elementwise: Sync + 'static {
    /// Name in errors and ledgers.
    const NAME: &'static str;
    /// Forward keeps x for [`Elementwise::df`], or y if this is true: often the derivative is shorter in y.
    const KEEPS_Y: bool = false;
    /// Names of the GPU kernels of forward and backward (`src/cuda/kernels`), without the type at their end (`_f32`, `_bf16`). The
    /// arguments of the kernels are (x, y, n) and (kept, dy, dx, n), with kept = x or y, for n elements. `None`: only the host computes
    /// this function.
    const KERNELS: Option<[&'static str; 2]> = None;

    /// y = f(x).
    fn f(&self, x: f64) -> f64;

    /// dy/dx as a function of what is kept: x, or y where [`Elementwise::KEEPS_Y`] says so.
    fn df(&self, kept: f64) -> f64;

    /// f in the accumulator's type, if f64 is too slow. `fma`: the processor multiplies and adds in one fast instruction, as in
    /// [`Accum::exp`]. Mark it `#[inline(always)]`, or it will not become vector code.
    #[inline(always)]
    fn f_fast<T: Accum>(&self, x: T, _fma: bool) -> T {
        T::of(self.f(x.f64()))
    }

    /// dx = dy · df(kept) in the accumulator's type, with the same rules as `f_fast`.
    #[inline(always)]
    fn dx_fast<T: Accum>(&self, kept: T, dy: T, _fma: bool) -> T {
        T::of(dy.f64() * self.df(kept.f64()))
    }
}
