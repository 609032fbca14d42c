//! [`Linear`] on a GPU: cuBLAS products, with kernels for the low-rank terms and the casts between them.

use super::linear::{Linear, Term};
use crate::Result;
use crate::autograd::Saved;
use crate::cuda::Device;
use crate::cuda::launch::{cast, column_sums, fill_rows, low_rank_hidden, low_rank_input, low_rank_output, low_rank_weight};
use crate::tensor::{DType, Mask, Sequences, Tensor};
use std::sync::Arc;

impl Linear {
    /// As the host's form: the products of a member are summed in f32 and rounded once.
    pub(super) fn forward_on(&self, device: &Arc<Device>, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let (places, count) = self.places();
        let out = self.check(inputs, &places, count)?;
        let (x, dtype) = (inputs[0], inputs[0].dtype());
        let n = x.shape().rows();
        let shape = x.shape().with_cols(out);
        let group: &[usize] = if places.len() > 1 { &[places.len()] } else { &[] };
        let y = Tensor::empty_on(device, dtype, [group, shape.dims()].concat())?;
        let flat = y.reshape([places.len(), n, out])?;
        let mut hidden = Vec::new();
        for (i, (p, member)) in places.iter().zip(&self.members).enumerate() {
            let to = flat.index(i)?;
            let (w, bias) = (cast(device, inputs[p.w], dtype)?, p.bias.map(|b| inputs[b]));
            saved.keep_if(needs[0], "w", inputs[p.w]);
            if member.terms.is_empty() {
                affine(device, x, &w, bias, &to)?;
                continue;
            }
            // The sum of all is rounded once, by the last term.
            let sum = if dtype == DType::F32 { to.clone() } else { Tensor::empty_on(device, DType::F32, [n, out])? };
            let apart = (dtype != DType::F32).then_some(&sum);
            device.gemm(1.0, x.matrix()?, w.matrix()?.t(), 0.0, sum.matrix()?)?;
            for (i, (term, &(a, b))) in member.terms.iter().zip(&p.terms).enumerate() {
                let h = low_rank_hidden(device, x, inputs[a], self.drop(term))?;
                let (sum, y) = if i + 1 == member.terms.len() { (apart, &to) } else { (None, &sum) };
                low_rank_output(device, sum, bias.filter(|_| i == 0), [&h, inputs[b]], term.scale, y)?;
                hidden.push(h);
            }
        }
        saved.keep_if(places.iter().any(|p| needs[p.w] || p.terms.iter().any(|&(a, _)| needs[a])), "x", x);
        let terms = places.iter().flat_map(|p| &p.terms);
        for (&(a, b), h) in terms.zip(&hidden) {
            saved.keep_if(needs.contains(&true), "a", inputs[a]);
            saved.keep_if(needs[0] || needs[a], "b", inputs[b]);
            saved.keep_if(needs[b], "h", h);
        }
        Ok(y)
    }

    pub(super) fn backward_on(&self, device: &Arc<Device>, mut saved: Saved, dy: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (places, count) = self.places();
        let mut grads: Vec<Option<Tensor>> = (0..count).map(|_| None).collect();
        let (out, n, dtype) = (dy.shape().cols(), dy.shape().rows() / places.len(), dy.dtype());
        let flat = dy.reshape([places.len(), n, out])?;
        let x = saved.take("x").ok();
        let dims = &dy.dims()[usize::from(places.len() > 1)..];
        // dx is a sum of products, in f32 until the last.
        let mut dx: Option<Tensor> = None;
        let single = places.len() == 1 && self.members[0].terms.is_empty();
        let mut terms_of_dx = Vec::new();
        for (i, (p, member)) in places.iter().zip(&self.members).enumerate() {
            let dy = flat.index(i)?;
            if let (true, Some(x)) = (needs[p.w], &x) {
                let dw = Tensor::empty_on(device, DType::F32, [out, x.shape().cols()])?;
                device.gemm(1.0, dy.matrix()?.t(), x.matrix()?, 0.0, dw.matrix()?)?;
                grads[p.w] = Some(dw);
            }
            if let Some(b) = p.bias.filter(|&b| needs[b]) {
                grads[b] = Some(column_sums(device, &dy, None, None)?);
            }
            if needs[0] {
                let w = cast(device, &saved.take("w")?, dtype)?;
                let beta = if dx.is_some() { 1.0 } else { 0.0 };
                let sum = match dx.take() {
                    Some(sum) => sum,
                    None => Tensor::empty_on(device, if single { dtype } else { DType::F32 }, [n, w.shape().cols()])?,
                };
                device.gemm(1.0, dy.matrix()?, w.matrix()?, beta, sum.matrix()?)?;
                dx = Some(sum);
            }
            for (term, &(a_at, b_at)) in member.terms.iter().zip(&p.terms) {
                let a = if needs.contains(&true) { Some(saved.take("a")?) } else { None };
                let b = if needs[0] || needs[a_at] { Some(saved.take("b")?) } else { None };
                if needs[b_at] {
                    let h = saved.take("h")?;
                    let db = Tensor::empty_on(device, DType::F32, [out, h.shape().cols()])?;
                    device.gemm(term.scale as f32, dy.matrix()?.t(), h.matrix()?, 0.0, db.matrix()?)?;
                    grads[b_at] = Some(db);
                }
                let (Some(a), Some(b)) = (a, b) else { continue };
                let b = cast(device, &b, dtype)?;
                let dh = Tensor::empty_on(device, dtype, [n, a.shape().rows()])?;
                device.gemm(term.scale as f32, dy.matrix()?, b.matrix()?, 0.0, dh.matrix()?)?;
                if let (true, Some(x)) = (needs[a_at], &x) {
                    grads[a_at] = Some(low_rank_weight(device, x, &dh, self.drop(term))?);
                }
                terms_of_dx.push((dh, a, self.drop(term)));
            }
        }
        if let Some(sum) = dx {
            let mut dx = if terms_of_dx.is_empty() { cast(device, &sum, dtype)? } else { sum.clone() };
            for (i, (dh, a, drop)) in terms_of_dx.iter().enumerate() {
                let last = i + 1 == terms_of_dx.len() && dtype != DType::F32;
                if last {
                    dx = Tensor::empty_on(device, dtype, sum.dims())?;
                }
                low_rank_input(device, last.then_some(&sum), [dh, a], *drop, &dx)?;
            }
            let shape = crate::tensor::Shape::from(dims).with_cols(dx.shape().cols());
            grads[0] = Some(dx.reshape(shape)?);
        }
        Ok(grads)
    }

    /// The dropout of a term.
    fn drop<'a>(&'a self, term: &'a Term) -> Option<(&'a Mask, &'a Sequences)> {
        term.mask.as_ref().zip(self.sequences.as_deref())
    }
}

/// y = x Wᵀ + b, the bias rounded to y's type first.
fn affine(device: &Arc<Device>, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, y: &Tensor) -> Result<()> {
    let (x, w, to) = (x.matrix()?, w.matrix()?.t(), y.matrix()?);
    let Some(bias) = bias else { return device.gemm(1.0, x, w, 0.0, to) };
    let bias = cast(device, bias, y.dtype())?;
    if !device.gemm_bias(x, w, bias.address()?, to)? {
        fill_rows(device, &bias, y)?;
        device.gemm(1.0, x, w, 1.0, to)?;
    }
    Ok(())
}
