//! Several models that share the weights of one base.

use super::{Block, DistilBert, LayerNorm, Linear, Weight};
use crate::Result;
use crate::tensor::Tensor;
use crate::tensor::philox::Stream;

impl Weight {
    fn share(&self) -> Result<Weight> {
        Ok(Weight::frozen(self.name(), self.value()?))
    }
}

impl Linear {
    fn share(&self) -> Result<Linear> {
        let bias = self.bias.as_ref().map(Weight::share).transpose()?;
        Ok(Linear::new(&self.name, self.weight.share()?, bias, self.site))
    }
}

impl LayerNorm {
    fn share(&self) -> Result<LayerNorm> {
        Ok(LayerNorm { gamma: self.gamma.share()?, beta: self.beta.share()? })
    }
}

impl Block {
    fn share(&self) -> Result<Block> {
        let [q, k, v] = &self.qkv;
        Ok(Block {
            layer: self.layer,
            heads: self.heads,
            attention_dropout: self.attention_dropout,
            dropout: self.dropout,
            qkv: [q.share()?, k.share()?, v.share()?],
            out: self.out.share()?,
            sa_layer_norm: self.sa_layer_norm.share()?,
            lin1: self.lin1.share()?,
            lin2: self.lin2.share()?,
            output_layer_norm: self.output_layer_norm.share()?,
            prefix: None,
            hooks: [None, None],
        })
    }
}

impl DistilBert {
    /// Another model with the same weights, all frozen, and without low-rank terms or other additions. The weights are in memory once; a method that is applied
    /// to one model does not change the other. If `classes` is not this model's number of classes, the classifier is random.
    ///
    /// # Errors
    /// If a weight is computed.
    pub fn share(&self, classes: usize) -> Result<DistilBert> {
        let mut classifier = self.classifier.share()?;
        let (own, d) = classifier.dims();
        if own != classes {
            let dtype = classifier.weight.value()?.dtype();
            let mut stream = Stream::new(0, classifier.weight.name());
            let values = (0..classes * d).map(|_| self.config.initializer_range * stream.normal()).collect();
            classifier.weight = Weight::frozen(classifier.weight.name(), Tensor::from_f64(values, dtype, [classes, d])?);
            classifier.bias = classifier.bias.map(|b| Weight::frozen(b.name(), Tensor::zeros(dtype, [classes])));
        }
        Ok(DistilBert {
            config: self.config.clone(),
            dtype: self.dtype,
            word_embeddings: self.word_embeddings.share()?,
            position_embeddings: self.position_embeddings.share()?,
            layer_norm: self.layer_norm.share()?,
            blocks: self.blocks.iter().map(Block::share).collect::<Result<_>>()?,
            pre_classifier: self.pre_classifier.share()?,
            classifier,
            prompt: None,
            shared: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn weights_are_in_memory_once_and_models_apart() {
        let mut config = Config::distilbert_base();
        (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (8, 2, 16, 2, 40);
        let base = DistilBert::random(&config, 2, DType::F32, 1).unwrap();
        let mut one = base.share(2).unwrap();
        let other = base.share(3).unwrap();
        let ids = |model: &DistilBert| model.weights().iter().map(|w| w.value().unwrap().storage_id()).collect::<Vec<_>>();
        assert_eq!(ids(&base), ids(&one));
        let differ = ids(&base).iter().zip(ids(&other)).filter(|(a, b)| **a != *b).count();
        assert_eq!((differ, other.classifier.dims()), (2, (3, 8)), "the classifier alone is another");
        let lin1 = &mut one.blocks[0].lin1.weight;
        lin1.set(Tensor::zeros(DType::F32, [16, 8])).unwrap();
        assert!(base.blocks[0].lin1.weight.value().unwrap().to_f64().unwrap().iter().any(|&x| x != 0.0));
    }
}
