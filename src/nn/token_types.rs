//! BERT's token types, which tell the two texts of a pair apart. Devlin et al. 2018, <https://arxiv.org/abs/1810.04805>, figure 2 ("segment
//! embeddings"). DistilBERT has none. A first reader may skip this file.
//!
//! `[CLS]` a `[SEP]` have type 0, and b `[SEP]` type 1. A prompt's rows have type 0, as in PEFT.

use super::{DistilBert, Pass};
use crate::autograd::{Tape, Var};
use crate::tensor::Tensor;
use crate::{Error, Result};

impl DistilBert {
    /// The first inputs of [`EmbeddingLayerNorm`](crate::autograd::ops::EmbeddingLayerNorm): ids `[T']`, words and positions, of which T' tokens take a
    /// row each. T' is T without a prompt's rows. `pass` has all T rows; the longest sequence has `longest`.
    ///
    /// Without pairs, every token has type 0, so its row is added to the positions. With pairs, it is added to the word of each token, and the
    /// words are a table of T' rows, one for each token: rows 0 to T' − 1.
    pub(super) fn tables_of<'m>(&'m self, tape: &mut Tape<'m>, ids: &[u32], pass: &Pass, longest: usize) -> Result<[Var; 3]> {
        let n = ids.len();
        let index = |ids: Vec<u32>| Tensor::new(ids, [n]);
        let (words, positions) = (self.word_embeddings.var(tape, pass)?, self.position_embeddings.var(tape, pass)?);
        let (Some(table), dtype) = (&self.token_type_embeddings, self.dtype.accum()) else {
            return Ok([tape.constant(&index(ids.to_vec())?), words, positions]);
        };
        let table = table.var(tape, pass)?;
        let Some(types) = self.token_types(pass)? else {
            let first = tape.embedding(&positions, &Tensor::new((0..longest as u32).collect::<Vec<_>>(), [longest])?, dtype)?;
            let of_type = tape.embedding(&table, &Tensor::new(vec![0u32; longest], [longest])?, dtype)?;
            return Ok([tape.constant(&index(ids.to_vec())?), words, tape.add(&first, &of_type)?]);
        };
        let words = tape.embedding(&words, &index(ids.to_vec())?, dtype)?;
        let types = tape.embedding(&table, &index(types)?, dtype)?;
        Ok([tape.constant(&index((0..n as u32).collect())?), tape.add(&words, &types)?, positions])
    }

    /// The prompt `[P, D]`, with token type 0 if [`DistilBert::tables_of`] did not add it to the positions.
    pub(super) fn prompt_of<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass) -> Result<Option<Var>> {
        let Some(prompt) = &self.prompt else { return Ok(None) };
        let (rows, prompt) = (prompt.shape().rows(), prompt.var(tape, pass)?);
        let Some(table) = self.token_type_embeddings.as_ref().filter(|_| pass.sequences.second_lengths().is_some()) else {
            return Ok(Some(prompt));
        };
        let table = table.var(tape, pass)?;
        let of_type = tape.embedding(&table, &Tensor::new(vec![0u32; rows], [rows])?, prompt.value().dtype())?;
        tape.add(&prompt, &of_type).map(Some)
    }

    /// The type of each token, without a prompt's rows: `[T']`. `None` if no sequence is a pair.
    fn token_types(&self, pass: &Pass) -> Result<Option<Vec<u32>>> {
        let Some(seconds) = pass.sequences.second_lengths() else { return Ok(None) };
        if self.config.type_vocab_size < 2 {
            return Err(Error::invalid(
                "the model has one token type: a pair of texts needs two; take another model, or join the texts to one",
            ));
        }
        let of = |(b, &second): (usize, &usize)| {
            let first = pass.sequences.length(b) - self.prompt_rows() - second;
            std::iter::repeat_n(0, first).chain(std::iter::repeat_n(1, second))
        };
        Ok(Some(seconds.iter().enumerate().flat_map(of).collect()))
    }
}
