//! Launches of the kernels of `src/cuda/kernels`, on tensors. Each function stands for one kernel, and gives it what its file asks for.

mod adamw;
pub(crate) mod attention;
pub(crate) mod linear;
mod magnitude;
mod submatrix;

pub use adamw::{Update, adamw};
pub(crate) use magnitude::magnitude;
pub use magnitude::row_norms;
pub(crate) use submatrix::{submatrix, submatrix_backward};

use super::{Argument, Device};
use crate::tensor::cuda::upload_together;
use crate::tensor::{DType, Mask, Sequences, Shape, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// Of an op's kernels for f32 and bf16, the one for `dtype`.
pub(crate) fn named(op: &'static str, dtype: DType, [f32, bf16]: [&'static str; 2]) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok(f32),
        DType::BF16 => Ok(bf16),
        other => Err(Error::dtype(op, "f32 or bf16 on a GPU", &[other])),
    }
}

/// Seed, site, threshold and keep factor of a mask, as every kernel that drops takes them; a threshold of 0 drops nothing.
pub(crate) fn bits(mask: Option<&Mask>) -> [Argument; 4] {
    match mask {
        Some(mask) => {
            let (threshold, keep) = (mask.threshold(), (1.0 / (1.0 - mask.p)) as f32);
            [Argument::U64(mask.seed), Argument::U32(mask.site), Argument::U32(threshold), Argument::F32(keep)]
        }
        None => [Argument::U64(0), Argument::U32(0), Argument::U32(0), Argument::F32(1.0)],
    }
}

/// Blocks of 256 threads for `n` elements.
fn blocks(n: usize) -> [usize; 3] {
    [n.div_ceil(256), 1, 1]
}

pub(crate) fn count(n: usize) -> Argument {
    Argument::U64(n as u64)
}

pub(crate) fn size(n: usize) -> Argument {
    Argument::U32(n as u32)
}

/// A tensor's address, or null.
fn or_null(t: Option<&Tensor>) -> Result<Argument> {
    t.map_or(Ok(Argument::Address(0)), Tensor::argument)
}

/// y = kernel(x…) of tensors of one shape and type.
pub(crate) fn elementwise(device: &Arc<Device>, op: &'static str, kernels: [&'static str; 2], inputs: &[&Tensor]) -> Result<Tensor> {
    let x = inputs[0];
    if let Some(other) = inputs.iter().find(|t| t.shape() != x.shape() || t.dtype() != x.dtype()) {
        return Err(Error::shape(op, "equal shapes and types", &[x.shape(), other.shape()]));
    }
    let y = Tensor::empty_on(device, x.dtype(), x.shape())?;
    let mut arguments = inputs.iter().map(|t| t.argument()).collect::<Result<Vec<_>>>()?;
    arguments.extend([y.argument()?, count(x.shape().len())]);
    device.launch(named(op, x.dtype(), kernels)?, blocks(x.shape().len()), 256, 0, &arguments)?;
    Ok(y)
}

/// c·x.
pub(crate) fn scaled(device: &Arc<Device>, x: &Tensor, c: f64) -> Result<Tensor> {
    let y = Tensor::empty_on(device, x.dtype(), x.shape())?;
    let arguments = [x.argument()?, y.argument()?, Argument::F32(c as f32), count(x.shape().len())];
    device.launch(named("scale", x.dtype(), ["scale_f32", "scale_bf16"])?, blocks(x.shape().len()), 256, 0, &arguments)?;
    Ok(y)
}

/// x in `dtype`; x itself if that is its type.
pub(crate) fn cast(device: &Arc<Device>, x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    let y = Tensor::empty_on(device, dtype, x.shape())?;
    cast_to(device, x, &y)?;
    Ok(y)
}

/// y = x in y's type, in y's memory.
pub(crate) fn cast_to(device: &Arc<Device>, x: &Tensor, y: &Tensor) -> Result<()> {
    let n = x.shape().len();
    let name = match (x.dtype(), y.dtype()) {
        (DType::F32, DType::BF16) => "cast_f32_bf16",
        (DType::BF16, DType::F32) => "cast_bf16_f32",
        (from, to) => return Err(Error::dtype("cast", "f32 and bf16 on a GPU", &[from, to])),
    };
    device.launch(name, blocks(n), 256, 0, &[x.argument()?, y.argument()?, count(n)])
}

/// f ⊙ x of packed rows.
pub(crate) fn mask_rows(device: &Arc<Device>, mask: &Mask, sequences: &Sequences, x: &Tensor) -> Result<Tensor> {
    let (rows, cols) = (x.shape().rows(), x.shape().cols());
    let y = Tensor::empty_on(device, x.dtype(), x.shape())?;
    let mut arguments = vec![x.argument()?, y.argument()?];
    arguments.extend(dropped(device, Some((mask, sequences)), &[rows, cols])?);
    device.launch(named("dropout", x.dtype(), ["dropout_f32", "dropout_bf16"])?, blocks(rows * cols.div_ceil(4)), 256, 0, &arguments)?;
    Ok(y)
}

