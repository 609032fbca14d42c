//! Launches of the kernels of `src/cuda/kernels`, on tensors. Each function launches one kernel with the arguments that its file asks for.

mod adamw;
mod elementwise;
mod embedding;
mod layer_norm;
mod loss;
mod rows;

pub use adamw::{Update, adamw};
pub(crate) use elementwise::{cast, elementwise, scaled};
pub(crate) use embedding::{look_up, table_gradient};
pub(crate) use layer_norm::{NormRows, layer_norm, layer_norm_backward};
pub(crate) use loss::cross_entropy;
pub(crate) use rows::{first_row, first_row_backward, mask_rows};

use super::{Argument, Device};
use crate::tensor::{DType, Mask, Sequences, Shape, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// The kernel for `dtype`, of those for f32 and bf16.
pub(crate) fn named(op: &'static str, dtype: DType, [f32, bf16]: [&'static str; 2]) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok(f32),
        DType::BF16 => Ok(bf16),
        other => Err(Error::dtype(op, "f32 or bf16 on a GPU", &[other])),
    }
}

/// The arguments of a mask: seed, site, threshold and keep factor. A threshold of 0 drops nothing.
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

/// h = (f ⊙ x) Aᵀ of a low-rank term: `[n, r]`.
pub(crate) fn low_rank_hidden(device: &Arc<Device>, x: &Tensor, a: &Tensor, drop: Option<(&Mask, &Sequences)>) -> Result<Tensor> {
    let h = Tensor::empty_on(device, x.dtype(), [x.shape().rows(), a.shape().rows()])?;
    let name = named("linear", x.dtype(), ["low_rank_hidden_f32", "low_rank_hidden_bf16"])?;
    let a = cast(device, a, DType::F32)?;
    let mut arguments = vec![x.argument()?, a.argument()?, h.argument()?];
    arguments.extend(dropped(device, drop, &[x.shape().rows(), a.shape().cols(), a.shape().rows()])?);
    device.launch(name, [x.shape().rows().div_ceil(8), 1, 1], 256, 0, &arguments)?;
    Ok(h)
}

/// dA = dhᵀ (f ⊙ x) of a low-rank term: `[r, d]` f32.
pub(crate) fn low_rank_weight(device: &Arc<Device>, x: &Tensor, dh: &Tensor, drop: Option<(&Mask, &Sequences)>) -> Result<Tensor> {
    /// Rows that one thread adds.
    const ROWS: usize = 32;
    let (rows, cols, rank) = (x.shape().rows(), x.shape().cols(), dh.shape().cols());
    let parts = rows.div_ceil(ROWS);
    let partial = Tensor::empty_on(device, DType::F32, [parts, rank, cols])?;
    let mut arguments = vec![x.argument()?, dh.argument()?, partial.argument()?];
    arguments.extend(dropped(device, drop, &[rows, cols, rank])?);
    arguments.push(size(ROWS));
    let name = named("linear", x.dtype(), ["low_rank_weight_f32", "low_rank_weight_bf16"])?;
    device.launch(name, blocks(parts * cols.div_ceil(4)), 256, 0, &arguments)?;
    sum_parts(device, &partial, None, [rank, cols])
}

/// y = sum + b + scale · h Bᵀ; without a sum, f32, it is in y.
pub(crate) fn low_rank_output(
    device: &Arc<Device>,
    sum: Option<&Tensor>,
    bias: Option<&Tensor>,
    [h, b]: [&Tensor; 2],
    scale: f64,
    y: &Tensor,
) -> Result<()> {
    /// Rows of a thread.
    const ROWS: usize = 16;
    let b = cast(device, b, DType::F32)?;
    let (rows, cols) = (y.shape().rows(), y.shape().cols());
    let mut arguments = vec![or_null(sum)?];
    arguments.extend(of_either("linear", bias)?);
    arguments.extend([h.argument()?, b.argument()?, y.argument()?, size(rows), size(cols), size(h.shape().cols())]);
    arguments.push(Argument::F32(scale as f32));
    let names = ["low_rank_output_f32_f32", "low_rank_output_bf16_f32", "low_rank_output_bf16_bf16"];
    device.launch(by_types([h, y], names)?, [cols.div_ceil(256), rows.div_ceil(ROWS), 1], 256, 0, &arguments)
}

/// y = sum + f ⊙ (dh A); without a sum, f32, it is in y.
pub(crate) fn low_rank_input(
    device: &Arc<Device>,
    sum: Option<&Tensor>,
    [dh, a]: [&Tensor; 2],
    drop: Option<(&Mask, &Sequences)>,
    y: &Tensor,
) -> Result<()> {
    let a = cast(device, a, DType::F32)?;
    let (rows, cols) = (y.shape().rows(), y.shape().cols());
    let mut arguments = vec![or_null(sum)?, dh.argument()?, a.argument()?, y.argument()?];
    arguments.extend(dropped(device, drop, &[rows, cols, a.shape().rows()])?);
    let names = ["low_rank_input_f32_f32", "low_rank_input_bf16_f32", "low_rank_input_bf16_bf16"];
    device.launch(by_types([dh, y], names)?, blocks(rows * cols.div_ceil(4)), 256, 0, &arguments)
}

