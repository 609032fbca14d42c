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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Isa {
    /// What every machine of the target has.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 that multiplies bf16: VDPBF16PS.
    Avx512Bf16,
}

impl Isa {
    /// Each has what those before it have.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
        })
    }
}

/// The environment variable that chooses an instruction set.
const CHOICE: &str = "LOWRANK_SIMD";

/// The widest that the processor has.
pub(super) fn widest() -> Isa {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        return match avx512 {
            true if is_x86_feature_detected!("avx512bf16") => Isa::Avx512Bf16,
            true => Isa::Avx512,
            false => Isa::Avx2,
        };
    }
    Isa::Portable
}

/// The instruction set that `LOWRANK_SIMD` names, if this processor has it.
fn chosen() -> Option<Isa> {
    let choice = std::env::var(CHOICE).ok()?;
    Isa::ALL.into_iter().find(|isa| *isa <= widest() && isa.to_string() == choice)
}

/// The instruction set in use: the widest there is, or that which `LOWRANK_SIMD` names.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| chosen().unwrap_or_else(widest))
}

/// # Errors
/// If `LOWRANK_SIMD` names an instruction set that there is not, or that this processor lacks.
pub fn check_choice() -> Result<()> {
    let Ok(choice) = std::env::var(CHOICE) else { return Ok(()) };
    if chosen().is_some() {
        return Ok(());
    }
    let can: Vec<_> = Isa::ALL.into_iter().filter(|isa| *isa <= widest()).map(|isa| isa.to_string()).collect();
    Err(Error::invalid(format!("{CHOICE}={choice}: this processor can run {}", can.join(", "))))
}

/// Runs `kernel` on the instruction set in use.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match isa() {
        // SAFETY: `isa` names only what the processor has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => unsafe { with_avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { with_avx2(kernel) },
        _ => kernel.run::<false>(),
    }
}

/// Runs `kernel` on AVX2, or as every machine can if the processor lacks it.
#[inline]
pub(super) fn avx2<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if widest() >= Isa::Avx2 {
        // SAFETY: it is there.
        return unsafe { with_avx2(kernel) };
    }
    kernel.run::<false>()
}

/// Runs `kernel` on AVX-512, or as every machine can if the processor lacks it.
#[inline]
pub(super) fn avx512<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if widest() >= Isa::Avx512 {
        // SAFETY: it is there.
        return unsafe { with_avx512(kernel) };
    }
    kernel.run::<false>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn with_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<true>()
}

/// Runs a closure compiled for AVX2, where that may be used. What it calls must be `#[inline(always)]` to take part. There is no copy for AVX-512: a
/// closure that three functions call is no longer inlined into them. It is for loops that wait for memory more than they compute; others are a
/// [`Kernel`].
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
    match isa() {
        Isa::Portable => Closure(f).run::<false>(),
        _ => avx2(Closure(f)),
    }
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
