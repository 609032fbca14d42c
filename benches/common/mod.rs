//! What benches share: the clock, and what multiply-adds on registers alone reach.

use lowrank::tensor::simd::{Isa, Kernel, dispatch, isa};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Independent multiply-adds on a tile that fits the registers.
struct Registers(u64);

/// Numbers of a vector of AVX2.
const LANES: usize = 8;

/// Accumulators: twice the depth of the pipelines, and as many as the smallest register file holds.
const ACCUMULATORS: usize = 12;

impl Kernel for Registers {
    type Output = f32;
    #[inline(always)]
    fn run<const FMA: bool>(self) -> f32 {
        let mut tile = [[1.0f32; LANES]; ACCUMULATORS];
        let (a, b) = (black_box([0.999_999f32; LANES]), black_box([1e-9f32; LANES]));
        for _ in 0..self.0 {
            for t in &mut tile {
                for j in 0..LANES {
                    t[j] = if FMA { t[j].mul_add(a[j], b[j]) } else { t[j] * a[j] + b[j] };
                }
            }
        }
        tile.iter().flatten().sum()
    }
}

/// GFLOP/s of multiply-adds on registers, on all threads: of f32, or of pairs of bf16 where the processor multiplies them.
#[allow(unsafe_code)] // Functions for instruction sets that the processor was asked for.
pub fn register_peak(pairs: bool) -> f64 {
    let (threads, rounds) = (rayon::current_num_threads(), 1_000_000);
    let (wide, pairs) = (isa() >= Isa::Avx512, pairs && isa() >= Isa::Avx512Bf16);
    let time = seconds(|| {
        (0..threads).into_par_iter().for_each(|_| {
            #[cfg(target_arch = "x86_64")]
            if wide {
                // SAFETY: `isa` names only what the processor has.
                black_box(unsafe { if pairs { avx512::pairs(rounds) } else { avx512::numbers(rounds) } });
                return;
            }
            black_box(dispatch(Registers(rounds)));
        });
    });
    let lanes = [LANES, 2 * LANES, 4 * LANES][usize::from(wide) + usize::from(pairs)];
    2.0 * (lanes * ACCUMULATORS) as f64 * rounds as f64 * threads as f64 / 1e9 / time
}

/// [`Registers`] with intrinsics: the compiler makes no vectors of a tile as large as this.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::ACCUMULATORS;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    pub fn numbers(rounds: u64) -> f32 {
        let (a, b) = (_mm512_set1_ps(black_box(0.999_999)), _mm512_set1_ps(black_box(1e-9)));
        let mut tile = [_mm512_set1_ps(1.0); ACCUMULATORS];
        for _ in 0..rounds {
            for t in &mut tile {
                *t = _mm512_fmadd_ps(*t, a, b);
            }
        }
        tile.iter().fold(0.0, |sum, t| sum + _mm512_cvtss_f32(*t))
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn pairs(rounds: u64) -> f32 {
        let [a, b] = [0.999_999, 1e-9].map(|x| _mm512_cvtne2ps_pbh(_mm512_set1_ps(black_box(x)), _mm512_set1_ps(black_box(x))));
        let mut tile = [_mm512_set1_ps(1.0); ACCUMULATORS];
        for _ in 0..rounds {
            for t in &mut tile {
                *t = _mm512_dpbf16_ps(*t, a, b);
            }
        }
        tile.iter().fold(0.0, |sum, t| sum + _mm512_cvtss_f32(*t))
    }
}

/// Seconds that `f` takes.
pub fn seconds(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}
