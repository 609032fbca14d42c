//! Attention by the kernels of `attention_plain.cu` and `attention_tensor_core.cu`. A block of threads takes a tile of rows of one sequence and head.

use super::{bits, cast, cast_to, launch, named, octets, or_null, size};
use crate::cuda::{Argument, Device};
use crate::tensor::{AttentionInputs, DType, Sequences, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// y `[Tq, D]` and the log-sum-exp of each row of scores, `[H, Tq]` f32. The third is a bit for each score: whether dropout kept its weight. It is there if
/// `keep` asks for it and the kernel drops on tensor cores; the backward of the other kernels draws again.
pub(crate) fn forward(device: &Arc<Device>, x: &AttentionInputs, keep: bool) -> Result<(Tensor, Tensor, Option<Tensor>)> {
    let mut kernels = Launch::new(device, x)?;
    let kept = (keep && kernels.stores_bits()).then(|| Tensor::empty_on(device, DType::U32, kernels.bits_shape())).transpose()?;
    kernels.kept = kept.as_ref();
    let y = Tensor::empty_on(device, x.qkv[0].dtype(), x.qkv[0].shape())?;
    let lse = Tensor::empty_on(device, DType::F32, [x.heads, x.queries.tokens()])?;
    kernels.run("attention_forward", x.queries, 0, 0, &[y.argument()?, lse.argument()?])?;
    Ok((y, lse, kept))
}

/// Writes the gradients of what attention reads to `grads`, from y, the log-sum-exps, dy and the bits of forward.
pub(crate) fn backward(
    device: &Arc<Device>,
    x: &AttentionInputs,
    [y, lse, dy]: [&Tensor; 3],
    kept: Option<&Tensor>,
    grads: &AttentionInputs,
) -> Result<()> {
    let mut kernels = Launch::new(device, x)?;
    if kernels.stores_bits() != kept.is_some() {
        return Err(Error::invalid("attention: backward on a GPU needs what forward stored of its dropout"));
    }
    kernels.kept = kept;
    let [dq, dk, dv] = &grads.qkv;
    let delta = kernels.delta(y, dy)?;
    let common = [dy.argument()?, lse.argument()?, delta.argument()?];
    kernels.run("attention_backward_queries", x.queries, 0, 1, &[&common[..], &[dq.argument()?]].concat())?;

    // Each sequence's part of the gradients of the extra keys and values: [B, E, D].
    let dims = [x.keys.count(), x.extra_rows(), dy.shape().cols()];
    let parts = x.extra.iter().flatten().map(|_| Tensor::empty_on(device, DType::F32, dims)).collect::<Result<Vec<_>>>()?;
    let outputs = [dk.argument()?, dv.argument()?, or_null(parts.first())?, or_null(parts.get(1))?];
    kernels.run("attention_backward_keys", x.keys, x.extra_rows(), 2, &[&common[..], &outputs].concat())?;
    parts.iter().zip(grads.extra.iter().flatten()).try_for_each(|(parts, to)| sum_sequences(device, parts, to))
}

/// Writes Σ over the sequences of `parts` `[B, E, D]` to `to` `[E, D]`.
fn sum_sequences(device: &Arc<Device>, parts: &Tensor, to: &Tensor) -> Result<()> {
    let sum = if to.dtype() == DType::F32 { to.clone() } else { Tensor::empty_on(device, DType::F32, to.shape())? };
    let (sequences, n) = (parts.dims()[0], to.shape().len());
    let arguments = [parts.argument()?, sum.argument()?, Argument::Address(0), size(sequences), size(n)];
    device.launch("attention_backward_extra_f32", [n.div_ceil(256), 1, 1], 256, 0, &arguments)?;
    if to.dtype() == DType::F32 { Ok(()) } else { cast_to(device, &sum, to) }
}

/// What all launches of one call share.
struct Launch<'a> {
    device: &'a Arc<Device>,
    x: &'a AttentionInputs<'a>,
    /// The extra keys and values in the type of q.
    extra: Option<[Tensor; 2]>,
    /// K.
    width: usize,
    /// Whether tensor cores take this type and head width.
    tensor_cores: bool,
    /// The bits that forward writes and backward reads.
    kept: Option<&'a Tensor>,
}

