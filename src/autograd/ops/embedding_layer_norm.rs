//! The embeddings of packed tokens in one pass: a row of each of two tables, and layer normalisation. Devlin et al. 2018, BERT,
//! <https://arxiv.org/abs/1810.04805>, figure 2, without segments. The prompt is that of Lester et al. 2021, <https://arxiv.org/abs/2104.08691>.

use super::dropout::drop_rows;
use super::{embedding, embedding_rows, layer_norm_shared};
use crate::autograd::{Op, Saved};
#[cfg(test)]
use crate::autograd::{Tape, Var};
use crate::tensor::{DType, Mask, NormRows, Sequences, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// y = f ⊙ (LN(e) γ + β) with `e[t] = words[ids[t]] + positions[p]`, where p is the place of row t in its sequence, and f are the factors of dropout.
///
/// With a prompt, its P rows come before the words of each sequence, and get positions like words. With de the gradient of LN's input, the
/// gradient of a table's row is Σ `de[t]` over the rows t that took it.
///
/// The op equals [`super::Embedding`] twice, [`super::Add`], [`super::LayerNorm`] and [`super::Dropout`]; one pass over memory replaces four, without their
/// roundings. On a GPU it also replaces the fifth.
///
/// Inputs, in order: ids u32 `[T − B·P]`, words `[V, d]`, positions `[M, d]`, γ and β `[d]`, and the prompt `[P, d]` if P > 0; y `[T, d]`.
pub struct EmbeddingLayerNorm {
    /// Type of y. The tables keep their own types: see [`super::Embedding`].
    pub dtype: DType,
    /// Added to the variance.
    pub eps: f64,
    /// Sequence boundaries of the rows of y.
    pub sequences: Arc<Sequences>,
    /// P.
    pub prompt: usize,
    /// Dropout of y.
    pub mask: Option<Mask>,
}

/// The tables, in the order of [`embedding_rows::picked`]: their names in what is saved, and their places among the inputs.
const TABLES: [(&str, usize); 3] = [("words", 1), ("positions", 2), ("prompt", 5)];

impl EmbeddingLayerNorm {
    /// The plain form, for the tests. `table` `[V + P, d]` has the words, and below them the prompt.
    #[cfg(test)]
    fn composed(&self, tape: &mut Tape, ids: &[u32], [table, positions, gamma, beta]: [&Var; 4]) -> Result<Var> {
        let (mut ids, words) = (ids.iter().copied(), table.shape().rows() - self.prompt);
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for b in 0..self.sequences.count() {
            rows.extend((words..words + self.prompt).map(|row| row as u32));
            rows.extend(ids.by_ref().take(self.sequences.length(b) - self.prompt));
            places.extend(0..self.sequences.length(b) as u32);
        }
        let n = rows.len();
        let rows = tape.embedding(table, &Tensor::new(rows, [n])?, self.dtype)?;
        let places = tape.embedding(positions, &Tensor::new(places, [n])?, self.dtype)?;
        let e = tape.add(&rows, &places)?;
        let y = tape.layer_norm(&e, gamma, beta, self.eps)?;
        tape.dropout(&y, self.mask.clone(), &self.sequences)
    }

    /// # Errors
    /// If an input does not fit.
    fn check(&self, inputs: &[&Tensor]) -> Result<()> {
        if inputs.len() != 5 + usize::from(self.prompt > 0) {
            return Err(Error::invalid("embedding_layer_norm: takes ids, words, positions, gamma and beta, and a prompt if it has rows"));
        }
        let (ids, words, positions) = (inputs[0], inputs[1], inputs[2]);
        let lengths = || (0..self.sequences.count()).map(|b| self.sequences.length(b));
        let (longest, shortest) = (lengths().max().unwrap_or(0), lengths().min().unwrap_or(self.prompt));
        let fits = |t: &Tensor| t.dims().len() == 2 && t.shape().cols() == words.shape().cols();
        let broken = |rule, table: &Tensor| Err(Error::shape("embedding_layer_norm", rule, &[words.shape(), table.shape()]));
        if !fits(positions) || longest > positions.shape().rows() {
            return broken("words [V, d] and a position [d] for each place", positions);
        }
        if let Some(prompt) = inputs.get(5).filter(|p| !fits(p) || p.shape().rows() != self.prompt) {
            return broken("words [V, d] and a prompt [P, d]", prompt);
        }
        let tokens = self.sequences.tokens();
        if shortest < self.prompt || ids.shape().len() + self.sequences.count() * self.prompt != tokens {
            return Err(Error::shape("embedding_layer_norm", "an id for each row without a prompt", &[ids.shape(), &[tokens].into()]));
        }
        embedding::check(words, ids).map(|_| ())
    }

    /// Which rows of table number `table` the rows of e took.
    fn picks(&self, table: usize, ids: &[u32]) -> Vec<embedding::Pick> {
        let of_table =
            |row| embedding_rows::picked(&self.sequences, self.prompt, ids, row).into_iter().find(|&(picked, _)| picked == table);
        (0..self.sequences.tokens()).filter_map(|row| Some((row as u32, of_table(row)?.1))).collect()
    }

    /// Number, name and input of the tables that a gradient must reach.
    fn trained(needs: &[bool]) -> impl Iterator<Item = (usize, &'static str, usize)> {
        let tables = TABLES.into_iter().enumerate().map(|(table, (name, input))| (table, name, input));
        tables.filter(|&(_, _, input)| needs.get(input) == Some(&true))
    }
}

impl Op for EmbeddingLayerNorm {
    fn name(&self) -> &'static str {
        "embedding_layer_norm"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        self.check(inputs)?;
        let e_trains = Self::trained(needs).next().is_some();
        saved.keep_if(e_trains, "ids", inputs[0]);
        // For their shapes alone. The tables are the model's own, so they cost nothing.
        Self::trained(needs).for_each(|(_, name, input)| saved.keep(name, inputs[input]));
        let (dtype, prompt, sequences) = (self.dtype, inputs.get(5).copied(), &*self.sequences);
        let mask = self.mask.as_ref();
        let rows = NormRows::Embeddings { dtype, ids: inputs[0], words: inputs[1], positions: inputs[2], prompt, sequences, mask };
        layer_norm_shared::forward(self.name(), &rows, [inputs[3], inputs[4]], self.eps, [e_trains, needs[3]], saved)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let e_trains = Self::trained(needs).next().is_some();
        let ids = saved.take_if(e_trains, "ids")?;
        let tables = Self::trained(needs).map(|(table, name, _)| Ok((table, saved.take(name)?))).collect::<Result<Vec<_>>>()?;
        let dy = match &self.mask {
            Some(mask) => drop_rows(mask, &self.sequences, &dy)?,
            None => dy,
        };
        let needs_of = ([e_trains, false], [needs[3], needs[4]]);
        let ([de, _], [dgamma, dbeta]) = layer_norm_shared::backward(self.name(), saved, dy, None, None, needs_of)?;
        let mut grads = vec![None, None, None, dgamma, dbeta];
        grads.resize_with(needs.len(), || None);
        if let (Some(de), Some(ids)) = (de, ids) {
            for (table, values) in tables {
                grads[TABLES[table].1] = Some(embedding::table_gradient(&de, self.picks(table, ids.host()?), values.shape())?);
            }
        }
        Ok(grads)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::*;
    use crate::autograd::Parameter;
    use crate::autograd::gradcheck::random_tensor;
    use crate::tensor::philox::Stream;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_equals_its_parts(seed: u64) {
            let mut random = Stream::new(seed, "parts");
            let inputs = cases::embedding_layer_norm(&mut random).unwrap().inputs;
            let [v, d] = *inputs[1].dims() else { unreachable!() };
            let prompt = inputs.get(5).map_or(0, |p| p.shape().rows());
            // Two sequences where there are ids for two.
            let n = inputs[0].shape().len();
            let lengths = if n > 1 { vec![1, n - 1] } else { vec![n] };
            let sequences = Sequences::new(&lengths, vec![3; lengths.len()]).unwrap().lengthened(prompt);
            let positions = random_tensor(&mut random, &[n + prompt, d]).unwrap();
            let dy = random_tensor(&mut random, &[sequences.tokens(), d]).unwrap();
            let mask = (seed % 2 == 0).then_some(Mask { p: 0.3, seed, site: 2 });
            let op = EmbeddingLayerNorm { dtype: DType::F64, eps: 1e-12, sequences: Arc::new(sequences), prompt, mask };
            let ids = inputs[0].clone();
            let new = |t: &Tensor| Parameter::new("p", t.clone());
            let common = [new(&positions), new(&inputs[3]), new(&inputs[4])];

            // y, the gradients of words and prompt, and the others.
            let stacked = [&inputs[1]].into_iter().chain(inputs.get(5)).flat_map(|t| t.to_f64().unwrap()).collect::<Vec<_>>();
            let stacked = Parameter::new("words and prompt", Tensor::new(stacked, [v + prompt, d]).unwrap());
            let mut tape = Tape::new();
            let table = tape.parameter(&stacked);
            let [positions, gamma, beta] = [0, 1, 2].map(|i| tape.parameter(&common[i]));
            let y = op.composed(&mut tape, ids.host().unwrap(), [&table, &positions, &gamma, &beta]).unwrap();
            let grads = tape.vjp(&y, dy.clone()).unwrap();
            let mut parts = [y.value(), grads.get(&stacked).unwrap()].map(|t| t.to_f64().unwrap()).concat();
            common.iter().for_each(|p| parts.extend(grads.get(p).unwrap().to_f64().unwrap()));

            let tables: Vec<Parameter> = [&inputs[1]].into_iter().chain(inputs.get(5)).map(new).collect();
            let mut tape = Tape::new();
            let mut vars = vec![tape.constant(&ids), tape.parameter(&tables[0])];
            vars.extend(common.iter().map(|p| tape.parameter(p)));
            vars.extend(tables[1..].iter().map(|p| tape.parameter(p)));
            let y = tape.apply(op, &vars.iter().collect::<Vec<_>>()).unwrap();
            let grads = tape.vjp(&y, dy).unwrap();
            let mut fused = y.value().to_f64().unwrap();
            tables.iter().chain(&common).for_each(|p| fused.extend(grads.get(p).unwrap().to_f64().unwrap()));

            prop_assert_eq!(fused.len(), parts.len());
            for (a, b) in fused.iter().zip(parts) {
                prop_assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{} {}", a, b);
            }
        }
    }

    #[test]
    fn inputs_that_do_not_fit_are_named() {
        let op = |lengths: &[usize], prompt| {
            let sequences = Arc::new(Sequences::new(lengths, vec![0; lengths.len()]).unwrap());
            EmbeddingLayerNorm { dtype: DType::F64, eps: 0.1, sequences, prompt, mask: None }
        };
        let zeros = |dims: &[usize]| Tensor::zeros(DType::F64, dims);
        let (ids, words, places, d) = (Tensor::new(vec![0u32, 1], [2]).unwrap(), zeros(&[2, 3]), zeros(&[2, 3]), zeros(&[3]));
        let run = |op: EmbeddingLayerNorm, inputs: &[&Tensor]| op.forward(inputs, &vec![false; inputs.len()], &mut Saved::default());
        let said = |op, inputs: &[&Tensor]| run(op, inputs).unwrap_err().to_string();
        assert!(run(op(&[2], 0), &[&ids, &words, &places, &d, &d]).is_ok());
        assert!(said(op(&[3], 0), &[&ids, &words, &places, &d, &d]).contains("a position"));
        assert!(said(op(&[1], 0), &[&ids, &words, &places, &d, &d]).contains("an id for each row"));
        assert!(said(op(&[2], 1), &[&ids, &words, &places, &d, &d]).contains("takes ids"));
        assert!(said(op(&[2], 1), &[&ids, &words, &places, &d, &d, &zeros(&[1, 2])]).contains("a prompt [P, d]"));
        assert!(said(op(&[2], 0), &[&Tensor::new(vec![0u32, 2], [2]).unwrap(), &words, &places, &d, &d]).contains("index 2"));
    }
}
