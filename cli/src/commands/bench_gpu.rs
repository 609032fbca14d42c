//! `lowrank bench gpu`: the peak speed of a GPU, for comparison with the time of a training step.

use super::common::{count, say};
use clap::Args;
use lowrank::Result;
use lowrank::autograd::Tape;
use lowrank::cuda::Device;
use lowrank::tensor::{DType, Tensor};
use std::sync::Arc;
use std::time::Instant;

/// Arguments of `bench gpu`.
#[derive(Args)]
pub(super) struct Gpu {
    /// Number of the GPU
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// Rows and columns of the square matrices that are multiplied
    #[arg(long, default_value_t = 8192, value_parser = count::<16_384>)]
    size: usize,
    /// Rounds
    #[arg(long, default_value_t = 20, value_parser = count::<1_000_000>)]
    rounds: usize,
}

impl Gpu {
    /// Runs the command.
    pub(super) fn run(&self) -> Result<()> {
        let device = Device::open(self.device)?;
        say(device.name())?;
        let n = self.size;
        // Varying numbers: a GPU is faster on zeros.
        let values = (0..n * n).map(|i| (i * 7919 % 1009) as f64 / 1009.0 - 0.5).collect();
        let values = Tensor::from_f64(values, DType::F32, [n, n])?.to_device(&device)?;
        let x = values.to_dtype(DType::BF16)?.to_device(&device)?;
        let product = self.seconds(&device, || {
            let tape = &mut Tape::new();
            let (x, w) = (tape.constant(&x), tape.constant(&x));
            tape.linear(&x, &w, None).map(|_| ())
        })?;
        say(format!("bf16 product of {n} by {n}: {:.1} TFLOP/s", 2.0 * (n as f64).powi(3) / product / 1e12))?;
        // The copy reads and writes four bytes for each element.
        let copy = self.seconds(&device, || {
            let tape = &mut Tape::new();
            let x = tape.constant(&values);
            tape.scale(&x, 1.0).map(|_| ())
        })?;
        say(format!("copy: {:.0} GB/s", 8.0 * (n * n) as f64 / copy / 1e9))
    }

    /// Shortest time of `work` over the rounds, in seconds.
    fn seconds(&self, device: &Arc<Device>, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut shortest = f64::INFINITY;
        for _ in 0..=self.rounds {
            device.synchronize()?;
            let started = Instant::now();
            work()?;
            device.synchronize()?;
            shortest = shortest.min(started.elapsed().as_secs_f64());
        }
        Ok(shortest)
    }
}
