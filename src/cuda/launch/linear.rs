//! Linear layers with low-rank terms: cuBLAS products, and the kernels of `low_rank.cu` and `linear.cu`.
//!
//! The products of a linear are summed in f32 and rounded once, to the type of x. Forward has one product for all linears of a group that has low-rank terms:
//! y = `[x | h] [W | s B]`ᵀ + b, with h = drop(x) Aᵀ. There, B is rounded to the type of x, as h is.

use super::{TILE_ROWS, cast, dropped, launch, of_either, or_null, size, sum_parts, tiles};
use crate::cuda::{Argument, Device, Matrix};
use crate::tensor::{DType, LinearGradients, LowRankCotangent, LowRankLinear, LowRankTerm, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// y `[G, n, out]` of a group of G linears, and h `[n, r]` of each term.
pub(crate) fn forward(device: &Arc<Device>, x: &Tensor, linears: &[LowRankLinear]) -> Result<(Tensor, Vec<Tensor>)> {
    let (n, out, dtype) = (x.shape().rows(), linears[0].w.shape().rows(), x.dtype());
    let y = Tensor::empty_on(device, dtype, [linears.len(), n, out])?;
    if linears.iter().any(|linear| !linear.terms.is_empty()) {
        let hidden = forward_wide(device, x, linears, &y)?;
        return Ok((y, hidden));
    }
    for (i, linear) in linears.iter().enumerate() {
        affine(device, x, &cast(device, linear.w, dtype)?, linear.bias, &y.index(i)?)?;
    }
    Ok((y, Vec::new()))
}

/// Writes y = `[x | h] [W | s B]`ᵀ + b `[G, n, out]`, and returns h of each term. `low_rank.cu` says how the columns lie.
fn forward_wide(device: &Arc<Device>, x: &Tensor, linears: &[LowRankLinear], y: &Tensor) -> Result<Vec<Tensor>> {
    let (n, out, dtype) = (x.shape().rows(), y.shape().cols(), x.dtype());
    let columns = |cols: usize| cols.next_multiple_of(8);
    let ranks: usize = linears.iter().flat_map(|l| &l.terms).map(|term| columns(term.rank())).sum();
    let stride = columns(x.shape().cols()) + ranks;
    let wide = Tensor::empty_on(device, dtype, [n, stride])?;
    let weights = Tensor::empty_on(device, dtype, [linears.len(), out, stride])?;
    let biases = Tensor::empty_on(device, dtype, [linears.len(), out])?;
    let (mut column, mut hidden) = (columns(x.shape().cols()), Vec::new());
    for (i, linear) in linears.iter().enumerate() {
        let (own, bias) = (weights.index(i)?, biases.index(i)?);
        // W and b go with the first term.
        let mut base = Some(linear);
        if linear.terms.is_empty() {
            stack(device, base, None, [&own, &bias])?;
        }
        for term in &linear.terms {
            stack(device, base.take(), Some((term, column)), [&own, &bias])?;
            hidden.push(hidden_of(device, x, term, &wide, column, hidden.is_empty())?);
            column += columns(term.rank());
        }
    }
    if !device.gemm_bias(wide.matrix()?, weights.index(0)?.matrix()?.t(), biases.address()?, y.index(0)?.matrix()?, linears.len())? {
        for i in 0..linears.len() {
            affine(device, &wide, &weights.index(i)?, Some(&biases.index(i)?), &y.index(i)?)?;
        }
    }
    Ok(hidden)
}

/// dW = dyᵀ x `[out, in]` f32.
pub(crate) fn weight_gradient(device: &Arc<Device>, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    product(device, 1.0, dy.matrix()?.t(), x, DType::F32)
}

/// dx `[n, in]` = Σ dy W + Σ drop(dh A), with dy W given as `products` (none if dx is not wanted), and the gradients of the terms.
pub(crate) fn backward(device: &Arc<Device>, products: &[(Tensor, Tensor)], terms: &[LowRankCotangent]) -> Result<LinearGradients> {
    let (mut grads, mut each_dh) = (Vec::new(), Vec::new());
    for t in terms {
        let (term_grads, dh) = term_gradients(device, t, !products.is_empty())?;
        grads.push(term_grads);
        each_dh.extend(dh);
    }
    let Some((dy, w)) = products.first() else { return Ok((None, grads)) };
    let (dtype, dims) = (dy.dtype(), [dy.shape().rows(), w.shape().cols()]);
    let single = products.len() == 1 && terms.is_empty();
    let sum = Tensor::empty_on(device, if single { dtype } else { DType::F32 }, dims)?;
    for (i, (dy, w)) in products.iter().enumerate() {
        let beta = if i == 0 { 0.0 } else { 1.0 };
        device.gemm(1.0, dy.matrix()?, cast(device, w, dtype)?.matrix()?, beta, sum.matrix()?)?;
    }
    if terms.is_empty() {
        return Ok((Some(cast(device, &sum, dtype)?), grads));
    }
    let mut dx = sum.clone();
    for (i, (t, dh)) in terms.iter().zip(&each_dh).enumerate() {
        let rounds = i + 1 == terms.len() && dtype != DType::F32;
        if rounds {
            dx = Tensor::empty_on(device, dtype, dims)?;
        }
        add_input(device, rounds.then_some(&sum), dh, &t.term, &dx)?;
    }
    Ok((Some(dx), grads))
}

/// [dA, dB] of a term, and its dh = s dy B `[n, r]` if dA or dx is needed.
fn term_gradients(device: &Arc<Device>, t: &LowRankCotangent, needs_dx: bool) -> Result<([Option<Tensor>; 2], Option<Tensor>)> {
    let (scale, dtype) = (t.term.scale as f32, t.dy.dtype());
    let db = t.h.as_ref().map(|h| product(device, scale, t.dy.matrix()?.t(), h, DType::F32)).transpose()?;
    if !needs_dx && t.x.is_none() {
        return Ok(([None, db], None));
    }
    let dh = product(device, scale, t.dy.matrix()?, &cast(device, &t.term.b, dtype)?, dtype)?;
    let da = t.x.as_ref().map(|x| weight_a(device, x, &dh, &t.term)).transpose()?;
    Ok(([da, db], Some(dh)))
}

/// scale · A·B, stored in `dtype`.
fn product(device: &Arc<Device>, scale: f32, a: Matrix, b: &Tensor, dtype: DType) -> Result<Tensor> {
    let c = Tensor::empty_on(device, dtype, [a.dims[usize::from(a.transposed)], b.shape().cols()])?;
    device.gemm(scale, a, b.matrix()?, 0.0, c.matrix()?)?;
    Ok(c)
}

/// y = x Wᵀ + b, with b rounded to y's type first.
fn affine(device: &Arc<Device>, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, y: &Tensor) -> Result<()> {
    let (x, w, to) = (x.matrix()?, w.matrix()?.t(), y.matrix()?);
    let Some(bias) = bias else { return device.gemm(1.0, x, w, 0.0, to) };
    let bias = cast(device, bias, y.dtype())?;
    if !device.gemm_bias(x, w, bias.address()?, to, 1)? {
        fill_rows(device, &bias, y)?;
        device.gemm(1.0, x, w, 1.0, to)?;
    }
    Ok(())
}

/// y = b in every row.
fn fill_rows(device: &Arc<Device>, b: &Tensor, y: &Tensor) -> Result<()> {
    let b = cast(device, b, DType::F32)?;
    let (rows, cols) = (y.shape().rows(), y.shape().cols());
    launch(device, "linear", "fill_rows", y.dtype(), tiles(rows, cols), &[b.argument()?, y.argument()?, size(rows), size(cols)])
}

/// h = drop(x) Aᵀ `[n, r]`, written also to `wide` from `column` on; `copies` x there too.
fn hidden_of(device: &Arc<Device>, x: &Tensor, term: &LowRankTerm, wide: &Tensor, column: usize, copies: bool) -> Result<Tensor> {
    /// Rows of a block: 4 to a warp.
    const ROWS: usize = 32;
    let (n, r) = (x.shape().rows(), term.rank());
    let (h, a) = (Tensor::empty_on(device, x.dtype(), [n, r])?, cast(device, &term.a, DType::F32)?);
    let mut arguments = vec![x.argument()?, a.argument()?, h.argument()?, wide.argument()?];
    arguments.extend(dropped(device, term.drop, &[n, x.shape().cols(), r, wide.shape().cols(), column, copies.into()])?);
    launch(device, "linear", "low_rank_hidden", x.dtype(), [n.div_ceil(ROWS), 1, 1], &arguments)?;
    Ok(h)
}

/// Writes `[W | s B]` and b of a linear, or s B alone of a further term. `term`: the term, and the column that it begins in.
fn stack(device: &Arc<Device>, base: Option<&LowRankLinear>, term: Option<(&LowRankTerm, usize)>, to: [&Tensor; 2]) -> Result<()> {
    let factor = term.map(|(term, _)| cast(device, &term.b, DType::F32)).transpose()?;
    let (rank, column, scale) = term.map_or((0, 0, 0.0), |(term, column)| (term.rank(), column, term.scale));
    let [wide, bias] = to;
    let (out, stride) = (wide.shape().rows(), wide.shape().cols());
    let mut arguments = Vec::new();
    arguments.extend(of_either("linear", base.map(|linear| linear.w))?);
    arguments.extend(of_either("linear", base.and_then(|linear| linear.bias))?);
    arguments.extend([or_null(factor.as_ref())?, wide.argument()?, bias.argument()?]);
    let input = base.map_or(0, |linear| linear.w.shape().cols());
    arguments.extend([out, input, rank, stride, column].map(size));
    arguments.push(Argument::F32(scale as f32));
    launch(device, "linear", "low_rank_stacked", wide.dtype(), tiles(out, stride), &arguments)
}

/// dA = dhᵀ drop(x) `[r, in]` f32.
fn weight_a(device: &Arc<Device>, x: &Tensor, dh: &Tensor, term: &LowRankTerm) -> Result<Tensor> {
    let (n, cols, r) = (x.shape().rows(), x.shape().cols(), term.rank());
    let partial = Tensor::empty_on(device, DType::F32, [n.div_ceil(TILE_ROWS), r, cols])?;
    let mut arguments = vec![x.argument()?, dh.argument()?, partial.argument()?];
    arguments.extend(dropped(device, term.drop, &[n, cols, r])?);
    launch(device, "linear", "low_rank_weight", x.dtype(), tiles(n, cols), &arguments)?;
    sum_parts(device, &partial, None, [r, cols])
}

/// dx = sum + drop(dh A). Without `sum`, dx holds the sum, in f32.
fn add_input(device: &Arc<Device>, sum: Option<&Tensor>, dh: &Tensor, term: &LowRankTerm, dx: &Tensor) -> Result<()> {
    let a = cast(device, &term.a, DType::F32)?;
    let (n, cols) = (dx.shape().rows(), dx.shape().cols());
    let mut arguments = vec![or_null(sum)?, dh.argument()?, a.argument()?, dx.argument()?];
    arguments.extend(dropped(device, term.drop, &[n, cols, term.rank()])?);
    device.launch(&by_types("low_rank_input", [dh, dx])?, tiles(n, cols), 256, 0, &arguments)
}

/// The name of the kernel for these two tensors: `stem` with their types at its end.
fn by_types(stem: &str, tensors: [&Tensor; 2]) -> Result<String> {
    match tensors.map(Tensor::dtype) {
        [DType::F32, DType::F32] => Ok(format!("{stem}_f32_f32")),
        [DType::BF16, DType::F32] => Ok(format!("{stem}_bf16_f32")),
        [DType::BF16, DType::BF16] => Ok(format!("{stem}_bf16_bf16")),
        other => Err(Error::dtype("linear", "f32 or bf16 on a GPU", &other)),
    }
}
