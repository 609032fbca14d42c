//! DistilBERT for sequence classification. Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>; the dropouts and the head are those of the
//! reference implementation in transformers.

use super::{Block, Config, LayerNorm, Linear, Pass, Wanted, Weight, WeightMut, WeightRef, layer_norm, site};
use crate::autograd::ops::EmbeddingLayerNorm;
use crate::autograd::{Parameter, Tape, Var};
use crate::tensor::{DType, Sequences, Tensor};
use crate::{AtLayer, Error, Result};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// `logits = classifier(drop(relu(pre_classifier(h[CLS]))))`, h the last of the blocks' outputs.
pub struct DistilBert {
    /// Sizes and dropouts.
    pub config: Config,
    /// Type of the hidden states. The head computes in the type of its sums.
    pub dtype: DType,
    /// `[V, D]`.
    pub word_embeddings: Weight,
    /// `[512, D]`.
    pub position_embeddings: Weight,
    /// After the embeddings.
    pub layer_norm: LayerNorm,
    /// The layers.
    pub blocks: Vec<Block>,
    /// `[D, D]`.
    pub pre_classifier: Linear,
    /// `[C, D]`.
    pub classifier: Linear,
    /// Rows `[P, D]` before each sequence's embeddings.
    pub prompt: Option<Weight>,
    /// What all computed weights are functions of.
    pub shared: Option<Weight>,
}