/// Of kernels for (f32, f32), (bf16, f32) and (bf16, bf16), the one for two tensors.
fn by_types(tensors: [&Tensor; 2], [f32, bf16_f32, bf16]: [&'static str; 3]) -> Result<&'static str> {
    match tensors.map(Tensor::dtype) {
        [DType::F32, DType::F32] => Ok(f32),
        [DType::BF16, DType::F32] => Ok(bf16_f32),
        [DType::BF16, DType::BF16] => Ok(bf16),
        other => Err(Error::dtype("linear", "f32 or bf16 on a GPU", &other)),
    }
}

/// The arguments of dropout: the sequence of each row, offsets and example ids (null where nothing is dropped), `sizes`, and the mask.
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

/// y = b in every row.
pub(crate) fn fill_rows(device: &Arc<Device>, b: &Tensor, y: &Tensor) -> Result<()> {
    let b = cast(device, b, DType::F32)?;
    let arguments = [b.argument()?, y.argument()?, count(y.shape().len()), size(y.shape().cols())];
    device.launch(named("linear", y.dtype(), ["fill_rows_f32", "fill_rows_bf16"])?, blocks(y.shape().len()), 256, 0, &arguments)
}

/// Σ over the rows of x, or of x ⊙ `times`, divided by `divisor` if there is one: `[cols]` f32.
pub(crate) fn column_sums(device: &Arc<Device>, x: &Tensor, times: Option<&Tensor>, divisor: Option<&Tensor>) -> Result<Tensor> {
    /// Rows per thread.
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

/// The arguments of a tensor that may be f32 or bf16: its address, and whether it is bf16. Without a tensor, null.
pub(crate) fn of_either(op: &'static str, tensor: Option<&Tensor>) -> Result<[Argument; 2]> {
    let is_bf16 = match tensor.map(Tensor::dtype) {
        None | Some(DType::F32) => false,
        Some(DType::BF16) => true,
        Some(other) => return Err(Error::dtype(op, "f32 or bf16 on a GPU", &[other])),
    };
    Ok([or_null(tensor)?, Argument::U32(is_bf16.into())])
}

/// x ∘ m / norms + b.
pub(crate) fn magnitude(device: &Arc<Device>, x: &Tensor, m: &Tensor, norms: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (y, m) = (Tensor::empty_on(device, x.dtype(), x.shape())?, cast(device, m, DType::F32)?);
    let b = b.map(|b| cast(device, b, DType::F32)).transpose()?;
    let mut arguments = vec![x.argument()?, m.argument()?, norms.argument()?, or_null(b.as_ref())?, y.argument()?];
    arguments.extend([count(x.shape().len()), size(x.shape().cols())]);
    device.launch(named("magnitude", x.dtype(), ["magnitude_f32", "magnitude_bf16"])?, blocks(x.shape().len()), 256, 0, &arguments)?;
    Ok(y)
}

/// ‖W + s B A‖ of each row: `[out]` f32.
///
/// # Errors
/// If a tensor is not on the device, or the shapes do not fit.
pub fn row_norms(device: &Arc<Device>, w: &Tensor, a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor> {
    let mut sum = cast(device, w, DType::F32)?;
    sum.own_on(device)?;
    let [a, b] = [cast(device, a, DType::F32)?, cast(device, b, DType::F32)?];
    device.gemm(scale as f32, b.matrix()?, a.matrix()?, 1.0, sum.matrix()?)?;
    let (rows, cols) = (sum.shape().rows(), sum.shape().cols());
    let norms = Tensor::empty_on(device, DType::F32, [rows])?;
    let arguments = [sum.argument()?, norms.argument()?, size(rows), size(cols)];
    device.launch("row_norms", [rows.div_ceil(8), 1, 1], 256, 0, &arguments)?;
    Ok(norms)
}

/// The leading block `[m, n]` of x.
pub(crate) fn submatrix(device: &Arc<Device>, x: &Tensor, [m, n]: [usize; 2]) -> Result<Tensor> {
    let y = Tensor::empty_on(device, x.dtype(), [m, n])?;
    let arguments = [x.argument()?, y.argument()?, size(m), size(n), size(x.shape().cols())];
    device.launch(
        named("submatrix", x.dtype(), ["submatrix_forward_f32", "submatrix_forward_bf16"])?,
        blocks(m * n),
        256,
        0,
        &arguments,
    )?;
    Ok(y)
}

/// Its gradient, shaped like x.
pub(crate) fn submatrix_backward(device: &Arc<Device>, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (rows, cols) = (x.shape().rows(), x.shape().cols());
    let dx = Tensor::empty_on(device, dy.dtype(), x.shape())?;
    let arguments = [dy.argument()?, dx.argument()?, size(rows), size(cols), size(dy.shape().rows()), size(dy.shape().cols())];
    device.launch(
        named("submatrix", dy.dtype(), ["submatrix_backward_f32", "submatrix_backward_bf16"])?,
        blocks(rows * cols),
        256,
        0,
        &arguments,
    )?;
    Ok(dx)
}
