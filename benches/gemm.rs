//! GEMM rates as a share of what multiply-adds on registers alone reach on the same threads in the same run: `cargo bench --bench gemm`.
//! `RAYON_NUM_THREADS` sets the threads, `LOWRANK_SIMD` the instruction set.

use lowrank::tensor::gemm::{Mat, gemm};
use lowrank::tensor::simd::{Kernel, dispatch, isa};
use lowrank::tensor::zeroed;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Independent multiply-adds on a tile that fits the registers.
struct Registers(u64);

/// Accumulators: twice the depth of the pipelines, and as many as the smallest register file holds.
const ACCUMULATORS: usize = 12;
const LANES: usize = 8;

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

fn seconds(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

fn main() {
    let threads = rayon::current_num_threads();
    println!("{:?}, {threads} threads; best of 30 alternating rounds", isa());
    println!("{:<16} {:>9} {:>14} {:>14} {:>14}", "m x n x k", "peak", "x·Wᵀ", "dY·W", "dYᵀ·x");
    let shapes = [(2048, 768, 768), (2048, 3072, 768), (2048, 768, 3072), (2048, 384, 384), (2048, 8, 768), (16, 768, 768), (512, 512, 64)];
    for (m, n, k) in shapes {
        let a = zeroed::<f32>(m * k.max(n));
        let b = zeroed::<f32>(n * k);
        let mut c = zeroed::<f32>(m * n.max(k));
        let mut w = zeroed::<f32>(n * k);
        let gflop = 2.0 * (m * n * k) as f64 / 1e9;
        let repeat = (0.5 / gflop).ceil() as usize;
        let rounds = 100_000;
        let work = 2.0 * (LANES * ACCUMULATORS) as f64 * rounds as f64 * threads as f64 / 1e9;
        let mut best = [f64::INFINITY; 4];
        for _ in 0..30 {
            let mut take = |i: usize, s: f64| best[i] = best[i].min(s);
            take(0, seconds(|| (0..threads).into_par_iter().for_each(|_| _ = black_box(dispatch(Registers(rounds))))));
            take(1, seconds(|| (0..repeat).for_each(|_| gemm(Mat::new(&a, m, k), Mat::new(&b, n, k).t(), &mut c, n, false))));
            take(2, seconds(|| (0..repeat).for_each(|_| gemm(Mat::new(&a, m, n), Mat::new(&b, n, k), &mut c, k, false))));
            take(3, seconds(|| (0..repeat).for_each(|_| gemm(Mat::new(&a, m, n).t(), Mat::new(&c, m, k), &mut w, k, false))));
        }
        let peak = work / best[0];
        let rate = |i: usize| {
            let rate = repeat as f64 * gflop / best[i];
            format!("{rate:.0} ({:.0} %)", 100.0 * rate / peak)
        };
        println!("{:<16} {peak:>9.0} {:>14} {:>14} {:>14}   GFLOP/s", format!("{m}x{n}x{k}"), rate(1), rate(2), rate(3));
    }
}
