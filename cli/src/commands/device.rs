//! `--device`: the CPU or a GPU.

#[cfg(feature = "cuda")]
use super::notes::warning;
use clap::Args;
use lowrank::nn::DistilBert;
use lowrank::tensor::DType;
use lowrank::{Error, Result};
use std::str::FromStr;

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

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<DeviceChoice, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(DeviceChoice::Auto),
            None if text == "cpu" => Ok(DeviceChoice::Cpu),
            None if text == "cuda" => Ok(DeviceChoice::Cuda(0)),
            Some(("cuda", number)) => number.parse().map(DeviceChoice::Cuda).map_err(|_| format!("cuda:{number}: {number:?} is no number")),
            _ => Err("must be auto, cpu, cuda or cuda:N".to_string()),
        }
    }
}

/// The argument `--device`.
#[derive(Args, Clone, Copy)]
pub struct DeviceArgs {
    /// auto (a GPU if there is one), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: DeviceChoice,
}

impl DeviceArgs {
    /// Moves a model to the device. Returns the name of the GPU, `None` for the CPU. With `auto`, a GPU that cannot be used is skipped with a warning.
    pub fn place(self, model: &mut DistilBert) -> Result<Option<String>> {
        match self.device {
            DeviceChoice::Cpu => Ok(None),
            // The GPU kernels have no f64.
            DeviceChoice::Auto if model.dtype == DType::F64 => Ok(None),
            DeviceChoice::Auto => auto(model),
            DeviceChoice::Cuda(ordinal) => cuda(model, ordinal).map(Some),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda(model: &mut DistilBert, ordinal: usize) -> Result<String> {
    let device = lowrank::cuda::Device::open(ordinal)?;
    model.to_device(&device)?;
    Ok(device.name().to_string())
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: &mut DistilBert, _: usize) -> Result<String> {
    Err(Error::invalid("this build has no GPU support: build with the feature `cuda`"))
}

#[cfg(feature = "cuda")]
fn auto(model: &mut DistilBert) -> Result<Option<String>> {
    // A missing driver is not an error.
    if lowrank::cuda::Device::count().unwrap_or(0) == 0 {
        return Ok(None);
    }
    match lowrank::cuda::Device::open(0) {
        Ok(device) => {
            model.to_device(&device)?;
            Ok(Some(device.name().to_string()))
        }
        Err(e @ Error::Invalid(_)) => {
            warning!("the GPU is not used: {e}");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

#[cfg(not(feature = "cuda"))]
fn auto(_: &mut DistilBert) -> Result<Option<String>> {
    Ok(None)
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
            assert_eq!(text.parse(), Ok(place));
        }
        for text in ["gpu", "cuda:", "cuda:x", "", "cpu:1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
