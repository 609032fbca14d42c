//! The embeddings of packed tokens in one pass: a row of each of two tables, and layer normalisation. Devlin et al. 2018, BERT,
//! <https://arxiv.org/abs/1810.04805>, figure 2, without segments; the prompt: Lester et al. 2021, <https://arxiv.org/abs/2104.08691>.

use super::dropout::random_sequences;
use super::{embedding, layer_norm};
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::gemm::Mat;
use crate::tensor::{DType, Scalar, Sequences, Shape, Tensor};
use crate::{Error, Result, dispatch};
use std::rc::Rc;
use std::sync::Arc;

/// y = LN(e) γ + β with `e[t] = words[ids[t]] + positions[p]`, p the place of row t in its sequence. Equal to [`super::Embedding`] twice,
/// [`super::Add`] and [`super::LayerNorm`] one after another, without their passes over memory and the roundings between them.
///
/// With a prompt, its P rows come before the words of each sequence. With de the gradient of LN's input, a table's is Σ `de[t]` over the rows that took
/// the same row of it.
///
/// Inputs, in order: ids u32 `[T − B·P]`, words `[V, d]`, positions `[M, d]`, γ and β `[d]`, and the prompt `[P, d]` if P > 0; y `[T, d]`.
pub struct EmbeddingLayerNorm {
    /// Type of y. The tables keep their own types: see [`super::Embedding`].
    pub dtype: DType,
    /// Added to the variance.
    pub eps: f64,
    /// How the rows of y lie.
    pub sequences: Arc<Sequences>,
    /// P.
    pub prompt: usize,
}

/// What a row is the sum of, beside a row of the positions.
enum RowSource {
    Prompt(usize),
    Word(u32),
}

/// Where the tables are among the inputs.
const TABLES: [(usize, &str); 3] = [(1, "words"), (2, "positions"), (5, "prompt")];

impl EmbeddingLayerNorm {
    /// The ids, if all inputs fit.
    fn check<'a>(&self, inputs: &[&'a Tensor]) -> Result<&'a [u32]> {
        if inputs.len() != 5 + usize::from(self.prompt > 0) {
            return Err(Error::invalid("embedding_layer_norm: takes ids, words, positions, gamma and beta, and a prompt if it has rows"));
        }
        let (ids, words, positions) = (inputs[0], inputs[1], inputs[2]);
        let longest = (0..self.sequences.count()).map(|b| self.sequences.length(b)).max().unwrap_or(0);
        let fits = |t: &Tensor| t.dims().len() == 2 && t.shape().cols() == words.shape().cols();
        if !fits(positions) || longest > positions.shape().rows() {
            return Err(Error::shape(
                "embedding_layer_norm",
                "words [V, d] and a position [d] for each place",
                &[words.shape(), positions.shape()],
            ));
        }
        if let Some(prompt) = inputs.get(5).filter(|p| !fits(p) || p.shape().rows() != self.prompt) {
            return Err(Error::shape("embedding_layer_norm", "words [V, d] and a prompt [P, d]", &[words.shape(), prompt.shape()]));
        }
        let tokens = self.sequences.tokens();
        if ids.shape().len() + self.sequences.count() * self.prompt != tokens {
            return Err(Error::shape("embedding_layer_norm", "an id for each row without a prompt", &[ids.shape(), &[tokens].into()]));
        }
        embedding::check(words, ids)
    }

    /// The place of a row in its sequence, and what it takes beside the position.
    fn source(&self, row: usize, ids: &[u32]) -> (usize, RowSource) {
        let (b, place) = self.sequences.locate(row);
        let source = if place < self.prompt { RowSource::Prompt(place) } else { RowSource::Word(ids[row - (b + 1) * self.prompt]) };
        (place, source)
    }

    /// Whether a gradient must reach e.
    fn trains(needs: &[bool]) -> bool {
        TABLES.iter().any(|&(i, _)| needs.get(i) == Some(&true))
    }

    /// Keeps the ids, and the tables for their shapes alone: they are the model's own.
    fn keep(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) {
        saved.keep_if(EmbeddingLayerNorm::trains(needs), "ids", inputs[0]);
        for (i, name) in TABLES.into_iter().filter(|(i, _)| needs.get(*i) == Some(&true)) {
            saved.keep(name, inputs[i]);
        }
    }

    /// The gradients of all inputs: `norm` gives those of e, γ and β, and `table` a table's, from the rows of e that took a row of it.
    fn gradients(
        &self,
        mut saved: Saved,
        needs: &[bool],
        norm: impl FnOnce(Saved, [bool; 3]) -> Result<[Option<Tensor>; 3]>,
        table: impl Fn(&Tensor, Vec<(u32, u32)>, &Shape) -> Result<Tensor>,
    ) -> Result<Vec<Option<Tensor>>> {
        let trains = EmbeddingLayerNorm::trains(needs);
        let ids = trains.then(|| saved.take("ids")).transpose()?;
        let shapes = TABLES.map(|(i, name)| saved.take(name).ok().map(|t| (i, t.shape().clone())));
        let [de, dgamma, dbeta] = norm(saved, [trains, needs[3], needs[4]])?;
        let mut grads = vec![None, None, None, dgamma, dbeta];
        grads.resize_with(needs.len(), || None);
        let (Some(de), Some(ids)) = (de, ids) else { return Ok(grads) };
        let ids = ids.host::<u32>()?;
        for (i, shape) in shapes.into_iter().flatten() {
            let picks = (0..self.sequences.tokens()).filter_map(|row| {
                let picked = match (i, self.source(row, ids)) {
                    (1, (_, RowSource::Word(id))) => id,
                    (2, (place, _)) | (5, (_, RowSource::Prompt(place))) => place as u32,
                    _ => return None,
                };
                Some((row as u32, picked))
            });
            grads[i] = Some(table(&de, picks.collect(), &shape)?);
        }
        Ok(grads)
    }
}

