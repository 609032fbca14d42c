//! DistilBERT for sequence classification. Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>. And its teacher BERT, Devlin et al. 2018,
//! <https://arxiv.org/abs/1810.04805>. Dropouts and heads are those of the reference implementation in transformers.

use super::{Architecture, Block, Config, LayerNorm, Linear, Pass, Wanted, Weight, site};
use crate::autograd::ops::EmbeddingLayerNorm;
use crate::autograd::{Tape, Var};
use crate::tensor::DType;
use crate::{AtLayer, Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// `h⁰ = drop(LN(words[id] + positions[row]))`, `hˡ⁺¹ = blockˡ(hˡ)`, `logits = classifier(drop(relu(pre_classifier(h[CLS]))))`.
///
/// BERT's h⁰ is `drop(LN(words[id] + types[s] + positions[row]))`. The token type s is 0, and 1 in the second text of a pair
/// (`token_types.rs`). Its head has tanh in place of relu, and there `pre_classifier` is called the pooler.
///
/// Letters: T tokens of B packed sequences, D width, V vocabulary, C classes. `h[CLS]` is the first row of each sequence.
///
/// With a prompt of P rows (a first reader may skip it), each sequence is P rows longer. The caller passes ids of its T tokens. Everywhere
/// inside of the model T stands for all rows, T + B·P of them, and `[CLS]` for the first row of the prompt.
pub struct DistilBert {
    /// Sizes and dropouts, from the checkpoint's `config.json`.
    pub config: Config,
    /// Type of the hidden states. The head computes in the accumulator's precision: f32 if this is bf16.
    pub dtype: DType,
    /// `[V, D]`.
    pub word_embeddings: Weight,
    /// `[M, D]`, for M positions (512 in DistilBERT).
    pub position_embeddings: Weight,
    /// BERT: `[S, D]`, for S token types.
    pub token_type_embeddings: Option<Weight>,
    /// After the embeddings.
    pub layer_norm: LayerNorm,
    /// The layers, first to last.
    pub blocks: Vec<Block>,
    /// `[D, D]`; BERT's pooler.
    pub pre_classifier: Linear,
    /// Whether `pre_classifier` is a part of the head, and so of an adapter. BERT's pooler is one only if the checkpoint lacks it.
    pub pre_classifier_in_head: bool,
    /// `[C, D]`.
    pub classifier: Linear,
    /// Trained rows `[P, D]` that stand before the embeddings of each sequence.
    pub prompt: Option<Weight>,
    /// The vector that all computed weights are functions of.
    pub shared: Option<Weight>,
}

impl DistilBert {
    /// Logits `[B, C]` of packed token ids `[T]`.
    ///
    /// # Errors
    /// If the ids do not fit the sequences, one is not in the vocabulary, or a sequence is longer than there are positions.
    pub fn forward<'m>(&'m self, tape: &mut Tape<'m>, ids: &[u32], pass: &Pass) -> Result<Var> {
        self.forward_observed(tape, ids, pass, &mut |_, _| {})
    }

    /// [`DistilBert::forward`], which shows the hidden states after the embeddings and after each layer: `[T, D]`, after the last layer
    /// `[B, D]`.
    ///
    /// # Errors
    /// As [`DistilBert::forward`].
    pub fn forward_observed<'m>(
        &'m self,
        tape: &mut Tape<'m>,
        ids: &[u32],
        pass: &Pass,
        observe: &mut dyn FnMut(&str, &Var),
    ) -> Result<Var> {
        let pass = self.prepare(tape, ids, pass)?;
        let h = self.embed(tape, ids, &pass).at(|| self.embeddings_name())?; // [T, D]
        observe("embeddings", &h);
        self.above_embeddings(tape, h, &pass, observe)
    }

    /// Logits `[B, C]` of h⁰ `[T, D]`. `pass` is one of [`DistilBert::inside`].
    pub(super) fn above_embeddings<'m>(
        &'m self,
        tape: &mut Tape<'m>,
        h: Var,
        pass: &Pass,
        observe: &mut dyn FnMut(&str, &Var),
    ) -> Result<Var> {
        let h = self.layers(tape, h, 0..self.blocks.len(), pass, observe)?; // [B, D], or [T, D] if there are no layers
        let cls = if self.blocks.is_empty() { tape.first_row(&h, &pass.sequences)? } else { h };
        self.head(tape, &cls, &pass.first_rows())
    }

    /// Hidden states `[T, D]` of all tokens: after the embeddings, and after each layer. The classifier needs less:
    /// [`DistilBert::forward`].
    ///
    /// # Errors
    /// As [`DistilBert::forward`].
    pub fn hidden_states<'m>(&'m self, tape: &mut Tape<'m>, ids: &[u32], pass: &Pass) -> Result<Vec<Var>> {
        let pass = self.prepare(tape, ids, pass)?;
        let mut h = self.embed(tape, ids, &pass)?;
        let mut states = vec![h.clone()];
        for block in &self.blocks {
            h = block.forward(tape, &pass, &h, Wanted::All)?;
            states.push(h.clone());
        }
        Ok(states)
    }

    /// The pass inside of the model: its sequences include the rows of a prompt, and it holds the shared vector. Without the two, as in
    /// LoRA, it is `pass`.
    pub(super) fn prepare<'m>(&'m self, tape: &mut Tape<'m>, ids: &[u32], pass: &Pass) -> Result<Pass> {
        if ids.len() != pass.sequences.tokens() {
            return Err(Error::shape("distilbert", "one id per packed token", &[&[ids.len()], &[pass.sequences.tokens()]]))
                .at(|| self.embeddings_name());
        }
        self.inside(tape, pass)
    }

    /// [`DistilBert::prepare`] without ids.
    pub(super) fn inside<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass) -> Result<Pass> {
        let mut inner = self.with_shared(tape, pass)?;
        if let Some(prompt) = &self.prompt {
            inner.sequences = Arc::new(pass.sequences.lengthened(prompt.shape().rows()));
        }
        Ok(inner)
    }

    /// The pass with the shared vector, which computed weights need.
    pub(super) fn with_shared<'m>(&'m self, tape: &mut Tape<'m>, pass: &Pass) -> Result<Pass> {
        let shared = self.shared.as_ref().map(|vector| vector.var(tape, pass)).transpose()?;
        Ok(Pass { shared, ..pass.clone() })
    }

    /// The name of the embeddings, for errors and the ledger.
    pub(crate) fn embeddings_name(&self) -> String {
        format!("{}.embeddings", self.config.architecture.encoder())
    }

    /// h⁰ `[T, D]`: [`EmbeddingLayerNorm`], which equals [`Embedding`](crate::autograd::ops::Embedding) of words and of positions, their
    /// sum, layer norm and dropout, one after another (its test `it_equals_its_parts`).
    pub(super) fn embed<'m>(&'m self, tape: &mut Tape<'m>, ids: &[u32], pass: &Pass) -> Result<Var> {
        tape.enter(&self.embeddings_name());
        let longest = (0..pass.sequences.count()).map(|b| pass.sequences.length(b)).max().unwrap_or(0);
        if longest > self.config.max_position_embeddings {
            let most = self.config.max_position_embeddings;
            return Err(Error::invalid(format!(
                "a sequence of {longest} tokens is longer than the model's {most} positions: lower the maximum length"
            )));
        }
        // `token_types.rs`: the tables of words, positions and token types, and the prompt, on the tape.
        let mut inputs = self.tables_of(tape, ids, pass, longest)?.to_vec();
        for weight in [&self.layer_norm.gamma, &self.layer_norm.beta] {
            inputs.push(weight.var(tape, pass)?);
        }
        inputs.extend(self.prompt_of(tape, pass)?);
        let prompt = self.prompt_rows();
        let mask = pass.mask(self.config.dropout, site::EMBEDDINGS);
        let op = EmbeddingLayerNorm { dtype: self.dtype, eps: self.layer_norm.eps, sequences: pass.sequences.clone(), prompt, mask };
        tape.apply(op, &inputs.iter().collect::<Vec<_>>())
    }

    /// Runs some layers on h `[T, D]`. The last layer of the model gives `[B, D]`: the classifier reads `[CLS]` only, so other rows are not
    /// computed.
    pub(super) fn layers<'m>(
        &'m self,
        tape: &mut Tape<'m>,
        mut h: Var,
        layers: Range<usize>,
        pass: &Pass,
        observe: &mut dyn FnMut(&str, &Var),
    ) -> Result<Var> {
        for block in &self.blocks[layers] {
            let name = || block.name.clone();
            tape.enter(&block.name);
            let wanted = if block.layer + 1 == self.blocks.len() { Wanted::FirstRows } else { Wanted::All };
            h = if pass.recompute {
                // A recomputed layer passes gradients on to its inputs only, so the shared vector must be one of them.
                let inputs: Vec<&Var> = [&h].into_iter().chain(&pass.shared).collect();
                let outer = pass.clone();
                tape.checkpoint(&inputs, move |tape, inputs| {
                    let inner = Pass { shared: inputs.get(1).cloned(), ..outer.clone() };
                    block.forward(tape, &inner, &inputs[0], wanted)
                })
            } else {
                block.forward(tape, pass, &h, wanted)
            }
            .at(name)?;
            observe(&block.name, &h);
        }
        Ok(h)
    }

    /// Logits `[B, C]` of the `[CLS]` rows `[B, D]`.
    pub(super) fn head<'m>(&'m self, tape: &mut Tape<'m>, cls: &Var, pass: &Pass) -> Result<Var> {
        tape.enter(&self.pre_classifier.name);
        let cls = tape.cast(cls, self.dtype.accum())?; // to f32 if the hidden states are bf16
        let hidden = self.pre_classifier.forward(tape, pass, &cls)?; // [B, D]
        let hidden = match self.config.architecture {
            Architecture::DistilBert => tape.relu(&hidden)?,
            Architecture::Bert => tape.tanh(&hidden)?,
        };
        let hidden = tape.dropout(&hidden, pass.mask(self.config.seq_classif_dropout, site::CLASSIFIER_INPUT), &pass.sequences)?;
        self.classifier.forward(tape, pass, &hidden)
    }

    /// P, the rows of the prompt; 0 without one.
    pub fn prompt_rows(&self) -> usize {
        self.prompt.as_ref().map_or(0, |p| p.shape().rows())
    }

    /// The most tokens of a text, `[CLS]` and `[SEP]` included: all positions but those of the prompt.
    pub fn longest_text(&self) -> usize {
        self.config.max_position_embeddings - self.prompt_rows()
    }
}

