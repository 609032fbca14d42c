//! The steps of docs/performance.md, from three loops to the engine's product, on one thread: `cargo bench --bench walk`.
//! `LOWRANK_SIMD` sets the instruction set. Steps 2 to 4 are measured without the time in which W and x are brought into their order.

mod common;

use common::{register_peak, seconds};
use lowrank::tensor::gemm::{Mat, gemm_serial};
use lowrank::tensor::simd::{Kernel, dispatch, isa};

/// x is `[M, K]`, W is `[N, K]`, and y = x·Wᵀ is `[M, N]`.
const M: usize = 2048;
const N: usize = 768;
const K: usize = 768;
/// Rows and columns of the register tile.
const MR: usize = 6;
const NR: usize = 16;

/// A step of the walk: what it adds to the one before.
#[derive(Clone, Copy)]
enum Step {
    ThreeLoops,
    RowByRow,
    Registers,
    Strips,
}

struct Product<'a> {
    step: Step,
    x: &'a [f32],
    /// x in panels.
    panels: &'a [[f32; MR]],
    /// W, Wᵀ or the strips of Wᵀ, as the step wants it.
    w: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Product { step, x, panels, w, y } = self;
        let fma = |a: f32, b: f32, sum: f32| if FMA { a.mul_add(b, sum) } else { sum + a * b };
        match step {
            Step::ThreeLoops => three_loops(x, w, y, fma),
            Step::RowByRow => row_by_row(x, w, y, fma),
            // The rows of Wᵀ have N numbers, those of a strip NR.
            Step::Registers => strip_by_strip(panels, w, [N, NR], y, fma),
            Step::Strips => strip_by_strip(panels, w, [NR, K * NR], y, fma),
        }
    }
}

/// The product, strip by strip. The rows of Wᵀ are `stride` numbers apart, and its strips begin `next` numbers apart.
#[inline(always)]
fn strip_by_strip(panels: &[[f32; MR]], w: &[f32], [stride, next]: [usize; 2], y: &mut [f32], fma: impl Fn(f32, f32, f32) -> f32 + Copy) {
    for strip in 0..N / NR {
        tiles(panels, &w[strip * next..], stride, y, strip * NR, fma);
    }
}

#[inline(always)]
fn three_loops(x: &[f32], w: &[f32], y: &mut [f32], fma: impl Fn(f32, f32, f32) -> f32) {
    for i in 0..M {
        for j in 0..N {
            let mut sum = 0.0;
            for p in 0..K {
                sum = fma(x[i * K + p], w[j * K + p], sum);
            }
            y[i * N + j] = sum;
        }
    }
}

/// Wᵀ `[K, N]`.
fn transposed(w: &[f32]) -> Vec<f32> {
    (0..K * N).map(|at| w[at % N * K + at / N]).collect()
}

#[inline(always)]
fn row_by_row(x: &[f32], b: &[f32], y: &mut [f32], fma: impl Fn(f32, f32, f32) -> f32) {
    y.fill(0.0);
    for (x, y) in x.chunks_exact(K).zip(y.chunks_exact_mut(N)) {
        for (&x, b) in x.iter().zip(b.chunks_exact(N)) {
            for (y, &b) in y.iter_mut().zip(b) {
                *y = fma(x, b, *y);
            }
        }
    }
}

/// Wᵀ in strips of NR columns, one after another.
fn strips(w: &[f32]) -> Vec<f32> {
    (0..K * N).map(|at| w[(at / (K * NR) * NR + at % NR) * K + at % (K * NR) / NR]).collect()
}

/// x in panels of MR rows: number p of all rows of a panel lie together. Rows of zeros fill the last one.
fn panels(x: &[f32]) -> Vec<[f32; MR]> {
    let number = |i: usize, p: usize| if i < M { x[i * K + p] } else { 0.0 };
    (0..M.div_ceil(MR) * K).map(|at| std::array::from_fn(|r| number(at / K * MR + r, at % K))).collect()
}

/// y[.., j..j + NR] = x · b. The rows of b are `stride` numbers apart.
#[inline(always)]
fn tiles(panels: &[[f32; MR]], b: &[f32], stride: usize, y: &mut [f32], j: usize, fma: impl Fn(f32, f32, f32) -> f32) {
    for (panel, y) in panels.chunks_exact(K).zip(y.chunks_mut(MR * N)) {
        let mut sums = [[0.0f32; NR]; MR];
        for (x, b) in panel.iter().zip(b.chunks(stride)) {
            let Some(b) = b.first_chunk::<NR>() else { break };
            for r in 0..MR {
                for c in 0..NR {
                    sums[r][c] = fma(x[r], b[c], sums[r][c]);
                }
            }
        }
        // Always MR turns: with another number of turns the sums would not stay in registers.
        for (r, sums) in sums.iter().enumerate() {
            if let Some(y) = y.get_mut(r * N + j..r * N + j + NR) {
                y.copy_from_slice(sums);
            }
        }
    }
}

fn main() {
    let numbers = |len: usize| -> Vec<f32> { (0..len).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect() };
    let (x, w) = (numbers(M * K), numbers(N * K));
    let (mut y, mut want) = (vec![0.0; M * N], vec![0.0; M * N]);
    gemm_serial(Mat::new(&x, M, K), Mat::new(&w, N, K).t(), &mut want, N, false);
    let gflop = 2e-9 * (M * N * K) as f64;
    // One core's peak, even where there are more threads.
    let peak = (0..10).map(|_| register_peak(false)).fold(0.0, f64::max) / rayon::current_num_threads() as f64;
    println!("{}, one thread, {M}x{N}x{K}: registers alone reach {peak:.0} GFLOP/s", isa());
    let print = |name: &str, best: f64| println!("{name:<34} {:>8.1} GFLOP/s, {:>5.1} %", gflop / best, 100.0 * gflop / best / peak);
    let (panels, turned, strips) = (panels(&x), transposed(&w), strips(&w));
    for (step, name, w, rounds) in [
        (Step::ThreeLoops, "1 three loops", &w, 1),
        (Step::RowByRow, "2 row by row", &turned, 3),
        (Step::Registers, "3 a tile in registers", &turned, 10),
        (Step::Strips, "4 strips", &strips, 10),
    ] {
        let best =
            (0..rounds).map(|_| seconds(|| dispatch(Product { step, x: &x, panels: &panels, w, y: &mut y }))).fold(f64::INFINITY, f64::min);
        assert!(y.iter().zip(&want).all(|(y, want)| (y - want).abs() < 1e-3), "{name}: another product");
        print(name, best);
    }
    let best = (0..30).map(|_| seconds(|| gemm_serial(Mat::new(&x, M, K), Mat::new(&w, N, K).t(), &mut y, N, false)));
    print("5 the engine, which also packs", best.fold(f64::INFINITY, f64::min));
}
