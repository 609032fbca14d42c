//! Moves a model to a GPU.

use super::{Block, DistilBert, Origin, Weight};
use crate::cuda::Device;
use crate::tensor::DType;
use crate::{Error, Result};
use std::sync::Arc;

impl DistilBert {
    /// Copies every weight to a device. The model then computes there.
    ///
    /// # Errors
    /// If the model computes in f64, or the device has no more memory.
    pub fn to_device(&mut self, device: &Arc<Device>) -> Result<()> {
        if self.dtype == DType::F64 {
            return Err(Error::invalid("a GPU computes in f32 or bf16: compute f64 with --device cpu"));
        }
        // cuBLASLt adds biases of the result's type. A frozen bias is rounded once, here, and not in each step.
        for bias in self.blocks.iter_mut().flat_map(Block::linears_mut).filter_map(|linear| linear.bias.as_mut()) {
            if let Weight::Frozen { value, .. } = bias {
                *value = value.to_dtype(self.dtype)?;
            }
        }
        for weight in self.parts_mut().into_iter().map(Origin::weight) {
            match weight {
                Weight::Frozen { value, .. } => *value = value.to_device(device)?,
                Weight::Trained(p) => p.set(p.value().to_device(device)?),
                Weight::Computed { function, .. } => {
                    for constant in function.constants_mut() {
                        *constant = constant.to_device(device)?;
                    }
                }
            }
        }
        Ok(())
    }
}
