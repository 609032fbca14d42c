//! `lowrank bench gpu`: the peak speed of a GPU, for comparison with the time of a training step.

use super::common::{count, say, say_json};
use clap::Args;
use lowrank::autograd::Tape;
use lowrank::cuda::{Buffer, Device};
use lowrank::tensor::{DType, Tensor};
use lowrank::{Error, Result};
use serde_json::json;
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
    /// MiB that are copied, many times what the GPU's caches hold
    #[arg(long, default_value_t = 2048, value_name = "MIB", value_parser = count::<16_384>)]
    copy: usize,
    /// Rounds
    #[arg(long, default_value_t = 20, value_parser = count::<1_000_000>)]
    rounds: usize,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

impl Gpu {
    /// Runs the command.
    pub(super) fn run(&self) -> Result<()> {
        let device = Device::open(self.device)?;
        let n = self.size;
        // Varying numbers: a GPU is faster on zeros.
        let values = (0..n * n).map(|i| (i * 7919 % 1009) as f64 / 1009.0 - 0.5).collect();
        let x = Tensor::from_f64(values, DType::BF16, [n, n])?.to_device(&device)?;
        let product = self.seconds(&device, || {
            let tape = &mut Tape::new();
            let (x, w) = (tape.constant(&x), tape.constant(&x));
            tape.linear(&x, &w, None).map(|_| ())
        })?;
        let flops = 2.0 * (n as f64).powi(3) / product;
        // The driver's own copy from device memory to device memory, which reads and writes each byte.
        let bytes = self.copy << 20;
        let from = Buffer::upload(&device, &vec![0x5A; bytes])?;
        let to_a_copy = self.seconds(&device, || from.copy(0, bytes).map(|_| ()))?;
        let bandwidth = 2.0 * bytes as f64 / to_a_copy;
        if self.json {
            return say_json(
                &json!({ "device": device.name(), "bf16_flops": flops, "size": n, "copy_bytes_per_second": bandwidth, "copied": bytes }),
            );
        }
        say(device.name())?;
        say(format!("bf16 product of {n} by {n}: {:.1} TFLOP/s", flops / 1e12))?;
        say(format!("the driver's copy of {} MiB, read and written: {:.0} GB/s", self.copy, bandwidth / 1e9))
    }

    /// Median time of `work` over the rounds, in seconds. A round before them warms up.
    fn seconds(&self, device: &Arc<Device>, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut seconds = Vec::new();
        for _ in 0..=self.rounds {
            device.synchronize()?;
            let started = Instant::now();
            work()?;
            device.synchronize()?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        let mut counted = seconds.split_off(1);
        counted.sort_by(f64::total_cmp);
        counted.get(counted.len() / 2).copied().ok_or_else(|| Error::invalid("--rounds: no round was counted"))
    }
}
