//! What benches share: the clock, and what multiply-adds on registers alone reach.

use lowrank::tensor::simd::{Isa, Kernel, dispatch, isa};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Independent multiply-adds on a tile that fits the registers.
struct Registers<const LANES: usize>(u64);

/// Accumulators: twice the depth of the pipelines, and as many as the smallest register file holds.
const ACCUMULATORS: usize = 12;

impl<const LANES: usize> Kernel for Registers<LANES> {
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

/// f32 GFLOP/s of multiply-adds on registers, on all threads.
pub fn register_peak() -> f64 {
    let (threads, rounds) = (rayon::current_num_threads(), 100_000);
    let lanes = if isa() >= Isa::Avx512 { 16 } else { 8 };
    let time = seconds(|| {
        (0..threads).into_par_iter().for_each(|_| {
            black_box(if lanes == 16 { dispatch(Registers::<16>(rounds)) } else { dispatch(Registers::<8>(rounds)) });
        });
    });
    2.0 * (lanes * ACCUMULATORS) as f64 * rounds as f64 * threads as f64 / 1e9 / time
}

/// Seconds that `f` takes.
pub fn seconds(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}
