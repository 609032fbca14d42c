//! What the processor is like beyond its instruction sets. Only speed depends on it, but for the choice that [`slow_bf16`] makes.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// The size that is assumed if the processor does not tell: most cores since 2015 have at least this many bytes.
const SECOND_LEVEL: usize = 512 * 1024;

/// Bytes of a core's second-level cache.
pub(super) fn second_level_cache() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| x86::second_level_cache().unwrap_or(SECOND_LEVEL))
}

/// Whether VDPBF16PS is slower here than two multiply-adds of f32. So it is on Intel's Sapphire Rapids and Emerald Rapids: measured on Emerald Rapids,
/// it runs 0.22 times as often as a multiply-add of f32, and does the work of two.
pub(super) fn slow_bf16() -> bool {
    x86::is_sapphire_or_emerald_rapids()
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    /// Intel's leaf 4 and AMD's leaf 0x8000_001D have the same layout: one entry for each cache, and then one of kind 0.
    pub fn second_level_cache() -> Option<usize> {
        let leaf = if is_intel() { 4 } else { 0x8000_001D };
        let [last_leaf, ..] = cpuid(leaf & 0x8000_0000, 0);
        if leaf > last_leaf {
            return None;
        }
        let mut caches = (0..8).map(|entry| cpuid(leaf, entry)).take_while(|[kind, ..]| kind & 31 != 0);
        let [_, shape, sets, _] = caches.find(|[kind, ..]| kind >> 5 & 7 == 2)?;
        let [line, partitions, ways] = [shape & 0xFFF, shape >> 12 & 0x3FF, shape >> 22].map(|less| less as usize + 1);
        Some(line * partitions * ways * (sets as usize + 1))
    }

    pub fn is_sapphire_or_emerald_rapids() -> bool {
        let [signature, ..] = cpuid(1, 0);
        let [model, family] = [signature >> 12 & 0xF0 | signature >> 4 & 0xF, signature >> 8 & 0xF];
        is_intel() && family == 6 && matches!(model, 0x8F | 0xCF)
    }

    fn is_intel() -> bool {
        // "GenuineIntel", in the order EBX, EDX, ECX.
        let [_, b, c, d] = cpuid(0, 0);
        [b, d, c].map(u32::to_le_bytes).concat() == *b"GenuineIntel"
    }

    /// The registers EAX, EBX, ECX and EDX.
    fn cpuid(leaf: u32, entry: u32) -> [u32; 4] {
        // SAFETY: every processor of this target has CPUID. For newer compilers the function is safe.
        #[allow(unused_unsafe)]
        let found = unsafe { std::arch::x86_64::__cpuid_count(leaf, entry) };
        [found.eax, found.ebx, found.ecx, found.edx]
    }
}

/// Another processor tells nothing.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod x86 {
    pub fn second_level_cache() -> Option<usize> {
        None
    }

    pub fn is_sapphire_or_emerald_rapids() -> bool {
        false
    }
}
