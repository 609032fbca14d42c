//! Runs a loop on the host with the widest vectors of the processor.
//!
//! A [`Kernel`] is here a plain loop on the host. Inside a function with `#[target_feature]`, the compiler turns the same loop into code for wider
//! registers and fused multiply-add. So there is one source and one compiled version for each instruction set. The version is chosen at run time.
#![allow(unsafe_code)]

use super::processor;
use crate::{Error, Result};
use std::fmt;
use std::sync::OnceLock;

/// A loop that is compiled once for each instruction set. Mark `run` as `#[inline(always)]`: only inlined code uses the instruction set of its
/// caller.
pub trait Kernel {
    /// The result.
    type Output;
    /// Runs the loop. `FMA`: fused multiply-add is one fast instruction.
    fn run<const FMA: bool>(self) -> Self::Output;
}

/// An instruction set for which kernels are compiled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Isa {
    /// Only what every processor of the target has.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with multiplication of bf16: VDPBF16PS.
    Avx512Bf16,
}

impl Isa {
    /// All of them. Each includes those before it.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// The environment variable that chooses an instruction set.
const CHOICE: &str = "LOWRANK_SIMD";

/// The widest instruction set of this processor.
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

/// The fastest instruction set of this processor: the widest, unless its products of bf16 are slower than those of f32.
fn fastest() -> Isa {
    if processor::slow_bf16() { widest().min(Isa::Avx512) } else { widest() }
}

static ISA: OnceLock<Isa> = OnceLock::new();

/// The instruction set in use: the one of [`choose`], else the one that `LOWRANK_SIMD` names, else the fastest of this processor.
pub fn isa() -> Isa {
    *ISA.get_or_init(|| choice().ok().flatten().unwrap_or_else(fastest))
}

/// The instruction set that the environment variable `LOWRANK_SIMD` names, if it is set.
///
/// # Errors
/// If it names an instruction set that does not exist, or that this processor lacks.
pub fn choice() -> Result<Option<Isa>> {
    let Ok(choice) = std::env::var(CHOICE) else { return Ok(None) };
    named(&choice).map(Some).map_err(|e| Error::invalid(format!("{CHOICE}={e}")))
}

/// Chooses the instruction set of this process by its name: `portable`, `avx2`, `avx512` or `avx512bf16`.
///
/// # Errors
/// If no instruction set has this name, this processor lacks it, or something was computed with another one before.
pub fn choose(name: &str) -> Result<()> {
    let wanted = named(name)?;
    match *ISA.get_or_init(|| wanted) {
        found if found == wanted => Ok(()),
        found => Err(Error::invalid(format!("{name}: this process computes with {found} already"))),
    }
}

/// The instruction set of a name, if this processor has it.
fn named(name: &str) -> Result<Isa> {
    let can: Vec<Isa> = Isa::ALL.into_iter().filter(|isa| *isa <= widest()).collect();
    let names: Vec<String> = can.iter().map(Isa::to_string).collect();
    let found = can.into_iter().find(|isa| isa.to_string() == name);
    found.ok_or_else(|| Error::invalid(format!("{name}: this processor can run {}", names.join(", "))))
}

/// Runs `kernel` on the instruction set in use.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match isa() {
        // SAFETY: `isa` returns only instruction sets of this processor.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => unsafe { with_avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { with_avx2(kernel) },
        _ => kernel.run::<false>(),
    }
}

/// Runs `kernel` with AVX2, or as portable code if the processor lacks AVX2.
#[inline]
pub(super) fn avx2<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if widest() >= Isa::Avx2 {
        // SAFETY: the processor has it, as just checked.
        return unsafe { with_avx2(kernel) };
    }
    kernel.run::<false>()
}

/// Runs `kernel` with AVX-512, or as portable code if the processor lacks AVX-512.
#[inline]
pub(super) fn avx512<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if widest() >= Isa::Avx512 {
        // SAFETY: the processor has it, as just checked.
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

/// Runs a closure with AVX2, if the instruction set in use includes it. Functions that the closure calls must be `#[inline(always)]` to take part.
///
/// There is no version for AVX-512: the compiler no longer inlines a closure that three functions call. Use this for loops that mostly wait for
/// memory, and a [`Kernel`] for others.
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

/// Prefetches the cache line of `at`. The address may be invalid.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    // SAFETY: a prefetch has no visible effect and never faults, whatever the address is.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
