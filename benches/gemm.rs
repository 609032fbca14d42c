//! GEMM rates against the rate of multiply-adds on registers alone: `cargo bench --bench gemm`. `RAYON_NUM_THREADS` sets the threads.

use lowrank::tensor::gemm::{Mat, gemm};
use lowrank::tensor::simd::{Kernel, dispatch, isa};
use std::hint::black_box;
use std::time::Instant;

/// Independent multiply-adds on a tile that fits the registers.
struct Registers(u64);

impl Kernel for Registers {
    type Output = f32;
    #[inline(always)]
    fn run<const FMA: bool>(self) -> f32 {
        let mut tile = [[1.0f32; 8]; 12];
        let (a, b) = (black_box([0.999_999f32; 8]), black_box([1e-9f32; 8]));
        for _ in 0..self.0 {
            for t in &mut tile {
                for j in 0..8 {
                    t[j] = if FMA { t[j].mul_add(a[j], b[j]) } else { t[j] * a[j] + b[j] };
                }
            }
        }
        tile.iter().flatten().sum()
    }
}

fn best(mut f: impl FnMut()) -> f64 {
    (0..7)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() {
    let threads = rayon::current_num_threads();
    let rounds = 4_000_000;
    let peak = 2.0 * 96.0 * rounds as f64
        / best(|| {
            black_box(dispatch(Registers(rounds)));
        })
        / 1e9;
    println!("{:?}, {threads} threads; registers alone, one thread: {peak:.0} GFLOP/s", isa());
    for (m, n, k) in [(2048, 768, 768), (2048, 3072, 768), (2048, 768, 3072), (2048, 384, 384), (2048, 8, 768), (512, 512, 32)] {
        let a = vec![0.5f32; m * k];
        let b = vec![0.25f32; n * k];
        let mut c = vec![0f32; m * n];
        let flops = 2.0 * (m * n * k) as f64 / 1e9;
        let nt = flops / best(|| gemm(Mat::new(&a, m, k), Mat::new(&b, n, k).t(), &mut c, n, false));
        let nn = flops / best(|| gemm(Mat::new(&a, m, k), Mat::new(&b, k, n), &mut c, n, false));
        let share = |rate: f64| 100.0 * rate / peak / threads as f64;
        println!("{m}x{n}x{k}: x·Wᵀ {nt:.0} GFLOP/s ({:.0} %), dY·W {nn:.0} GFLOP/s ({:.0} %)", share(nt), share(nn));
    }
}
