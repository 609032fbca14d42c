//! What the processor is like beyond its instruction sets.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// What is assumed if the processor does not tell: the second-level cache of most cores since 2015 has at least this many bytes.
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
const SECOND_LEVEL: usize = 512 * 1024;

/// Bytes of a core's second-level cache. Only speed depends on it.
pub(super) fn second_level_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| read().unwrap_or(SECOND_LEVEL))
}

/// The size as `CPUID` gives it. Intel's leaf 4 and AMD's leaf 0x8000_001D have the same layout: one entry for each cache.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn read() -> Option<usize> {
    let leaf = if intel() { 4 } else { 0x8000_001D };
    let largest = cpuid(leaf & 0x8000_0000, 0)[0];
    let caches = (0..8).map(|entry| cpuid(leaf, entry)).take_while(|_| leaf <= largest).take_while(|[kind, ..]| kind & 31 != 0);
    let mut sizes = caches.filter(|[kind, ..]| kind >> 5 & 7 == 2).map(|[_, shape, sets, _]| {
        let [line, partitions, ways] = [shape & 0xFFF, shape >> 12 & 0x3FF, shape >> 22].map(|less| less as usize + 1);
        line * partitions * ways * (sets as usize + 1)
    });
    sizes.next()
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn read() -> Option<usize> {
    None
}

/// Whether VDPBF16PS is slower here than two multiply-adds of f32. So it is on Intel's cores Golden Cove and Raptor Cove (Sapphire Rapids and
/// Emerald Rapids): 0.22 instructions of it in the time of one multiply-add, measured on Emerald Rapids.
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) fn slow_bf16() -> bool {
    let signature = cpuid(1, 0)[0];
    let [model, family] = [signature >> 12 & 0xF0 | signature >> 4 & 0xF, signature >> 8 & 0xF];
    intel() && family == 6 && matches!(model, 0x8F | 0xCF)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn intel() -> bool {
    // "GenuineIntel", in the order EBX, EDX, ECX.
    let [_, b, c, d] = cpuid(0, 0);
    [b, d, c].map(u32::to_le_bytes).concat() == *b"GenuineIntel"
}

/// The registers EAX, EBX, ECX and EDX.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn cpuid(leaf: u32, entry: u32) -> [u32; 4] {
    // SAFETY: every processor of this target has CPUID. Newer compilers know that.
    #[allow(unused_unsafe)]
    let found = unsafe { std::arch::x86_64::__cpuid_count(leaf, entry) };
    [found.eax, found.ebx, found.ecx, found.edx]
}
