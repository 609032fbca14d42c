//! Runs a kernel compiled for the widest vectors that the processor has.
//!
//! Kernels are plain loops. Compiled inside a function with `#[target_feature]`, the same loop uses wider registers and fused
//! multiply-add: one source, one instance per instruction set, chosen at run time.
#![allow(unsafe_code)]

use crate::{Error, Result};
use std::fmt;
use std::sync::OnceLock;

/// A loop to be compiled once per instruction set. Mark `run` as `#[inline(always)]`: only inlined code takes on the instruction set.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// `FMA`: fused multiply-add is one fast instruction.
    fn run<const FMA: bool>(self) -> Self::Output;
}

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isa {
    /// What every machine of the target has.
    Portable,
    /// AVX2 and FMA.
    Avx2,
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
        })
    }
}

/// The environment variable that chooses an instruction set.
const CHOICE: &str = "LOWRANK_SIMD";

/// What the processor has.
fn widest() -> Isa {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return Isa::Avx2;
    }
    Isa::Portable
}

/// The instruction set in use: the widest there is, or `portable` if `LOWRANK_SIMD` says so.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| if std::env::var(CHOICE).as_deref() == Ok("portable") { Isa::Portable } else { widest() })
}

/// # Errors
/// If `LOWRANK_SIMD` names an instruction set that there is not, or that this processor lacks.
pub fn check_choice() -> Result<()> {
    let Ok(choice) = std::env::var(CHOICE) else { return Ok(()) };
    if [Isa::Portable, widest()].iter().any(|isa| isa.to_string() == choice) {
        return Ok(());
    }
    Err(Error::invalid(format!("{CHOICE}={choice}: this processor can run portable or {}", widest())))
}

/// Runs `kernel` on the widest instruction set there is.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match isa() {
        // SAFETY: `isa` returns `Avx2` only where the processor was found to have AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2(kernel) },
        _ => kernel.run::<false>(),
    }
}

/// Runs a closure compiled for the widest instruction set there is. What it calls must be `#[inline(always)]` to take part.
#[inline]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    struct Closure<F>(F);
    impl<R, F: FnOnce() -> R> Kernel for Closure<F> {
        type Output = R;
        #[inline(always)]
        fn run<const FMA: bool>(self) -> R {
            (self.0)()
        }
    }
    dispatch(Closure(f))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

/// Asks for the cache line of `at`, which need not be a place that can be read.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    // SAFETY: a prefetch reads nothing that the program could see, and never faults.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
