//! Views [`Attention`]'s one, two or three input tensors as q, k and v, and puts the extra keys and values before each sequence.

use super::attention::Attention;
use crate::tensor::{Accum, AttentionInputs, Sequences, Tensor, alloc, rows};
use crate::{Error, Result};

impl Attention {
    /// Views the inputs, or gradients of the same shapes, as q, k, v and the extra keys and values. Checks all shapes.
    pub(super) fn split(&self, inputs: &[&Tensor]) -> Result<AttentionInputs<'_>> {
        let Some(count) = inputs.len().checked_sub(if self.extra { 2 } else { 0 }).filter(|&count| count > 0) else {
            return Err(Error::invalid("attention: takes qkv, or q and kv, or q, k and v, and the extra keys and values"));
        };
        let (own, extra) = inputs.split_at(count);
        let (tq, t, d) = (self.queries.tokens(), self.keys.tokens(), own[0].shape().cols());
        let bad = |rule| Err(Error::shape("attention", rule, &inputs.iter().map(|t| t.shape()).collect::<Vec<_>>()));
        if self.queries.count() != self.keys.count() || self.heads == 0 || d % self.heads != 0 {
            return bad("as many query as key sequences, and D a multiple of the heads");
        }
        let qkv = match own {
            [qkv] if qkv.dims() == [3, t, d] && tq == t => [qkv.index(0)?, qkv.index(1)?, qkv.index(2)?],
            [q, kv] if q.dims() == [tq, d] && kv.dims() == [2, t, d] => [(*q).clone(), kv.index(0)?, kv.index(1)?],
            [q, k, v] if q.dims() == [tq, d] && [k, v].iter().all(|x| x.dims() == [t, d]) => [*q, *k, *v].map(Tensor::clone),
            _ => return bad("qkv [3, T, D], or q [Tq, D] and kv [2, T, D], or q, k and v"),
        };
        let extra = match extra {
            [k, v] if k.shape().cols() == d && k.shape() == v.shape() => Some([*k, *v].map(Tensor::clone)),
            [] => None,
            _ => return bad("extra keys and values [E, D]"),
        };
        Ok(AttentionInputs { qkv, extra, heads: self.heads, queries: &self.queries, keys: &self.keys, mask: self.mask.as_ref() })
    }
}

impl AttentionInputs<'_> {
    /// q, and k and v whose sequences each begin with the extra rows; and the sequence boundaries of these longer k and v.
    pub fn joined<S: Accum>(&self) -> Result<([Tensor; 3], Sequences)> {
        let all_keys = self.keys.lengthened(self.extra_rows());
        let Some([extra_k, extra_v]) = &self.extra else { return Ok((self.qkv.clone(), all_keys)) };
        let join = |own: &Tensor, extra: &Tensor| {
            let (own, extra, extra_rows, d) = (own.to_accum::<S>()?, extra.to_accum::<S>()?, extra.shape().rows(), own.shape().cols());
            let mut all = alloc::<S>(all_keys.tokens() * d);
            rows::for_each(&mut all, d, |first, to| {
                for (i, to) in to.chunks_exact_mut(d.max(1)).enumerate() {
                    let (b, row) = all_keys.locate(first + i);
                    let own_row = self.keys.range(b).start + row.saturating_sub(extra_rows);
                    to.copy_from_slice(if row < extra_rows { &extra[row * d..][..d] } else { &own[own_row * d..][..d] });
                }
            });
            Tensor::new(all, [all_keys.tokens(), d])
        };
        let [q, k, v] = &self.qkv;
        Ok(([q.clone(), join(k, extra_k)?, join(v, extra_v)?], all_keys))
    }
}
