//! Launches of the kernels of `src/cuda/kernels`, on tensors. Each function launches one kernel with the arguments that its file asks for.

mod adamw;
pub(crate) mod attention;
mod elementwise;
mod embedding;
mod layer_norm;
pub(crate) mod linear;
mod loss;
mod magnitude;
mod rows;
mod submatrix;

pub use adamw::{Update, adamw};
pub(crate) use elementwise::{cast, cast_to, elementwise, scaled};
pub(crate) use embedding::{look_up, table_gradient};
pub(crate) use layer_norm::{NormCotangent, layer_norm, layer_norm_backward, layer_norm_weights};
pub(crate) use loss::cross_entropy;
pub(crate) use magnitude::magnitude;
pub use magnitude::row_norms;
pub(crate) use rows::{first_row, first_row_backward, mask_rows};
pub(crate) use submatrix::{submatrix, submatrix_backward};

use super::{Argument, Device};
use crate::tensor::philox::round_keys;
use crate::tensor::{DType, Mask, Sequences, Shape, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// The name of the kernel for `dtype`: `stem` with the type at its end.
fn named(op: &'static str, dtype: DType, stem: &str) -> Result<String> {
    match dtype {
        DType::F32 => Ok(format!("{stem}_f32")),
        DType::BF16 => Ok(format!("{stem}_bf16")),
        other => Err(Error::dtype(op, "f32 or bf16 on a GPU", &[other])),
    }
}

/// Launches the kernel `stem` for `dtype` on `grid` blocks of 256 threads.
fn launch(device: &Device, op: &'static str, stem: &str, dtype: DType, grid: [usize; 3], arguments: &[Argument]) -> Result<()> {
    device.launch(&named(op, dtype, stem)?, grid, 256, 0, arguments)
}

/// The addresses of tensors.
fn addresses(tensors: &[&Tensor]) -> Result<Vec<Argument>> {
    tensors.iter().map(|t| t.argument()).collect()
}

/// The arguments of a mask: Philox's keys, site, threshold and keep factor. A threshold of 0 drops nothing.
fn bits(mask: Option<&Mask>) -> [Argument; 4] {
    match mask {
        Some(mask) => {
            let (threshold, keep) = (mask.threshold(), (1.0 / (1.0 - mask.p)) as f32);
            let keys = round_keys(mask.seed).map(|[first, second]| u64::from(first) | u64::from(second) << 32);
            [Argument::Keys(keys), Argument::U32(mask.site), Argument::U32(threshold), Argument::F32(keep)]
        }
        None => [Argument::Keys([0; 10]), Argument::U32(0), Argument::U32(0), Argument::F32(1.0)],
    }
}

/// Blocks of 256 threads for `n` elements.
fn blocks(n: usize) -> [usize; 3] {
    [n.div_ceil(256), 1, 1]
}

/// Blocks whose threads have eight neighbours of `n` elements each.
fn octets(n: usize) -> [usize; 3] {
    [n.div_ceil(2048), 1, 1]
}

/// Blocks whose warps have a row each.
fn rows_of_warps(rows: usize) -> [usize; 3] {
    [rows.div_ceil(8), 1, 1]
}

/// Blocks of 256 columns, eight to a lane, and 64 rows, eight to a warp.
fn tiles(rows: usize, cols: usize) -> [usize; 3] {
    [cols.div_ceil(256), rows.div_ceil(TILE_ROWS), 1]
}

/// Rows of a block in [`tiles`].
const TILE_ROWS: usize = 64;

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

/// How packed rows lie: the sequence of each row, offsets and example ids.
fn lie(device: &Arc<Device>, sequences: &Sequences) -> Result<[Argument; 3]> {
    let lie = sequences.on(device)?;
    Ok([lie.row_sequence.argument()?, lie.offsets.argument()?, lie.examples.argument()?])
}

/// The arguments of dropout: the sequence of each row, offsets and example ids (null where nothing is dropped), `sizes`, and the mask.
fn dropped(device: &Arc<Device>, drop: Option<(&Mask, &Sequences)>, sizes: &[usize]) -> Result<Vec<Argument>> {
    let mut arguments = match drop {
        Some((_, sequences)) => lie(device, sequences)?.to_vec(),
        None => vec![Argument::Address(0); 3],
    };
    arguments.extend(sizes.iter().map(|&n| size(n)));
    arguments.extend(bits(drop.map(|(mask, _)| mask)));
    Ok(arguments)
}

/// Σ over the rows of x, or of x ⊙ `times`, divided by `divisor` if there is one: `[cols]` f32.
pub(crate) fn column_sums(device: &Arc<Device>, x: &Tensor, times: Option<&Tensor>, divisor: Option<&Tensor>) -> Result<Tensor> {
    let (rows, cols) = (x.shape().rows(), x.shape().cols());
    let partial = Tensor::empty_on(device, DType::F32, [rows.div_ceil(TILE_ROWS), cols])?;
    let arguments = [x.argument()?, or_null(times)?, partial.argument()?, size(rows), size(cols)];
    launch(device, "column sums", "column_sums", x.dtype(), tiles(rows, cols), &arguments)?;
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
