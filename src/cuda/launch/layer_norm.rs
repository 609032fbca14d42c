//! Layer normalisation. The same kernel also computes the rows s that it normalises: the end of a sublayer, or the embeddings.

use super::{cast, column_sums, dropped, named, of_either, or_null, size};
use crate::cuda::{Argument, Device};
use crate::tensor::{DType, NormRows, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// y = LN(s) γ + β, and h and rstd where `keep` asks for them.
pub(crate) fn layer_norm(
    device: &Arc<Device>,
    rows: &NormRows,
    weights: [&Tensor; 2],
    eps: f64,
    keep: [bool; 2],
) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
    let (op, dtype, shape, kernels) = match rows {
        NormRows::Sublayer { x, .. } => ("layer_norm", x.dtype(), x.shape().clone(), ["layer_norm_forward_f32", "layer_norm_forward_bf16"]),
        NormRows::Embeddings { dtype, words, sequences, .. } => {
            let kernels = ["embedding_layer_norm_forward_f32", "embedding_layer_norm_forward_bf16"];
            ("embedding_layer_norm", *dtype, [sequences.tokens(), words.shape().cols()].into(), kernels)
        }
    };
    let (n, cols) = (shape.rows(), shape.cols());
    if let Some(odd) = weights.iter().find(|w| w.dims() != [cols]) {
        return Err(Error::shape(op, "x [.., d], gamma [d] and beta [d]", &[&shape, odd.shape()]));
    }
    let y = Tensor::empty_on(device, dtype, &shape)?;
    let h = keep[0].then(|| Tensor::empty_on(device, dtype, [n, cols])).transpose()?;
    let rstd = keep[1].then(|| Tensor::empty_on(device, DType::F32, [n])).transpose()?;
    let [gamma, beta] = [cast(device, weights[0], DType::F32)?, cast(device, weights[1], DType::F32)?];
    let mut arguments = vec![gamma.argument()?, beta.argument()?, y.argument()?, or_null(h.as_ref())?, or_null(rstd.as_ref())?];
    arguments.extend([size(n), size(cols), Argument::F32(eps as f32)]);
    // Alive until the launch.
    let mut uploaded = None;
    match rows {
        NormRows::Sublayer { x, residual, drop } => {
            arguments.extend([x.argument()?, or_null(*residual)?]);
            arguments.extend(dropped(device, *drop, &[])?);
        }
        NormRows::Embeddings { ids, words, positions, prompt, sequences, .. } => {
            let lie = sequences.on(device)?;
            let ids = uploaded.insert(ids.to_device(device)?);
            arguments.extend([ids.argument()?, lie.row_sequence.argument()?, lie.offsets.argument()?]);
            for table in [Some(*words), Some(*positions), *prompt] {
                arguments.extend(of_either(op, table)?);
            }
            arguments.push(size(prompt.map_or(0, |prompt| prompt.shape().rows())));
        }
    }
    device.launch(named(op, dtype, kernels)?, [n.div_ceil(8), 1, 1], 256, 32 * cols, &arguments)?;
    Ok((y, h, rstd))
}

/// ds if rstd `[n]` and γ are given; dγ and dβ where they are needed.
pub(crate) fn layer_norm_backward(
    device: &Arc<Device>,
    dy: &Tensor,
    h: Option<&Tensor>,
    rstd_gamma: Option<&[Tensor; 2]>,
    [need_dgamma, need_dbeta]: [bool; 2],
) -> Result<[Option<Tensor>; 3]> {
    let (rows, cols) = (dy.shape().rows(), dy.shape().cols());
    let dbeta = if need_dbeta { Some(column_sums(device, dy, None, None)?) } else { None };
    let dgamma = if need_dgamma { Some(column_sums(device, dy, h, None)?) } else { None };
    let (Some([rstd, gamma]), Some(h)) = (rstd_gamma, h) else { return Ok([None, dgamma, dbeta]) };
    let gamma = cast(device, gamma, DType::F32)?;
    let ds = Tensor::empty_on(device, dy.dtype(), dy.shape())?;
    let mut arguments = [h, rstd, &gamma, dy, &ds].iter().map(|t| t.argument()).collect::<Result<Vec<_>>>()?;
    arguments.extend([size(rows), size(cols)]);
    let name = named("layer_norm", dy.dtype(), ["layer_norm_backward_f32", "layer_norm_backward_bf16"])?;
    device.launch(name, [rows.div_ceil(8), 1, 1], 256, 0, &arguments)?;
    Ok([Some(ds), dgamma, dbeta])
}
