//! One transformer layer of DistilBERT or BERT. Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, section 3.

use super::{LayerNorm, Linear, Pass, Weight, site};
use crate::Result;
use crate::autograd::ops::Attention;
use crate::autograd::{Tape, Var};

/// a = LN(drop(out(attention(q(h), k(h), v(h)))) + h), then y = LN(drop(lin2(gelu(lin1(a)))) + a). The fields have DistilBERT's names.
pub struct Block {
    /// Name in the checkpoint.
    pub name: String,
    /// Number of the layer, from 0.
    pub layer: usize,
    /// H, number of attention heads.
    pub heads: usize,
    /// Dropout of the attention probabilities.
    pub attention_dropout: f64,
    /// Dropout of attention's output: 0 in DistilBERT.
    pub attention_output_dropout: f64,
    /// Dropout of the feed-forward output.
    pub dropout: f64,
    /// Queries, keys and values, `[D, D]`.
    pub qkv: [Linear; 3],
    /// Attention's output, `[D, D]`.
    pub out: Linear,
    /// After attention.
    pub sa_layer_norm: LayerNorm,
    /// `[F, D]`.
    pub lin1: Linear,
    /// `[D, F]`.
    pub lin2: Linear,
    /// After the feed-forward network.
    pub output_layer_norm: LayerNorm,
    /// A prefix: keys and values `[E, D]` that stand before those of every sequence.
    pub prefix: Option<[Weight; 2]>,
    /// A module after attention, and one after the feed-forward network; each before dropout, residual and layer norm.
    pub hooks: [Option<Box<dyn Hook>>; 2],
}

/// A module that replaces the output h of a sublayer: a bottleneck network. A first reader may skip it.
pub trait Hook {
    /// The new h `[N, D]` of h `[N, D]`.
    ///
    /// # Errors
    /// Those of the ops it applies.
    fn forward<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, h: &Var) -> Result<Var>;
    /// Its weights.
    fn weights(&self) -> Vec<&Weight>;
    /// Its weights, to be changed.
    fn weights_mut(&mut self) -> Vec<&mut Weight>;
}

/// The rows of its output that a block computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// All: N = T.
    All,
    /// The first row of each sequence, `[CLS]`: N = B.
    FirstRows,
}

impl Block {
    /// y `[N, D]` of h `[T, D]`.
    ///
    /// The first rows are the same function of h whether they are computed alone or among all rows. Only attention mixes rows, and its keys
    /// and values come from all T rows of h in both cases. Dropout draws the same masks, because they depend on the example and the row in
    /// it, not on N. A test compares both. It allows a difference of 1e-12
    /// of the largest number, because some sums over rows run in another order.
    ///
    /// # Errors
    /// If the shapes do not fit; the message names the layer.
    pub fn forward<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, h: &Var, wanted: Wanted) -> Result<Var> {
        // The wanted rows of h, `[N, D]`: attention's queries are computed from them, and they are its residual.
        let (own_pass, x) = match wanted {
            Wanted::All => (pass.clone(), h.clone()),
            Wanted::FirstRows => (pass.first_rows(), tape.first_row(h, &pass.sequences)?),
        };
        let context = self.attention(tape, pass, h, &own_pass, &x)?; // [N, D]
        // From here on, every op works on the wanted rows, with their own pass.
        let attended = self.out.forward(tape, &own_pass, &context)?; // [N, D]
        let attended = self.hook(0, tape, &own_pass, attended)?;
        let mask = own_pass.mask(self.attention_output_dropout, site::attention_output(self.layer));
        let a = self.sa_layer_norm.after_residual(tape, &own_pass, &attended, &x, mask)?; // [N, D]
        let wide = self.lin1.forward(tape, &own_pass, &a)?; // [N, F]
        let wide = tape.gelu(&wide)?;
        let narrow = self.lin2.forward(tape, &own_pass, &wide)?; // [N, D]
        let narrow = self.hook(1, tape, &own_pass, narrow)?;
        self.output_layer_norm.after_residual(tape, &own_pass, &narrow, &a, own_pass.mask(self.dropout, site::ffn(self.layer)))
    }

    /// softmax(q kᵀ / √K) v of every head: `[N, D]`. Queries come from x `[N, D]`, the rows of `queries`; keys and values from h `[T, D]`,
    /// the rows of `pass`.
    fn attention<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, h: &Var, queries: &Pass, x: &Var) -> Result<Var> {
        let (op, inputs) = self.attention_op(tape, pass, h, queries, x)?;
        tape.apply(op, &inputs.iter().collect::<Vec<_>>())
    }

    /// The attention op of [`Block::attention`], and its inputs.
    pub(super) fn attention_op<'m>(
        &'m self,
        tape: &mut Tape<'m>,
        pass: &Pass,
        h: &Var,
        queries: &Pass,
        x: &Var,
    ) -> Result<(Attention, Vec<Var>)> {
        let [q, k, v] = &self.qkv;
        // As few ops as possible: linears of the same x share an op. The attention op takes `[3, T, D]`, or `[N, D]` and `[2, T, D]`, or
        // three tensors.
        let mut inputs = if self.qkv.iter().any(|l| l.variant.is_some()) {
            vec![q.forward(tape, queries, x)?, k.forward(tape, pass, h)?, v.forward(tape, pass, h)?]
        } else if queries.sequences == pass.sequences {
            // All rows are wanted, or every sequence has one row, which is its first.
            vec![Linear::group(tape, pass, h, &[q, k, v])?]
        } else {
            vec![q.forward(tape, queries, x)?, Linear::group(tape, pass, h, &[k, v])?]
        };
        for weight in self.prefix.iter().flatten() {
            inputs.push(weight.var(tape, pass)?);
        }
        let op = Attention {
            heads: self.heads,
            queries: queries.sequences.clone(),
            keys: pass.sequences.clone(),
            // Whether the last two inputs are a prefix of keys and values.
            extra: self.prefix.is_some(),
            mask: pass.mask(self.attention_dropout, site::attention(self.layer)),
        };
        Ok((op, inputs))
    }

    fn hook<'m>(&'m self, sublayer: usize, tape: &mut Tape<'m>, pass: &Pass, h: Var) -> Result<Var> {
        match &self.hooks[sublayer] {
            Some(hook) => hook.forward(tape, pass, &h),
            None => Ok(h),
        }
    }
}