#[cfg(test)]
mod tests {
    use super::super::LowRank;
    use super::*;
    use crate::tensor::Tensor;
    use crate::tensor::philox::Stream;

    /// Logits and all gradients, with the last layer computed for all tokens or for `[CLS]` alone.
    fn run(model: &DistilBert, ids: &[u32], pass: &Pass, labels: &[u32], whole: bool) -> Vec<f64> {
        let mut tape = Tape::new();
        let logits = if whole {
            let states = model.hidden_states(&mut tape, ids, pass).unwrap();
            let cls = tape.first_row(states.last().unwrap(), &pass.sequences).unwrap();
            model.head(&mut tape, &cls, &pass.first_rows()).unwrap()
        } else {
            model.forward(&mut tape, ids, pass).unwrap()
        };
        let loss = tape.cross_entropy(&logits, labels, labels.len()).unwrap();
        let mut all = logits.value().to_f64().unwrap();
        let grads = tape.backward(&loss).unwrap();
        for p in model.parameters() {
            all.extend(grads.get(p).unwrap().to_f64().unwrap());
        }
        all
    }

    #[test]
    fn cls_alone_is_equal_up_to_rounding_and_layers_twice_are_equal() {
        let mut config = Config::distilbert_base();
        (config.dim, config.hidden_dim, config.n_heads, config.n_layers, config.vocab_size) = (24, 40, 3, 3, 50);
        let mut model = DistilBert::random(&config, 3, DType::F64, 1).unwrap();
        let mut random = Stream::new(3, "terms");
        let mut draw = |name: &str, dims: [usize; 2]| {
            let values = (0..dims[0] * dims[1]).map(|_| 0.3 * random.normal()).collect();
            Weight::trained(name, Tensor::from_f64(values, DType::F64, dims).unwrap())
        };
        for linear in model.linears_mut() {
            let (output, input) = linear.dims();
            linear.terms.push(LowRank { a: draw("a", [2, input]), b: draw("b", [output, 2]), scale: 2.0, dropout: 0.1 });
        }
        model.classifier.weight.train().unwrap();
        let lengths = [5, 1, 9, 2];
        let sequences = Arc::new(crate::tensor::Sequences::new(&lengths, vec![7, 8, 9, 3]).unwrap());
        let ids: Vec<u32> = (0..17).map(|i| i * 7 % 50).collect();
        for dropout in [None, Some(5)] {
            let pass = Pass { dropout_seed: dropout, ..Pass::evaluation(sequences.clone()) };
            let [pruned, whole] = [false, true].map(|whole| run(&model, &ids, &pass, &[0, 1, 2, 1], whole));
            let scale = whole.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
            assert_eq!(pruned.len(), whole.len());
            for (a, b) in pruned.iter().zip(&whole) {
                assert!((a - b).abs() <= 1e-12 * scale, "{a} {b}");
            }
            let recomputed = run(&model, &ids, &Pass { recompute: true, ..pass }, &[0, 1, 2, 1], false);
            assert_eq!(recomputed, pruned, "computed again, a layer must be the same bit for bit");
        }
        for recompute in [false, true] {
            let pass = Pass { recompute, ..Pass::evaluation(sequences.clone()) };
            let [(recorded, with), (inferred, without)] = [Tape::new(), Tape::inference()].map(|mut tape| {
                let logits = model.forward(&mut tape, &ids, &pass).unwrap();
                (logits.value().to_f64().unwrap(), tape.len())
            });
            assert_eq!(recorded, inferred);
            assert!(with > 0 && without == 0, "inference records nothing");
        }
    }
}
