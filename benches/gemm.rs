//! GEMM rates as a share of what multiply-adds on registers alone reach on the same threads in the same run: `cargo bench --bench gemm`.
//! `RAYON_NUM_THREADS` sets the threads, `LOWRANK_SIMD` the instruction set.

mod common;

use common::{register_peak, seconds};
use lowrank::tensor::gemm::{Mat, gemm};
use lowrank::tensor::simd::isa;
use lowrank::tensor::{BF16, DType, Scalar, zeroed};

/// m, n and k: x is `[m, k]`, W is `[n, k]`, dY is `[m, n]`.
const SHAPES: [[usize; 3]; 7] =
    [[2048, 768, 768], [2048, 3072, 768], [2048, 768, 3072], [2048, 384, 384], [2048, 8, 768], [16, 768, 768], [512, 512, 64]];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "--json") {
        let sizes: Vec<usize> = arguments[at + 1].split('x').map(|size| size.parse().expect("--json MxNxK")).collect();
        let Rates { peak, products: [x_wt, dy_w, dyt_x] } = rates::<f32>([sizes[0], sizes[1], sizes[2]], 10);
        println!(r#"{{"peak": {peak}, "x_wt": {x_wt}, "dy_w": {dy_w}, "dyt_x": {dyt_x}}}"#);
        return;
    }
    let threads = rayon::current_num_threads();
    println!("{}, {threads} threads; best of 30 alternating rounds, as a share of the register peak", isa());
    measure::<f32>();
    println!("bf16, which AVX512-BF16 multiplies in pairs, and other machines widen:");
    measure::<BF16>();
}

/// Numbers, not zeros: memory that was never written is one page of zeros, which stays in the first-level cache.
fn numbers<T: Scalar<Acc = f32>>(len: usize) -> Vec<T> {
    (0..len).map(|i| T::narrow((i % 251) as f32 / 251.0 - 0.5)).collect()
}

/// GFLOP/s: of multiply-adds on registers, and of x·Wᵀ, dY·W and dYᵀ·x.
struct Rates {
    peak: f64,
    products: [f64; 3],
}

/// The best of some alternating rounds.
fn rates<T: Scalar<Acc = f32>>([m, n, k]: [usize; 3], rounds: usize) -> Rates {
    let (a, b) = (numbers::<T>(m * k.max(n)), numbers::<T>(n * k));
    let (mut c, mut w) = (zeroed::<T>(m * n.max(k)), zeroed::<f32>(n * k));
    let gflop = 2.0 * (m * n * k) as f64 / 1e9;
    let repeat = (0.5 / gflop).ceil() as usize;
    let (mut peak, mut best) = (0.0f64, [f64::INFINITY; 3]);
    for _ in 0..rounds {
        peak = peak.max(register_peak(T::DTYPE == DType::BF16));
        let mut take = |i: usize, s: f64| best[i] = best[i].min(s);
        take(0, seconds(|| (0..repeat).for_each(|_| gemm(Mat::new(&a, m, k), Mat::new(&b, n, k).t(), &mut c, n, false))));
        take(1, seconds(|| (0..repeat).for_each(|_| gemm(Mat::new(&a, m, n), Mat::new(&b, n, k), &mut c, k, false))));
        take(2, seconds(|| (0..repeat).for_each(|_| gemm(Mat::new(&a, m, n).t(), Mat::new(&c, m, k), &mut w, k, false))));
    }
    Rates { peak, products: best.map(|s| repeat as f64 * gflop / s) }
}

fn measure<T: Scalar<Acc = f32>>() {
    println!("{:<16} {:>9} {:>14} {:>14} {:>14}", "m x n x k", "peak", "x·Wᵀ", "dY·W", "dYᵀ·x");
    for [m, n, k] in SHAPES {
        let Rates { peak, products } = rates::<T>([m, n, k], 30);
        let [a, b, c] = products.map(|rate| format!("{rate:.0} ({:.0} %)", 100.0 * rate / peak));
        println!("{:<16} {peak:>9.0} {a:>14} {b:>14} {c:>14}   GFLOP/s", format!("{m}x{n}x{k}"));
    }
}