impl Op for EmbeddingLayerNorm {
    fn name(&self) -> &'static str {
        "embedding_layer_norm"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let ids = self.check(inputs)?;
        self.keep(inputs, needs, saved);
        let shape = Shape::from([self.sequences.tokens(), inputs[1].shape().cols()]);
        let d = shape.cols().max(1);
        dispatch!("embedding_layer_norm", self.dtype, T => {
            let [words, positions] = [Mat::<<T as Scalar>::Acc>::of(inputs[1])?, Mat::of(inputs[2])?];
            let prompt = inputs.get(5).map(|prompt| Mat::of(prompt)).transpose()?.unwrap_or(words);
            let trains = [EmbeddingLayerNorm::trains(needs), needs[3]];
            layer_norm::forward::<T>("embedding_layer_norm", &shape, [inputs[3], inputs[4]], self.eps, trains, saved, |first, sums| {
                for (i, e) in sums.chunks_exact_mut(d).enumerate() {
                    let (place, source) = self.source(first + i, ids);
                    let own = match source {
                        RowSource::Prompt(row) => prompt.rows_from(row, 1),
                        RowSource::Word(id) => words.rows_from(id as usize, 1),
                    };
                    let (own, position) = (own.to_accum(), positions.rows_from(place, 1).to_accum());
                    e.iter_mut().zip(&*own).zip(&*position).for_each(|((e, &own), &position)| *e = own + position);
                }
            })
        })
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let norm = |saved, needs| dispatch!("embedding_layer_norm", self.dtype, T => layer_norm::backward::<T>(saved, dy, needs));
        self.gradients(saved, needs, norm, |de, picks, shape| embedding::table_gradient(de, &picks, shape))
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        self.check(inputs)?;
        self.keep(inputs, needs, saved);
        let trains = [EmbeddingLayerNorm::trains(needs), needs[3]];
        let rows = launch::NormRows::Embeddings {
            dtype: self.dtype,
            ids: inputs[0],
            words: inputs[1],
            positions: inputs[2],
            prompt: inputs.get(5).copied(),
            sequences: &self.sequences,
        };
        layer_norm::forward_on(device, &rows, [inputs[3], inputs[4]], self.eps, trains, saved)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let norm = |saved, needs| launch::layer_norm_backward(device, saved, &dy, needs);
        self.gradients(saved, needs, norm, |de, picks, shape| launch::table_gradient(device, de, picks, shape))
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "EmbeddingLayerNorm",
        tolerance: 1e-6,
        case: |random| {
            let text = random_sequences(random, 4)?;
            let (v, d, prompt) = (random_size(random, 6), 2 + random.below(9), random.below(3));
            let ids: Vec<u32> = (0..text.tokens()).map(|_| random.below(v) as u32).collect();
            let ids = Tensor::new(ids, [text.tokens()])?;
            let mut inputs = vec![ids, random_tensor(random, &[v, d])?, random_tensor(random, &[4 + prompt, d])?];
            inputs.extend([random_tensor(random, &[d])?, random_tensor(random, &[d])?]);
            if prompt > 0 {
                inputs.push(random_tensor(random, &[prompt, d])?);
            }
            let sequences = Arc::new(text.lengthened(prompt));
            Ok(Case { op: Rc::new(EmbeddingLayerNorm { dtype: DType::F64, eps: 0.1, sequences, prompt }), inputs })
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::{Parameter, Tape};
    use proptest::prelude::*;

    proptest! {
        /// The prompt as further rows of the words, with ids of their own.
        #[test]
        fn it_equals_its_parts(seed: u64) {
            let mut random = crate::tensor::philox::Stream::new(seed, "parts");
            let case = (suite().case)(&mut random).unwrap();
            let inputs = &case.inputs;
            let text = inputs[0].shape().len();
            let [v, d] = *inputs[1].dims() else { unreachable!() };
            let prompt = inputs.get(5).map_or(0, |p| p.shape().rows());
            // One sequence: its rows are the prompt's, then the words'.
            let sequences = Arc::new(Sequences::new(&[text + prompt], vec![3]).unwrap());
            let positions = random_tensor(&mut random, &[text + prompt, d]).unwrap();
            let inputs = [&inputs[..2], &[positions], &inputs[3..]].concat();
            let dy = random_tensor(&mut random, &[text + prompt, d]).unwrap();

            let fused = {
                let p: Vec<Parameter> = inputs.iter().map(|t| Parameter::new("p", t.clone())).collect();
                let mut tape = Tape::new();
                let vars: Vec<_> = p.iter().enumerate().map(|(i, p)| if i == 0 { tape.constant(p.value()) } else { tape.parameter(p) }).collect();
                let op = EmbeddingLayerNorm { dtype: DType::F64, eps: 1e-12, sequences, prompt };
                let y = tape.apply(op, &vars.iter().collect::<Vec<_>>()).unwrap();
                let grads = tape.vjp(&y, dy.clone()).unwrap();
                let mut all = y.value().to_f64().unwrap();
                p[1..].iter().for_each(|p| all.extend(grads.get(p).unwrap().to_f64().unwrap()));
                all
            };
            let parts = {
                let stacked = inputs.get(5).into_iter().fold(inputs[1].to_f64().unwrap(), |all, p| [all, p.to_f64().unwrap()].concat());
                let stacked = Parameter::new("stacked", Tensor::new(stacked, [v + prompt, d]).unwrap());
                let p: Vec<Parameter> = inputs[2..5].iter().map(|t| Parameter::new("p", t.clone())).collect();
                let ids: Vec<u32> = (v..v + prompt).map(|i| i as u32).chain(inputs[0].host::<u32>().unwrap().iter().copied()).collect();
                let n = ids.len();
                let mut tape = Tape::new();
                let (table, places) = (tape.parameter(&stacked), tape.parameter(&p[0]));
                let words = tape.embedding(&table, &Tensor::new(ids, [n]).unwrap(), DType::F64).unwrap();
                let places = tape.embedding(&places, &Tensor::new((0..n as u32).collect::<Vec<_>>(), [n]).unwrap(), DType::F64).unwrap();
                let sum = tape.add(&words, &places).unwrap();
                let (gamma, beta) = (tape.parameter(&p[1]), tape.parameter(&p[2]));
                let y = tape.layer_norm(&sum, &gamma, &beta, 1e-12).unwrap();
                let grads = tape.vjp(&y, dy).unwrap();
                let mut all = y.value().to_f64().unwrap();
                let tables = grads.get(&stacked).unwrap().to_f64().unwrap();
                all.extend(&tables[..v * d]);
                p.iter().for_each(|p| all.extend(grads.get(p).unwrap().to_f64().unwrap()));
                all.extend(&tables[v * d..]);
                all
            };
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
            EmbeddingLayerNorm { dtype: DType::F64, eps: 0.1, sequences, prompt }
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
