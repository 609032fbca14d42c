//! Lists of what a model consists of: its linears, its weights, and those that train.

use super::{Block, DistilBert, LayerNorm, Linear, Weight};
use crate::autograd::Parameter;
use std::collections::BTreeSet;

/// A weight of a model, and where it comes from.
pub enum Origin<W> {
    /// From the checkpoint.
    Base(W),
    /// Added by a method: a low-rank factor, a prompt, a bottleneck.
    Extra(W),
}

/// A weight of a model.
pub type WeightRef<'a> = Origin<&'a Weight>;
/// A weight of a model, to be changed.
pub type WeightMut<'a> = Origin<&'a mut Weight>;

impl<W> Origin<W> {
    /// The weight.
    pub fn weight(self) -> W {
        match self {
            Origin::Base(w) | Origin::Extra(w) => w,
        }
    }
}

impl LayerNorm {
    /// Its weights.
    pub fn parts(&self) -> Vec<WeightRef<'_>> {
        [&self.gamma, &self.beta].map(WeightRef::Base).into()
    }

    /// Its weights, to be changed.
    pub fn parts_mut(&mut self) -> Vec<WeightMut<'_>> {
        [&mut self.gamma, &mut self.beta].map(WeightMut::Base).into()
    }
}

impl Linear {
    /// Its weights.
    pub fn parts(&self) -> Vec<WeightRef<'_>> {
        let base = [&self.weight].into_iter().chain(&self.bias).map(WeightRef::Base);
        let factors = self.terms.iter().flat_map(|t| [&t.a, &t.b]);
        let own = self.variant.iter().flat_map(|v| v.weights());
        base.chain(factors.chain(own).map(WeightRef::Extra)).collect()
    }

    /// Its weights, to be changed.
    pub fn parts_mut(&mut self) -> Vec<WeightMut<'_>> {
        let base = [&mut self.weight].into_iter().chain(&mut self.bias).map(WeightMut::Base);
        let factors = self.terms.iter_mut().flat_map(|t| [&mut t.a, &mut t.b]);
        let own = self.variant.iter_mut().flat_map(|v| v.weights_mut());
        base.chain(factors.chain(own).map(WeightMut::Extra)).collect()
    }
}

impl Block {
    /// The six linears: q, k, v, out, lin1, lin2.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        self.qkv.iter_mut().chain([&mut self.out, &mut self.lin1, &mut self.lin2]).collect()
    }

    /// Its weights.
    pub fn parts(&self) -> Vec<WeightRef<'_>> {
        let mut all: Vec<_> = self.qkv.iter().chain([&self.out]).flat_map(Linear::parts).collect();
        all.extend(self.sa_layer_norm.parts());
        all.extend([&self.lin1, &self.lin2].into_iter().flat_map(Linear::parts));
        all.extend(self.output_layer_norm.parts());
        all.extend(self.prefix.iter().flatten().map(WeightRef::Extra));
        all.extend(self.hooks.iter().flatten().flat_map(|h| h.weights()).map(WeightRef::Extra));
        all
    }

    /// Its weights, to be changed.
    pub fn parts_mut(&mut self) -> Vec<WeightMut<'_>> {
        let mut all: Vec<_> = self.qkv.iter_mut().chain([&mut self.out]).flat_map(Linear::parts_mut).collect();
        all.extend(self.sa_layer_norm.parts_mut());
        all.extend([&mut self.lin1, &mut self.lin2].into_iter().flat_map(Linear::parts_mut));
        all.extend(self.output_layer_norm.parts_mut());
        all.extend(self.prefix.iter_mut().flatten().map(WeightMut::Extra));
        all.extend(self.hooks.iter_mut().flatten().flat_map(|h| h.weights_mut()).map(WeightMut::Extra));
        all
    }
}

impl DistilBert {
    /// Every linear of the model.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let blocks = self.blocks.iter_mut().flat_map(Block::linears_mut);
        blocks.chain([&mut self.pre_classifier, &mut self.classifier]).collect()
    }

    /// The linears that belong to the task and not to the checkpoint: every adapter has them.
    pub fn head_linears(&self) -> Vec<&Linear> {
        let pre_classifier = self.pre_classifier_in_head.then_some(&self.pre_classifier);
        pre_classifier.into_iter().chain([&self.classifier]).collect()
    }

    /// [`DistilBert::head_linears`], to be changed.
    pub fn head_linears_mut(&mut self) -> Vec<&mut Linear> {
        let pre_classifier = self.pre_classifier_in_head.then_some(&mut self.pre_classifier);
        pre_classifier.into_iter().chain([&mut self.classifier]).collect()
    }

    /// The tables of embeddings: of words, of positions, and of BERT's token types.
    pub fn tables(&self) -> impl Iterator<Item = &Weight> {
        [&self.word_embeddings, &self.position_embeddings].into_iter().chain(&self.token_type_embeddings)
    }

    /// [`DistilBert::tables`], to be changed.
    pub fn tables_mut(&mut self) -> impl Iterator<Item = &mut Weight> {
        [&mut self.word_embeddings, &mut self.position_embeddings].into_iter().chain(&mut self.token_type_embeddings)
    }

    /// Every weight, and whether it is from the checkpoint.
    pub fn parts(&self) -> Vec<WeightRef<'_>> {
        let mut all: Vec<_> = self.tables().map(WeightRef::Base).collect();
        all.extend(self.layer_norm.parts());
        all.extend(self.blocks.iter().flat_map(Block::parts));
        all.extend([&self.pre_classifier, &self.classifier].into_iter().flat_map(Linear::parts));
        all.extend(self.prompt.iter().chain(&self.shared).map(WeightRef::Extra));
        all
    }

    /// [`DistilBert::parts`], to be changed.
    pub fn parts_mut(&mut self) -> Vec<WeightMut<'_>> {
        let tables = [&mut self.word_embeddings, &mut self.position_embeddings].into_iter().chain(&mut self.token_type_embeddings);
        let mut all: Vec<_> = tables.map(WeightMut::Base).collect();
        all.extend(self.layer_norm.parts_mut());
        all.extend(self.blocks.iter_mut().flat_map(Block::parts_mut));
        all.extend([&mut self.pre_classifier, &mut self.classifier].into_iter().flat_map(Linear::parts_mut));
        all.extend(self.prompt.iter_mut().chain(&mut self.shared).map(WeightMut::Extra));
        all
    }

    /// The weights of the checkpoint, without those that a method added.
    pub fn weights(&self) -> Vec<&Weight> {
        self.parts().into_iter().filter_map(|part| if let WeightRef::Base(w) = part { Some(w) } else { None }).collect()
    }

    /// The parameters: all that trains.
    pub fn parameters(&self) -> Vec<&Parameter> {
        self.parts().into_iter().filter_map(|part| part.weight().parameter()).collect()
    }

    /// The parameters, to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        self.parts_mut().into_iter().filter_map(|part| part.weight().parameter_mut()).collect()
    }

    /// The storages of frozen weights and parameters, by `Tensor::storage_id`.
    pub fn storages(&self) -> BTreeSet<usize> {
        let frozen = |w: &Weight| if let Weight::Frozen { value, .. } = w { Some(value.storage_id()) } else { None };
        self.weights().into_iter().filter_map(frozen).chain(self.parameters().iter().map(|p| p.value().storage_id())).collect()
    }
}