impl<'a> Launch<'a> {
    fn new(device: &'a Arc<Device>, x: &'a AttentionInputs<'a>) -> Result<Self> {
        let (dtype, width) = (x.qkv[0].dtype(), x.qkv[0].shape().cols() / x.heads);
        if width == 0 || width > 128 {
            return Err(Error::shape("attention", "heads of 1 to 128 columns on a GPU", &[x.qkv[0].shape()]));
        }
        let extra = x.extra.as_ref().map(|[k, v]| Ok([cast(device, k, dtype)?, cast(device, v, dtype)?])).transpose()?;
        let tensor_cores = dtype == DType::BF16 && (width == 32 || width == 64);
        Ok(Launch { device, x, extra, width, tensor_cores, kept: None })
    }

    /// Whether forward stores which weights it kept.
    fn stores_bits(&self) -> bool {
        self.tensor_cores && self.x.mask.is_some_and(|mask| mask.threshold() > 0)
    }

    /// For each head: rows of 16 queries, and in a row 32 words for each 64 keys. (`attention.cuh` says how the sequences lie in it.)
    fn bits_shape(&self) -> [usize; 4] {
        let queries = self.x.queries;
        [self.x.heads, queries.tokens() / 16 + queries.count() + 1, self.bits_tiles(), 32]
    }

    fn bits_tiles(&self) -> usize {
        (longest(self.x.keys) + self.x.extra_rows()).div_ceil(64)
    }

    /// δ = Σ dy ⊙ y over each row of each head: `[H, Tq]` f32.
    fn delta(&self, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let (tq, heads) = (self.x.queries.tokens(), self.x.heads);
        let delta = Tensor::empty_on(self.device, DType::F32, [heads, tq])?;
        let mut arguments = vec![y.argument()?, dy.argument()?, delta.argument()?, size(tq)];
        if self.tensor_cores {
            arguments.push(size(heads));
            let name = format!("attention_backward_delta_bf16_w{}", self.width);
            self.device.launch(&name, octets(tq * heads * self.width), 256, 0, &arguments)?;
        } else {
            arguments.push(size(self.width));
            launch(self.device, "attention", "attention_backward_delta", dy.dtype(), [tq.div_ceil(8), heads, 1], &arguments)?;
        }
        Ok(delta)
    }

    /// Launches the kernel `stem` over the rows of `sequences`, each with `more` rows in front. Its name ends in the type, and on tensor cores also in
    /// the width of a head, such as `_bf16_w32`. `pass`: 0 for y, 1 for dq, 2 for dk and dv. `own`: what only this kernel takes.
    fn run(&self, stem: &str, sequences: &Sequences, more: usize, pass: usize, own: &[Argument]) -> Result<()> {
        let mut name = named("attention", self.x.qkv[0].dtype(), stem)?;
        if self.tensor_cores {
            name += &format!("_w{}", self.width);
        }
        // Rows of a block, and its bytes of shared memory.
        let (tile, shared) = match self.tensor_cores {
            true => (64, [640 * self.width, 512 * self.width, 512 * self.width + 512]),
            false => (16, [320, 384, 384].map(|bytes| bytes * (self.width | 1))),
        };
        let grid = [(longest(sequences) + more).div_ceil(tile), self.x.heads, sequences.count()];
        let arguments = [self.inputs()?, own.to_vec(), self.settings()?].concat();
        self.device.launch(&name, grid, 128, shared[pass], &arguments)
    }

    /// The arguments that every kernel begins with.
    fn inputs(&self) -> Result<Vec<Argument>> {
        let [k, v] = self.extra.as_ref().map_or([None, None], |[k, v]| [Some(k), Some(v)]);
        self.x.qkv.iter().map(Some).chain([k, v]).map(or_null).collect()
    }

    /// The arguments that every kernel ends with.
    fn settings(&self) -> Result<Vec<Argument>> {
        let (queries, keys) = (self.x.queries.on(self.device)?, self.x.keys.on(self.device)?);
        let d = self.width * self.x.heads;
        // The null pointer: all sequences are computed. The row strides of q and of k and v: D.
        let mut all = vec![queries.offsets.argument()?, keys.offsets.argument()?, queries.examples.argument()?, Argument::Address(0)];
        all.extend([self.x.queries.tokens(), self.width, d, d, self.x.extra_rows()].map(size));
        all.push(Argument::F32((self.width as f64).sqrt().recip() as f32));
        all.extend(bits(self.x.mask));
        all.extend([or_null(self.kept)?, size(self.bits_tiles())]);
        Ok(all)
    }
}

/// Rows of the longest sequence.
fn longest(sequences: &Sequences) -> usize {
    (0..sequences.count()).map(|b| sequences.length(b)).max().unwrap_or(0)
}
