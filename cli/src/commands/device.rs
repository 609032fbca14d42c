//! `--device`: the CPU or a GPU, and what it computes with.

use super::notes::note;
#[cfg(feature = "cuda")]
use super::notes::warning;
use clap::Args;
#[cfg(feature = "cuda")]
use lowrank::cuda::Device;
use lowrank::nn::DistilBert;
use lowrank::tensor::DType;
use lowrank::tensor::simd::{self, Isa};
use lowrank::{Error, Result};

/// A device, as given on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceChoice {
    /// A GPU if there is a usable one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this number.
    Cuda(usize),
}

/// Parses a device.
fn device(text: &str) -> std::result::Result<DeviceChoice, String> {
    match text.split_once(':') {
        None if text == "auto" => Ok(DeviceChoice::Auto),
        None if text == "cpu" => Ok(DeviceChoice::Cpu),
        None if text == "cuda" => Ok(DeviceChoice::Cuda(0)),
        Some(("cuda", number)) => number.parse().map(DeviceChoice::Cuda).map_err(|_| format!("cuda:{number}: {number:?} is no number")),
        _ => Err("must be auto, cpu, cuda or cuda:N".to_string()),
    }
}

/// The argument `--device`.
#[derive(Args, Clone, Copy)]
pub struct DeviceArgs {
    /// auto (a GPU if there is one), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE", value_parser = device)]
    pub device: DeviceChoice,
}

impl DeviceArgs {
    /// [`DeviceArgs::place`], with a note. Returns the name of the GPU, or on the CPU data type and instruction set.
    pub fn place_and_tell(self, model: &mut DistilBert) -> Result<String> {
        let gpu = self.place(model)?;
        match &gpu {
            Some(name) => note!("computing in {} on {name}", model.dtype),
            None => note!("computing in {}", kernel_path(model.dtype)),
        }
        Ok(gpu.unwrap_or_else(|| kernel_path(model.dtype)))
    }

    /// Moves a model to the device. Returns the name of the GPU, `None` for the CPU. With `auto`, a GPU that cannot be used is skipped with a warning.
    #[cfg(feature = "cuda")]
    pub fn place(self, model: &mut DistilBert) -> Result<Option<String>> {
        let ordinal = match self.device {
            DeviceChoice::Cpu => return Ok(None),
            // The GPU kernels have no f64. A missing driver is not an error.
            DeviceChoice::Auto if model.dtype == DType::F64 || Device::count().unwrap_or(0) == 0 => return Ok(None),
            DeviceChoice::Auto => 0,
            DeviceChoice::Cuda(ordinal) => ordinal,
        };
        let device = match Device::open(ordinal) {
            Err(e @ Error::Invalid(_)) if self.device == DeviceChoice::Auto => {
                warning!("the GPU is not used: {e}");
                return Ok(None);
            }
            opened => opened?,
        };
        model.to_device(&device)?;
        Ok(Some(device.name().to_string()))
    }

    /// Refuses a GPU: this build has no GPU support.
    #[cfg(not(feature = "cuda"))]
    pub fn place(self, _: &mut DistilBert) -> Result<Option<String>> {
        match self.device {
            DeviceChoice::Cuda(_) => Err(Error::invalid("this build has no GPU support: build with the feature `cuda`")),
            DeviceChoice::Auto | DeviceChoice::Cpu => Ok(None),
        }
    }
}

/// Data type and instruction set of the computation.
pub fn kernel_path(dtype: DType) -> String {
    match (dtype, simd::isa()) {
        (DType::BF16, isa @ Isa::Avx512Bf16) => format!("bf16, multiplied as such ({isa})"),
        (DType::BF16, isa) => format!("bf16, widened to f32 in the kernels ({isa})"),
        (other, isa) => format!("{} ({isa})", other.to_string().to_lowercase()),
    }
}

/// Bytes of GPU memory that the program has reserved, if the model is on a GPU.
#[cfg(feature = "cuda")]
pub fn device_memory(model: &DistilBert) -> Option<usize> {
    model.parameters().iter().find_map(|p| p.value().device().map(|device| device.reserved()))
}

/// None: this build has no GPU support.
#[cfg(not(feature = "cuda"))]
pub fn device_memory(_: &DistilBert) -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        for (text, place) in
            [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), ("cuda", DeviceChoice::Cuda(0)), ("cuda:3", DeviceChoice::Cuda(3))]
        {
            assert_eq!(device(text), Ok(place));
        }
        for text in ["gpu", "cuda:", "cuda:x", "", "cpu:1"] {
            assert!(device(text).is_err(), "{text}");
        }
    }
}
