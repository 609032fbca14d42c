//! Launches that several ops share. Each function stands for one kernel of `src/cuda/kernels`, and gives it what its file asks for.

use super::dropout::Mask;
use crate::cuda::{Argument, Device};
use crate::tensor::{DType, Packing, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// Of an op's kernels for f32 and bf16, the one for `dtype`.
pub(super) fn named(op: &'static str, dtype: DType, [f32, bf16]: [&'static str; 2]) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok(f32),
        DType::BF16 => Ok(bf16),
        other => Err(Error::dtype(op, "f32 or bf16 on a GPU", &[other])),
    }
}

/// Seed, site, threshold and keep factor of a mask, as every kernel that drops takes them; a threshold of 0 drops nothing.
pub(super) fn bits(mask: Option<&Mask>) -> [Argument; 4] {
    match mask {
        Some(mask) => {
            let (threshold, keep) = (mask.threshold(), (1.0 / (1.0 - mask.p)) as f32);
            [Argument::U64(mask.seed), Argument::U32(mask.site), Argument::U32(threshold), Argument::F32(keep)]
        }
        None => [Argument::U64(0), Argument::U32(0), Argument::U32(0), Argument::F32(1.0)],
    }
}