/// How a kernel that drops is told of it: sequence of each row, offsets and examples (null where nothing is dropped), sizes, the mask.
fn dropped(device: &Arc<Device>, drop: Option<(&Mask, &Sequences)>, sizes: &[usize]) -> Result<Vec<Argument>> {
    let mut arguments = vec![Argument::Address(0); 3];
    if let Some((_, sequences)) = drop {
        let lie = sequences.on(device)?;
        arguments = vec![lie.row_sequence.argument()?, lie.offsets.argument()?, lie.examples.argument()?];
    }
    arguments.extend(sizes.iter().map(|&n| size(n)));
    arguments.extend(bits(drop.map(|(mask, _)| mask)));
    Ok(arguments)
}

/// Σ over the rows of x, or of x ⊙ `times`, divided by `divisor` if there is one: `[cols]` f32.
pub(crate) fn column_sums(device: &Arc<Device>, x: &Tensor, times: Option<&Tensor>, divisor: Option<&Tensor>) -> Result<Tensor> {
    /// Rows that one thread adds.
    const ROWS: usize = 64;
    let (rows, cols) = (x.shape().rows(), x.shape().cols());
    let parts = rows.div_ceil(ROWS);
    let partial = Tensor::empty_on(device, DType::F32, [parts, cols])?;
    let arguments = [x.argument()?, or_null(times)?, partial.argument()?, size(rows), size(cols), size(ROWS)];
    let name = named("column sums", x.dtype(), ["column_sums_f32", "column_sums_bf16"])?;
    device.launch(name, [cols.div_ceil(256), parts, 1], 256, 0, &arguments)?;
    sum_parts(device, &partial, divisor, [cols])
}

/// Σ over the first dimension of `partial`, divided by `divisor` if there is one.
fn sum_parts(device: &Arc<Device>, partial: &Tensor, divisor: Option<&Tensor>, shape: impl Into<Shape>) -> Result<Tensor> {
    let out = Tensor::empty_on(device, DType::F32, shape)?;
    let (parts, cols) = (partial.dims()[0], out.shape().len());
    let arguments = [partial.argument()?, or_null(divisor)?, out.argument()?, size(parts), size(cols)];
    device.launch("column_sums_finish", blocks(cols), 256, 0, &arguments)?;
    Ok(out)
}

/// What a layer norm normalises.
pub(crate) enum NormRows<'a> {
    /// f ⊙ x + r, or x alone.
    Sublayer { x: &'a Tensor, residual: Option<&'a Tensor>, drop: Option<(&'a Mask, &'a Sequences)> },
    /// Rows of the words and the positions, in `dtype`; those of a prompt come first in each sequence.
    Embeddings {
        dtype: DType,
        ids: &'a Tensor,
        words: &'a Tensor,
        positions: &'a Tensor,
        prompt: Option<&'a Tensor>,
        sequences: &'a Sequences,
    },
}

/// LN(s) γ + β of rows s, and h and rstd where they are to be kept.
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

/// A tensor of f32 or bf16 as kernels take one of either type: its address, and whether it is bf16. Without one, null.
pub(crate) fn of_either(op: &'static str, tensor: Option<&Tensor>) -> Result<[Argument; 2]> {
    let is_bf16 = match tensor.map(Tensor::dtype) {
        None | Some(DType::F32) => false,
        Some(DType::BF16) => true,
        Some(other) => return Err(Error::dtype(op, "f32 or bf16 on a GPU", &[other])),
    };
    Ok([or_null(tensor)?, Argument::U32(is_bf16.into())])
}

/// ds, dγ and dβ where needed.
pub(crate) fn layer_norm_backward(
    device: &Arc<Device>,
    mut saved: crate::autograd::Saved,
    dy: &Tensor,
    needs: [bool; 3],
) -> Result<[Option<Tensor>; 3]> {
    let (rows, cols) = (dy.shape().rows(), dy.shape().cols());
    let h = if needs[0] || needs[1] { Some(saved.take("h")?) } else { None };
    let dbeta = if needs[2] { Some(column_sums(device, dy, None, None)?) } else { None };
    let dgamma = if needs[1] { Some(column_sums(device, dy, h.as_ref(), None)?) } else { None };
    let (true, Some(h)) = (needs[0], &h) else { return Ok([None, dgamma, dbeta]) };
    let (rstd, gamma) = (saved.take("rstd")?, cast(device, &saved.take("gamma")?, DType::F32)?);
    let ds = Tensor::empty_on(device, dy.dtype(), dy.shape())?;
    let mut arguments = [h, &rstd, &gamma, dy, &ds].iter().map(|t| t.argument()).collect::<Result<Vec<_>>>()?;
    arguments.extend([size(rows), size(cols)]);
    let name = named("layer_norm", dy.dtype(), ["layer_norm_backward_f32", "layer_norm_backward_bf16"])?;
    device.launch(name, [rows.div_ceil(8), 1, 1], 256, 0, &arguments)?;
    Ok([Some(ds), dgamma, dbeta])
}

