//! One transformer layer of DistilBERT. Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>.

use super::{LayerNorm, Linear, Pass, Weight, WeightMut, WeightRef, site};
use crate::Result;
use crate::autograd::ops::Attention;
use crate::autograd::{Tape, Var};

/// a = LN(out(attention(h)) + h); y = LN(drop(lin2(gelu(lin1(a)))) + a). No dropout after `out_lin`, unlike BERT.
pub struct Block {
    /// 0-based.
    pub layer: usize,
    /// H.
    pub heads: usize,
    /// Dropout of the attention probabilities.
    pub attention_dropout: f64,
    /// Dropout of the feed-forward output.
    pub dropout: f64,
    /// `attention.q_lin`, `k_lin`, `v_lin`.
    pub qkv: [Linear; 3],
    /// `attention.out_lin`.
    pub out: Linear,
    /// After attention.
    pub sa_layer_norm: LayerNorm,
    /// `ffn.lin1`.
    pub lin1: Linear,
    /// `ffn.lin2`.
    pub lin2: Linear,
    /// After the feed-forward block.
    pub output_layer_norm: LayerNorm,
    /// Keys and values `[P, D]` that every sequence sees before its own.
    pub prefix: Option<[Weight; 2]>,
    /// After each of the two sublayers, before its dropout, residual and layer norm.
    pub hooks: [Option<Box<dyn Hook>>; 2],
}

/// A module put after a sublayer: h `[T, D]` to `[T, D]`.
pub trait Hook {
    /// What takes the place of h.
    ///
    /// # Errors
    /// Those of the ops it applies.
    fn forward<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, h: &Var) -> Result<Var>;
    /// Its weights.
    fn weights(&self) -> Vec<&Weight>;
    /// Its weights, to be changed.
    fn weights_mut(&mut self) -> Vec<&mut Weight>;
}

/// Which rows of a block's output are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// All `[T, D]`.
    All,
    /// The first of each sequence, `[CLS]`: `[B, D]`. Only keys and values are computed for the others.
    FirstRows,
}

impl Block {
    /// y of h `[T, D]`.
    ///
    /// # Errors
    /// If the shapes do not fit; the message names the layer.
    pub fn forward<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, h: &Var, wanted: Wanted) -> Result<Var> {
        let (own, residual) = match wanted {
            Wanted::All => (pass.clone(), h.clone()),
            Wanted::FirstRows => (pass.first_rows(), tape.first_row(h, &pass.sequences)?),
        };
        let attended = self.attention(tape, pass, h, &own, &residual)?;
        let attended = self.hooked(0, tape, &own, attended)?;
        let a = self.sa_layer_norm.after_residual(tape, &own, &attended, &residual, None)?;
        let wide = self.lin1.forward(tape, &own, &a)?;
        let wide = tape.gelu(&wide)?;
        let narrow = self.lin2.forward(tape, &own, &wide)?;
        let narrow = self.hooked(1, tape, &own, narrow)?;
        self.output_layer_norm.after_residual(tape, &own, &narrow, &a, own.mask(self.dropout, site::ffn(self.layer)))
    }

    /// Attention of the rows `x`, which lie as `own` says, to those of `h`, which lie as `pass` says.
    fn attention<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass, h: &Var, own: &Pass, x: &Var) -> Result<Var> {
        let [q, k, v] = &self.qkv;
        // The same rows: one op, and one pass over them.
        let mut inputs = if self.qkv.iter().any(|l| l.magnitude.is_some()) {
            vec![q.forward(tape, own, x)?, k.forward(tape, pass, h)?, v.forward(tape, pass, h)?]
        } else if own.sequences == pass.sequences {
            vec![Linear::group(tape, pass, h, &[q, k, v])?]
        } else {
            vec![q.forward(tape, own, x)?, Linear::group(tape, pass, h, &[k, v])?]
        };
        for extra in self.prefix.iter().flatten() {
            inputs.push(extra.var(tape)?);
        }
        let op = Attention {
            heads: self.heads,
            queries: own.sequences.clone(),
            keys: pass.sequences.clone(),
            extra: self.prefix.is_some(),
            mask: pass.mask(self.attention_dropout, site::attention(self.layer)),
        };
        let context = tape.apply(op, &inputs.iter().collect::<Vec<_>>())?;
        self.out.forward(tape, own, &context)
    }

    fn hooked<'m>(&'m self, which: usize, tape: &mut Tape<'m>, pass: &Pass, h: Var) -> Result<Var> {
        match &self.hooks[which] {
            Some(hook) => hook.forward(tape, pass, &h),
            None => Ok(h),
        }
    }

    /// The six linears: q, k, v, out, lin1, lin2.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        self.qkv.iter_mut().chain([&mut self.out, &mut self.lin1, &mut self.lin2]).collect()
    }

    pub(super) fn visit<'a>(&'a self, f: &mut dyn FnMut(WeightRef<'a>)) {
        self.qkv.iter().chain([&self.out]).for_each(|l| l.visit(f));
        self.sa_layer_norm.visit(f);
        [&self.lin1, &self.lin2].into_iter().for_each(|l| l.visit(f));
        self.output_layer_norm.visit(f);
        self.prefix.iter().flatten().for_each(|w| f(WeightRef::Extra(w)));
        self.hooks.iter().flatten().flat_map(|h| h.weights()).for_each(|w| f(WeightRef::Extra(w)));
    }

    pub(super) fn visit_mut<'a>(&'a mut self, f: &mut dyn FnMut(WeightMut<'a>)) {
        self.qkv.iter_mut().chain([&mut self.out]).for_each(|l| l.visit_mut(f));
        self.sa_layer_norm.visit_mut(f);
        [&mut self.lin1, &mut self.lin2].into_iter().for_each(|l| l.visit_mut(f));
        self.output_layer_norm.visit_mut(f);
        self.prefix.iter_mut().flatten().for_each(|w| f(WeightMut::Extra(w)));
        self.hooks.iter_mut().flatten().flat_map(|h| h.weights_mut()).for_each(|w| f(WeightMut::Extra(w)));
    }
}
