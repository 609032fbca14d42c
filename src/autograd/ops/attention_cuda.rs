//! [`Attention`] on a GPU: `kernels/attention.cu`.

use super::Attention;
use crate::autograd::Saved;
use crate::cuda::launch::{bits, cast, named};
use crate::cuda::{Argument, Device};
use crate::tensor::{DType, Sequences, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// What a launch reads: q, k and v where they lie, and the extra keys and values in their type.
struct Inputs {
    qkv: [Tensor; 3],
    extra: Option<[Tensor; 2]>,
    width: usize,
    /// Rows that one block takes, and bytes of shared memory of forward, of dq and of dk and dv.
    tile: usize,
    shared: [usize; 3],
    /// Whether tensor cores take this type and head width.
    tensor_cores: bool,
}

impl Attention {
    fn read(&self, device: &Arc<Device>, tensors: &[&Tensor]) -> Result<Inputs> {
        let (own, extra) = tensors.split_at(tensors.len() - if self.extra { 2 } else { 0 });
        let dtype = own[0].dtype();
        let qkv = parts(own, self.queries.tokens(), self.keys.tokens())?;
        let d = qkv[0].shape().cols();
        let width = if self.heads > 0 && d.is_multiple_of(self.heads) { d / self.heads } else { 0 };
        if width == 0 || width > 128 || self.queries.count() != self.keys.count() {
            return Err(Error::shape("attention", "heads of 1 to 128 columns, and as many query as key sequences", &[qkv[0].shape()]));
        }
        let extra = match extra {
            [k, v] if k.shape().cols() == d && k.shape() == v.shape() => Some([cast(device, k, dtype)?, cast(device, v, dtype)?]),
            [] => None,
            _ => return Err(Error::shape("attention", "extra keys and values [E, D]", &[qkv[0].shape()])),
        };
        let tensor_cores = dtype == DType::BF16 && (width == 32 || width == 64);
        let (tile, shared) = match tensor_cores {
            true => (64, [640 * width, 512 * width, 512 * width + 512]),
            false => (16, [4 * 80 * (width | 1), 4 * 96 * (width | 1), 4 * 96 * (width | 1)]),
        };
        Ok(Inputs { qkv, extra, width, tile, shared, tensor_cores })
    }

    /// The kernel of this type and head width.
    fn kernel(&self, x: &Inputs, [f32, bf16, w32, w64]: [&'static str; 4]) -> Result<&'static str> {
        match (x.tensor_cores, x.width) {
            (true, 32) => Ok(w32),
            (true, _) => Ok(w64),
            _ => named("attention", x.qkv[0].dtype(), [f32, bf16]),
        }
    }

    /// The arguments that every kernel ends with.
    fn tail(&self, device: &Arc<Device>, x: &Inputs) -> Result<Vec<Argument>> {
        let extra = x.extra.as_ref().map_or(0, |[k, _]| k.shape().rows());
        let d = x.qkv[0].shape().cols() as u32;
        let numbers = [self.queries.tokens() as u32, x.width as u32, d, d, extra as u32].map(Argument::U32);
        let mut all = vec![
            self.queries.on(device)?.offsets.argument()?,
            self.keys.on(device)?.offsets.argument()?,
            self.queries.on(device)?.examples.argument()?,
            Argument::Address(0),
        ];
        all.extend(numbers);
        all.push(Argument::F32((x.width as f64).sqrt().recip() as f32));
        all.extend(bits(self.mask.as_ref()));
        Ok(all)
    }

    fn heads_of(&self, x: &Inputs, sequences: &Sequences, extra: usize) -> [usize; 3] {
        let longest = (0..sequences.count()).map(|b| sequences.length(b)).max().unwrap_or(0) + extra;
        [longest.div_ceil(x.tile), self.heads, sequences.count()]
    }

    pub(super) fn forward_on(&self, device: &Arc<Device>, tensors: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let x = self.read(device, tensors)?;
        let (tq, d) = (self.queries.tokens(), x.qkv[0].shape().cols());
        let y = Tensor::empty_on(device, x.qkv[0].dtype(), [tq, d])?;
        let keep = needs.contains(&true);
        let lse = if keep { Some(Tensor::empty_on(device, DType::F32, [self.heads, tq])?) } else { None };
        let name = self
            .kernel(&x, ["attention_forward_f32", "attention_forward_bf16", "attention_forward_bf16_w32", "attention_forward_bf16_w64"])?;
        let mut arguments = x.arguments()?;
        arguments.extend([y.argument()?, lse.as_ref().map_or(Ok(Argument::Address(0)), Tensor::argument)?]);
        arguments.extend(self.tail(device, &x)?);
        device.launch(name, self.heads_of(&x, &self.queries, 0), 128, x.shared[0], &arguments)?;
        if let Some(lse) = lse {
            tensors.iter().for_each(|t| saved.keep("inputs", t));
            saved.keep("y", &y);
            saved.keep("lse", &lse);
        }
        Ok(y)
    }

    pub(super) fn backward_on(&self, device: &Arc<Device>, mut saved: Saved, dy: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let tensors: Vec<Tensor> = needs.iter().map(|_| saved.take("inputs")).collect::<Result<_>>()?;
        let (y, lse) = (saved.take("y")?, saved.take("lse")?);
        let x = self.read(device, &tensors.iter().collect::<Vec<_>>())?;
        let (tq, d, dtype) = (self.queries.tokens(), x.qkv[0].shape().cols(), dy.dtype());
        let delta = Tensor::empty_on(device, DType::F32, [self.heads, tq])?;
        let name = named("attention", dtype, ["attention_backward_delta_f32", "attention_backward_delta_bf16"])?;
        let sizes = [tq as u32, x.width as u32].map(Argument::U32);
        let arguments = [y.argument()?, dy.argument()?, delta.argument()?, sizes[0], sizes[1]];
        device.launch(name, [tq.div_ceil(8), self.heads, 1], 256, 0, &arguments)?;

        let own = tensors.len() - if self.extra { 2 } else { 0 };
        let grads = tensors[..own].iter().map(|t| Tensor::empty_on(device, dtype, t.shape())).collect::<Result<Vec<_>>>()?;
        let [dq, dk, dv] = parts(&grads.iter().collect::<Vec<_>>(), tq, self.keys.tokens())?;
        let rows = x.extra.as_ref().map_or(0, |[k, _]| k.shape().rows());
        let (b, tail) = (self.keys.count(), self.tail(device, &x)?);
        let common = [x.arguments()?, vec![dy.argument()?, lse.argument()?, delta.argument()?]].concat();

        let queries = self.kernel(
            &x,
            [
                "attention_backward_queries_f32",
                "attention_backward_queries_bf16",
                "attention_backward_queries_bf16_w32",
                "attention_backward_queries_bf16_w64",
            ],
        )?;
        let arguments = [common.clone(), vec![dq.argument()?], tail.clone()].concat();
        device.launch(queries, self.heads_of(&x, &self.queries, 0), 128, x.shared[1], &arguments)?;

        // Each sequence's share of the gradients of the extra rows.
        let shares = match x.extra {
            Some(_) => Some([Tensor::empty_on(device, DType::F32, [b, rows, d])?, Tensor::empty_on(device, DType::F32, [b, rows, d])?]),
            None => None,
        };
        let keys = self.kernel(
            &x,
            [
                "attention_backward_keys_f32",
                "attention_backward_keys_bf16",
                "attention_backward_keys_bf16_w32",
                "attention_backward_keys_bf16_w64",
            ],
        )?;
        let mut arguments = [common, vec![dk.argument()?, dv.argument()?]].concat();
        match &shares {
            Some([k, v]) => arguments.extend([k.argument()?, v.argument()?]),
            None => arguments.extend([Argument::Address(0); 2]),
        }
        arguments.extend(tail);
        device.launch(keys, self.heads_of(&x, &self.keys, rows), 128, x.shared[2], &arguments)?;

        let mut result: Vec<Option<Tensor>> = grads.into_iter().zip(needs).map(|(g, &need)| need.then_some(g)).collect();
        for (share, &need) in shares.iter().flatten().zip(&needs[own..]) {
            let sum = Tensor::empty_on(device, DType::F32, [rows, d])?;
            let sizes = [b as u32, (rows * d) as u32].map(Argument::U32);
            let arguments = [share.argument()?, sum.argument()?, Argument::Address(0), sizes[0], sizes[1]];
            device.launch("attention_backward_extra_f32", [(rows * d).div_ceil(256), 1, 1], 256, 0, &arguments)?;
            let wanted = tensors[own].dtype();
            result.push(if need { Some(cast(device, &sum, wanted)?) } else { None });
        }
        Ok(result)
    }
}

impl Inputs {
    /// q, k, v, and the extra keys and values or null.
    fn arguments(&self) -> Result<Vec<Argument>> {
        let mut all = self.qkv.iter().map(Tensor::argument).collect::<Result<Vec<_>>>()?;
        match &self.extra {
            Some([k, v]) => all.extend([k.argument()?, v.argument()?]),
            None => all.extend([Argument::Address(0); 2]),
        }
        Ok(all)
    }
}

/// q, k and v of one tensor `[3, T, D]`, of two, q `[Tq, D]` and kv `[2, T, D]`, or of three.
fn parts(own: &[&Tensor], tq: usize, t: usize) -> Result<[Tensor; 3]> {
    match own {
        [qkv] if qkv.dims().len() == 3 && qkv.dims()[..2] == [3, t] && tq == t => Ok([qkv.index(0)?, qkv.index(1)?, qkv.index(2)?]),
        [q, kv] if q.shape().rows() == tq && kv.dims().len() == 3 && kv.dims()[..2] == [2, t] && kv.shape().cols() == q.shape().cols() => {
            Ok([(*q).clone(), kv.index(0)?, kv.index(1)?])
        }
        [q, k, v] if q.shape().rows() == tq && k.shape() == v.shape() && k.dims() == [t, q.shape().cols()] => {
            Ok([(*q).clone(), (*k).clone(), (*v).clone()])
        }
        _ => {
            let shapes: Vec<_> = own.iter().map(|x| x.shape()).collect();
            Err(Error::shape("attention", "qkv [3, T, D], or q [Tq, D] and kv [2, T, D], or q, k and v", &shapes))
        }
    }
}