/// Rows of a table in `dtype`.
pub(crate) fn look_up(device: &Arc<Device>, table: &Tensor, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    let (ids, cols) = (ids.to_device(device)?, table.shape().cols());
    let y = Tensor::empty_on(device, dtype, [ids.shape().len(), cols])?;
    let mut arguments = of_either("embedding", Some(table))?.to_vec();
    arguments.extend([ids.argument()?, y.argument()?, count(y.shape().len()), size(cols)]);
    let name = named("embedding", dtype, ["embedding_forward_f32", "embedding_forward_bf16"])?;
    device.launch(name, blocks(y.shape().len()), 256, 0, &arguments)?;
    Ok(y)
}

/// The gradient of a table of `shape`, f32: each row of dy is added to the row that was picked for it.
pub(crate) fn table_gradient(device: &Arc<Device>, dy: &Tensor, mut picks: Vec<(u32, u32)>, shape: &Shape) -> Result<Tensor> {
    picks.sort_by_key(|&(_, picked)| picked);
    let (mut unique, mut starts) = (Vec::new(), Vec::new());
    for (i, &(_, picked)) in picks.iter().enumerate() {
        if unique.last() != Some(&picked) {
            unique.push(picked);
            starts.push(i as u32);
        }
    }
    starts.push(picks.len() as u32);
    let rows: Vec<u32> = picks.iter().map(|&(row, _)| row).collect();
    let groups = unique.len();
    let [unique, starts, rows] = upload_together(device, [&unique, &starts, &rows])?;
    let dtable = Tensor::zeros_on(device, DType::F32, shape)?;
    let mut arguments = [dy, &unique, &starts, &rows, &dtable].iter().map(|t| t.argument()).collect::<Result<Vec<_>>>()?;
    arguments.push(size(shape.cols()));
    let name = named("embedding", dy.dtype(), ["embedding_backward_f32", "embedding_backward_bf16"])?;
    device.launch(name, [groups, 1, 1], 256, 0, &arguments)?;
    Ok(dtable)
}

/// The first row of each sequence.
pub(crate) fn first_row(device: &Arc<Device>, x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    let (b, cols) = (sequences.count(), x.shape().cols());
    let y = Tensor::empty_on(device, x.dtype(), [b, cols])?;
    let arguments = [x.argument()?, y.argument()?, sequences.on(device)?.offsets.argument()?, size(cols)];
    let name = named("first_row", x.dtype(), ["first_row_forward_f32", "first_row_forward_bf16"])?;
    device.launch(name, [b, 1, 1], 256, 0, &arguments)?;
    Ok(y)
}

/// Its gradient.
pub(crate) fn first_row_backward(device: &Arc<Device>, dy: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    let cols = dy.shape().cols();
    let dx = Tensor::zeros_on(device, dy.dtype(), [sequences.tokens(), cols])?;
    let arguments = [dy.argument()?, dx.argument()?, sequences.on(device)?.offsets.argument()?, size(cols)];
    let name = named("first_row", dy.dtype(), ["first_row_backward_f32", "first_row_backward_bf16"])?;
    device.launch(name, [sequences.count(), 1, 1], 256, 0, &arguments)?;
    Ok(dx)
}

/// Cross-entropy of logits `[B, C]` f32, and its gradient if `dloss` is given.
pub(crate) fn cross_entropy(device: &Arc<Device>, z: &Tensor, labels: &Tensor, divisor: usize, dloss: Option<&Tensor>) -> Result<Tensor> {
    let labels = labels.to_device(device)?;
    let sizes = [size(z.shape().rows()), size(z.shape().cols()), Argument::F32(divisor as f32)];
    if z.dtype() != DType::F32 {
        return Err(Error::dtype("cross_entropy", "f32 logits on a GPU", &[z.dtype()]));
    }
    let (name, y, mut arguments) = match dloss {
        None => ("cross_entropy_forward", Tensor::empty_on(device, DType::F32, [1])?, vec![z.argument()?, labels.argument()?]),
        Some(d) => {
            let arguments = vec![z.argument()?, labels.argument()?, d.argument()?];
            ("cross_entropy_backward", Tensor::empty_on(device, DType::F32, z.shape())?, arguments)
        }
    };
    arguments.push(y.argument()?);
    arguments.extend(sizes);
    device.launch(name, [1, 1, 1], 256, 0, &arguments)?;
    Ok(y)
}

/// a + b, two gradients.
pub fn add_on(device: &Arc<Device>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    elementwise(device, "sum of gradients", ["add_f32", "add_bf16"], &[a, b])
}
