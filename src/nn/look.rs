//! A forward pass in two halves, and the attention inside of it: for those who explain an answer.

use super::{DistilBert, Pass};
use crate::autograd::{Tape, Var};
use crate::tensor::{Sequences, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

impl DistilBert {
    /// h⁰ `[T + B·P, D]` of packed ids `[T]` without dropout: the embeddings after their layer norm. The P rows of a prompt come before those of each
    /// sequence.
    ///
    /// # Errors
    /// As [`DistilBert::forward`].
    pub fn embeddings(&self, ids: &[u32], sequences: &Arc<Sequences>) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let pass = self.prepare(&mut tape, ids, &Pass::evaluation(sequences.clone()))?;
        let embeddings = self.embed(&mut tape, ids, &pass)?.value().clone();
        self.check_unchanged().map(|()| embeddings)
    }

    /// Logits `[B, C]` of h⁰, as [`DistilBert::embeddings`] gives it. The sequences of `pass` are those of the ids, without a prompt's rows.
    ///
    /// # Errors
    /// If `h` has another number of rows than the sequences, and those of [`DistilBert::forward`].
    pub fn forward_on_embeddings<'m>(&'m self, tape: &mut Tape<'m>, h: &Var, pass: &Pass) -> Result<Var> {
        let pass = self.inside(tape, pass)?;
        let wanted = [pass.sequences.tokens(), self.config.dim];
        if h.value().dims() != wanted {
            return Err(Error::shape("distilbert", "one row of embeddings per token", &[h.shape(), &wanted.into()]));
        }
        self.above_embeddings(tape, h.clone(), &pass, &mut |_, _| {})
    }

    /// The attention of layer `layer`, counted from 0, for one text of T ids: for each of the H heads the probabilities `[N][E + N]`, with a row for each
    /// query and a column for each key. N = P + T: the rows of a prompt come first. E keys of a prefix come before all others.
    ///
    /// # Errors
    /// If there is no such layer, and those of [`DistilBert::forward`].
    pub fn attention(&self, ids: &[u32], layer: usize) -> Result<Vec<Vec<Vec<f64>>>> {
        let layers = self.blocks.len();
        let missing = || Error::invalid(format!("attention: there is no layer {layer}: the model has {layers}, counted from 0"));
        let block = self.blocks.get(layer).ok_or_else(missing)?;
        let (mut tape, sequences) = (Tape::inference(), Arc::new(Sequences::new(&[ids.len()], vec![0])?));
        let pass = self.prepare(&mut tape, ids, &Pass::evaluation(sequences))?;
        let mut h = self.embed(&mut tape, ids, &pass)?;
        for below in &self.blocks[..layer] {
            h = below.forward(&mut tape, &pass, &h, super::Wanted::All)?;
        }
        let (op, inputs) = block.attention_op(&mut tape, &pass, &h, &pass, &h)?;
        let probabilities = op.probabilities(&inputs.iter().map(Var::value).collect::<Vec<_>>())?;
        self.check_unchanged().map(|()| probabilities)
    }
}
