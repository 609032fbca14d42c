//! Layer normalisation. The same kernel also computes the rows s that it normalises: the end of a sublayer, or the embeddings.

use super::{addresses, cast, column_sums, dropped, launch, named, of_either, or_null, size};
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
    let (op, stem, dtype, shape) = match rows {
        NormRows::Sublayer { x, .. } => ("layer_norm", "layer_norm_forward", x.dtype(), x.shape().clone()),
        NormRows::Embeddings { dtype, words, sequences, .. } => {
            let shape = [sequences.tokens(), words.shape().cols()].into();
            ("embedding_layer_norm", "embedding_layer_norm_forward", *dtype, shape)
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
    device.launch(&named(op, dtype, stem)?, [n.div_ceil(8), 1, 1], 256, 32 * cols, &arguments)?;
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
    let dbeta = need_dbeta.then(|| column_sums(device, dy, None, None)).transpose()?;
    let dgamma = need_dgamma.then(|| column_sums(device, dy, h, None)).transpose()?;
    let (Some([rstd, gamma]), Some(h)) = (rstd_gamma, h) else { return Ok([None, dgamma, dbeta]) };
    let gamma = cast(device, gamma, DType::F32)?;
    let ds = Tensor::empty_on(device, dy.dtype(), dy.shape())?;
    let mut arguments = addresses(&[h, rstd, &gamma, dy, &ds])?;
    arguments.extend([size(rows), size(cols)]);
    launch(device, "layer_norm", "layer_norm_backward", dy.dtype(), [rows.div_ceil(8), 1, 1], &arguments)?;
    Ok([Some(ds), dgamma, dbeta])
}
