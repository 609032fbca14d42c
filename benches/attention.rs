//! Attention of packed sequences, forward and backward, with dropout: `cargo bench --bench attention`.

mod common;

use common::{register_peak, seconds};
use lowrank::autograd::ops::Attention;
use lowrank::autograd::{Grads, Parameter, Tape};
use lowrank::tensor::Mask;
use lowrank::tensor::{DType, Sequences, Tensor};
use std::sync::Arc;

fn main() -> lowrank::Result<()> {
    println!("{:<26} {:>12} {:>12} {:>16} {:>16}", "sequences x tokens, D, H", "forward ms", "backward ms", "forward", "backward");
    for (b, t, d, heads) in [(16, 128, 768, 12), (8, 512, 768, 12), (16, 128, 384, 12)] {
        for dtype in [DType::F32, DType::BF16] {
            let sequences = Arc::new(Sequences::new(&vec![t; b], (0..b as u32).collect())?);
            let values = (0..3 * b * t * d).map(|i| (i as f64 * 0.37).sin()).collect();
            let qkv = Parameter::new("qkv", Tensor::from_f64(values, dtype, [3, b * t, d])?);
            let (mut peak, mut best) = (0.0f64, [f64::INFINITY; 2]);
            for _ in 0..10 {
                peak = peak.max(register_peak(false));
                let mut tape = Tape::new();
                let x = tape.parameter(&qkv);
                let (mut y, mut grads) = (Ok(x.clone()), Ok(Grads::default()));
                best[0] = best[0].min(seconds(|| {
                    let mask = Some(Mask { p: 0.1, seed: 1, site: 1 });
                    let op = Attention { heads, queries: sequences.clone(), keys: sequences.clone(), extra: false, mask };
                    y = tape.apply(op, &[&x]);
                }));
                let loss = tape.sum(&y?)?;
                best[1] = best[1].min(seconds(|| grads = std::mem::take(&mut tape).backward(&loss)));
                grads?;
            }
            // Multiply-adds count two: QKᵀ and PV; backward QKᵀ again, and four products more.
            let gflop = |products: usize| (2 * products * b * t * t * d) as f64 / 1e9;
            let share = |products: usize, s: f64| format!("{:.0} GF/s ({:.0} %)", gflop(products) / s, 100.0 * gflop(products) / s / peak);
            let name = format!("{b}x{t}, {d}, {heads} {dtype}");
            let ms = best.map(|s| format!("{:.2}", 1e3 * s));
            println!("{name:<26} {:>12} {:>12} {:>16} {:>16}", ms[0], ms[1], share(2, best[0]), share(5, best[1]));
        }
    }
    Ok(())
}
