//! Layer normalisation. The same kernel also computes the rows s that it normalises: the end of a sublayer, or the embeddings.

use super::{bits, cast, column_sums, dropped, lie, named, of_either, or_null, rows_of_warps, size};
use crate::cuda::{Argument, Device};
use crate::tensor::{DType, Mask, NormRows, Sequences, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// Rows of a block.
const ROWS: usize = 8;

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
        NormRows::Embeddings { ids, words, positions, prompt, sequences, mask, .. } => {
            arguments.push(uploaded.insert(ids.to_device(device)?).argument()?);
            for table in [Some(*words), Some(*positions), *prompt] {
                arguments.extend(of_either(op, table)?);
            }
            arguments.push(size(prompt.map_or(0, |prompt| prompt.shape().rows())));
            arguments.extend(lie(device, sequences)?);
            arguments.extend(bits(*mask));
        }
    }
    device.launch(&named(op, dtype, stem)?, rows_of_warps(n), 256, ROWS * 8 * cols.div_ceil(8) * 4, &arguments)?;
    Ok((y, h, rstd))
}

/// What the backward of a layer norm reads.
pub(crate) struct NormCotangent<'a> {
    /// dy, or the first part of it.
    pub dy: &'a Tensor,
    /// The second part of dy, which the kernel adds.
    pub more: Option<&'a Tensor>,
    /// h `[n, d]`.
    pub h: &'a Tensor,
    /// 1 / √(variance + eps) of each row `[n]`.
    pub rstd: &'a Tensor,
    /// γ `[d]`.
    pub gamma: &'a Tensor,
}

/// dγ and dβ, where they are needed.
pub(crate) fn layer_norm_weights(device: &Arc<Device>, dy: &Tensor, h: Option<&Tensor>, needs: [bool; 2]) -> Result<[Option<Tensor>; 2]> {
    let [dgamma, dbeta] = needs;
    let dbeta = dbeta.then(|| column_sums(device, dy, None, None)).transpose()?;
    Ok([dgamma.then(|| column_sums(device, dy, h, None)).transpose()?, dbeta])
}

/// ds, and f ⊙ ds with the factors f of `drop`, where they are needed.
pub(crate) fn layer_norm_backward(
    device: &Arc<Device>,
    x: &NormCotangent,
    drop: Option<(&Mask, &Sequences)>,
    needs: [bool; 2],
) -> Result<[Option<Tensor>; 2]> {
    let (dtype, shape) = (x.dy.dtype(), x.dy.shape());
    let (rows, cols) = (shape.rows(), shape.cols());
    let gamma = cast(device, x.gamma, DType::F32)?;
    let [ds, dx] = needs.map(|need| need.then(|| Tensor::empty_on(device, dtype, shape)).transpose());
    let (ds, dx) = (ds?, dx?);
    let mut arguments = vec![x.h.argument()?, x.rstd.argument()?, gamma.argument()?, x.dy.argument()?, or_null(x.more)?];
    arguments.extend([or_null(ds.as_ref())?, or_null(dx.as_ref())?]);
    arguments.extend(dropped(device, drop, &[rows, cols])?);
    let shared = ROWS * 8 * cols.div_ceil(8) * (4 + dtype.size());
    device.launch(&named("layer_norm", dtype, "layer_norm_backward")?, rows_of_warps(rows), 256, shared, &arguments)?;
    Ok([ds, dx])
}