impl DistilBert {
    /// Logits `[B, C]` of packed ids `[T]`.
    ///
    /// # Errors
    /// If the ids do not fit the packing, one is not in the vocabulary, or a sequence is longer than there are positions.
    pub fn forward<'m>(&'m self, tape: &mut Tape<'m>, ids: &[u32], pass: &Pass) -> Result<Var> {
        self.forward_observed(tape, ids, pass, &mut |_, _| {})
    }

    /// [`DistilBert::forward`], showing the hidden states after the embeddings and after each layer: `[T, D]`, after the last layer `[B, D]`.
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
        self.put_shared(tape);
        let whole = self.with_prompt(pass);
        let mut h = self.embed(tape, ids, pass, &whole).at(|| "distilbert.embeddings".into())?;
        observe("embeddings", &h);
        h = self.layers(tape, h, 0..self.blocks.len(), &whole, observe)?;
        let cls = if self.blocks.is_empty() { tape.first_row(&h, &whole.sequences)? } else { h };
        self.head(tape, &cls, &whole.first_rows())
    }

    /// Hidden states `[T, D]` of all tokens: after the embeddings, and after each layer. The classifier needs less: [`DistilBert::forward`].
    ///
    /// # Errors
    /// As [`DistilBert::forward`].
    pub fn hidden_states<'m>(&'m self, tape: &mut Tape<'m>, ids: &[u32], pass: &Pass) -> Result<Vec<Var>> {
        self.put_shared(tape);
        let whole = self.with_prompt(pass);
        let mut states = vec![self.embed(tape, ids, pass, &whole)?];
        for block in &self.blocks {
            states.push(block.forward(tape, &whole, &states[block.layer], Wanted::All)?);
        }
        Ok(states)
    }

    /// Number of the lowest layers that nothing is trained in or below: their output is the same in every epoch, dropout aside.
    pub fn frozen_layers(&self) -> usize {
        let embeddings = [&self.word_embeddings, &self.position_embeddings, &self.layer_norm.gamma, &self.layer_norm.beta];
        if self.prompt.is_some() || embeddings.iter().any(|w| w.trains()) {
            return 0;
        }
        let trains = |block: &Block| {
            let mut any = false;
            block.visit(&mut |part| any |= part.weight().trains());
            any
        };
        self.blocks.iter().take_while(|block| !trains(block)).count()
    }

    /// Output of the [`DistilBert::frozen_layers`] for packed ids, without dropout: `[T, D]`; if all layers are frozen, of the first rows
    /// alone: `[B, D]`.
    ///
    /// # Errors
    /// As [`DistilBert::forward`].
    pub fn trunk(&self, ids: &[u32], sequences: &Arc<Sequences>) -> Result<Tensor> {
        let (mut tape, pass) = (Tape::inference(), Pass::evaluation(sequences.clone()));
        let h = self.embed(&mut tape, ids, &pass, &pass).at(|| "distilbert.embeddings".into())?;
        Ok(self.layers(&mut tape, h, 0..self.frozen_layers(), &pass, &mut |_, _| {})?.value().clone())
    }

    /// Logits `[B, C]` of the output of the trunk.
    ///
    /// # Errors
    /// If `trunk` is not the output of [`DistilBert::trunk`] for sequences packed so.
    pub fn forward_above<'m>(&'m self, tape: &mut Tape<'m>, trunk: &Tensor, pass: &Pass) -> Result<Var> {
        self.put_shared(tape);
        let layers = self.frozen_layers()..self.blocks.len();
        let h = tape.constant(&trunk.to_device_of(&self.layer_norm.gamma.value()?)?);
        let cls = if layers.is_empty() { h } else { self.layers(tape, h, layers, pass, &mut |_, _| {})? };
        self.head(tape, &cls, &pass.first_rows())
    }

    fn put_shared<'m>(&'m self, tape: &mut Tape<'m>) {
        self.shared.iter().flat_map(Weight::parameters).for_each(|p| tape.share(p));
    }

    /// The pass over what embeddings and prompt are together.
    fn with_prompt(&self, pass: &Pass) -> Pass {
        match self.prompt.as_ref().map_or(0, |p| p.shape().rows()) {
            0 => pass.clone(),
            n => Pass { sequences: Arc::new(pass.sequences.lengthened(n)), ..pass.clone() },
        }
    }

    fn layers<'m>(
        &'m self,
        tape: &mut Tape<'m>,
        mut h: Var,
        layers: Range<usize>,
        pass: &Pass,
        observe: &mut dyn FnMut(&str, &Var),
    ) -> Result<Var> {
        for block in &self.blocks[layers] {
            let name = || format!("distilbert.transformer.layer.{}", block.layer);
            tape.enter(&name());
            // The classifier reads `[CLS]` alone: of the last layer, the rest is not computed.
            let wanted = if block.layer + 1 == self.blocks.len() { Wanted::FirstRows } else { Wanted::All };
            let layer = {
                let pass = pass.clone();
                move |tape: &mut Tape<'m>, h: &[Var]| block.forward(tape, &pass, &h[0], wanted)
            };
            h = if pass.recompute { tape.checkpoint(&[&h], layer) } else { layer(tape, std::slice::from_ref(&h)) }.at(name)?;
            observe(&name(), &h);
        }
        Ok(h)
    }

    fn embed<'m>(&'m self, tape: &mut Tape<'m>, ids: &[u32], pass: &Pass, whole: &Pass) -> Result<Var> {
        tape.enter("distilbert.embeddings");
        if ids.len() != pass.sequences.tokens() {
            return Err(Error::shape("distilbert", "one id per packed token", &[&[ids.len()], &[pass.sequences.tokens()]]));
        }
        let longest = (0..whole.sequences.count()).map(|b| whole.sequences.length(b)).max().unwrap_or(0);
        if longest > self.config.max_position_embeddings {
            let most = self.config.max_position_embeddings;
            return Err(Error::invalid(format!(
                "a sequence of {longest} tokens is longer than the model's {most} positions: lower the maximum length"
            )));
        }
        let mut inputs = vec![tape.constant(&Tensor::new(ids.to_vec(), [ids.len()])?)];
        let weights = [&self.word_embeddings, &self.position_embeddings, &self.layer_norm.gamma, &self.layer_norm.beta];
        for weight in weights.into_iter().chain(&self.prompt) {
            inputs.push(weight.var(tape)?);
        }
        let prompt = self.prompt.as_ref().map_or(0, |p| p.shape().rows());
        let op = EmbeddingLayerNorm { dtype: self.dtype, eps: layer_norm::EPS, sequences: whole.sequences.clone(), prompt };
        let e = tape.apply(op, &inputs.iter().collect::<Vec<_>>())?;
        tape.dropout(&e, whole.mask(self.config.dropout, site::EMBEDDINGS), &whole.sequences)
    }

    /// Logits of the `[CLS]` rows `[B, D]`.
    fn head<'m>(&'m self, tape: &mut Tape<'m>, cls: &Var, pass: &Pass) -> Result<Var> {
        tape.enter("pre_classifier");
        let cls = tape.cast(cls, self.dtype.accum())?;
        let hidden = self.pre_classifier.forward(tape, pass, &cls)?;
        let hidden = tape.relu(&hidden)?;
        let hidden = tape.dropout(&hidden, pass.mask(self.config.seq_classif_dropout, site::CLASSIFIER_INPUT), &pass.sequences)?;
        self.classifier.forward(tape, pass, &hidden)
    }

    /// Tokens that a text can have, `[CLS]` and `[SEP]` included: the positions that a prompt leaves.
    pub fn longest_text(&self) -> usize {
        self.config.max_position_embeddings - self.prompt.as_ref().map_or(0, |p| p.shape().rows())
    }

    /// Every linear of the model.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let blocks = self.blocks.iter_mut().flat_map(Block::linears_mut);
        blocks.chain([&mut self.pre_classifier, &mut self.classifier]).collect()
    }

    /// Walks over all weights and extra parameters.
    pub fn visit<'a>(&'a self, f: &mut dyn FnMut(WeightRef<'a>)) {
        [&self.word_embeddings, &self.position_embeddings].into_iter().for_each(|w| f(WeightRef::Base(w)));
        self.layer_norm.visit(f);
        self.blocks.iter().for_each(|b| b.visit(f));
        [&self.pre_classifier, &self.classifier].into_iter().for_each(|l| l.visit(f));
        self.prompt.iter().chain(&self.shared).for_each(|w| f(WeightRef::Extra(w)));
    }

    /// [`DistilBert::visit`], to change what it comes by.
    pub fn visit_mut<'a>(&'a mut self, f: &mut dyn FnMut(WeightMut<'a>)) {
        [&mut self.word_embeddings, &mut self.position_embeddings].into_iter().for_each(|w| f(WeightMut::Base(w)));
        self.layer_norm.visit_mut(f);
        self.blocks.iter_mut().for_each(|b| b.visit_mut(f));
        [&mut self.pre_classifier, &mut self.classifier].into_iter().for_each(|l| l.visit_mut(f));
        self.prompt.iter_mut().chain(&mut self.shared).for_each(|w| f(WeightMut::Extra(w)));
    }

    /// The weights of the checkpoint, adapters aside.
    pub fn weights(&self) -> Vec<&Weight> {
        let mut all = Vec::new();
        self.visit(&mut |part| {
            if let WeightRef::Base(w) = part {
                all.push(w)
            }
        });
        all
    }

    /// The storages of frozen weights and parameters, by [`Tensor::storage_id`].
    pub fn storages(&self) -> BTreeSet<usize> {
        let frozen = |w: &Weight| if let Weight::Frozen { value, .. } = w { Some(value.storage_id()) } else { None };
        self.weights().into_iter().filter_map(frozen).chain(self.parameters().iter().map(|p| p.value().storage_id())).collect()
    }

    /// What trains.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let mut all = Vec::new();
        self.visit(&mut |part| all.extend(part.weight().parameters()));
        all
    }

    /// What trains, to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        let mut all = Vec::new();
        self.visit_mut(&mut |part| all.extend(part.weight().parameters_mut()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::LowRank;
    use super::*;
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
    fn computing_cls_alone_or_layers_twice_changes_nothing() {
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
            let pass = Pass { sequences: sequences.clone(), dropout, recompute: false, rank: None };
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
