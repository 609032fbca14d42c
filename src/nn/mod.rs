//! Layers and the model, DistilBERT or BERT. A layer holds its weights and puts its operations on a tape.
//!
//! A [`Linear`] computes the low-rank terms that it holds; [`crate::lora`] decides which linears hold one. The other methods of `lora` need
//! further places in the model, which a first reader may skip: [`Variant`] (DoRA's formula), [`TermPart`] (DyLoRA uses the first ranks of a
//! term alone), [`Hook`] (bottleneck networks), [`Block::prefix`] and [`DistilBert::prompt`] (trained rows before a sequence), and
//! [`Weight::Computed`] (weights that are functions of one small trained vector, the "shared vector" [`DistilBert::shared`]; the method
//! trains in a random subspace).

mod architecture;
mod block;
mod config;
#[cfg(feature = "cuda")]
mod device;
mod distilbert;
#[cfg(feature = "data")]
mod fingerprint;
mod finite;
mod frozen;
mod layer_norm;
mod linear;
mod load;
mod look;
mod parts;
mod save;
mod token_types;
mod weight;

pub use crate::outputs::{MOST_CLASSES, Outputs, generic_label};
pub(crate) use architecture::in_layer_norm;
pub use architecture::{Architecture, in_head, in_pooler};
pub use block::{Block, Hook, Wanted};
pub use config::Config;
pub use distilbert::DistilBert;
#[cfg(feature = "data")]
pub use fingerprint::fingerprint;
pub use layer_norm::LayerNorm;
pub use linear::{Linear, LowRank, TermPart, Variant};
pub use load::{Head, LoadOptions, LoadReport};
pub use parts::{Origin, WeightMut, WeightRef};
pub use save::TOKENIZER_FILES;
pub use weight::{Weight, WeightFn};

use crate::autograd::Var;
use crate::tensor::{Mask, Sequences};
use std::sync::Arc;

/// What a forward pass needs to know besides the token ids.
#[derive(Clone)]
pub struct Pass {
    /// Sequence boundaries of the packed batch, and the example number of each sequence, which keys its dropout masks.
    pub sequences: Arc<Sequences>,
    /// The seed of every dropout mask, in training. `None` in evaluation: nothing is dropped.
    pub dropout_seed: Option<u64>,
    /// Keep only the input of each layer, and compute the layer again in backward: less memory for more time.
    pub recompute: bool,
    /// DyLoRA: the part of each low-rank term that is used. `None`: the whole term.
    pub part: Option<Arc<dyn TermPart>>,
    /// The shared vector on the tape, if the model has computed weights. The model puts it here.
    pub shared: Option<Var>,
}

impl Pass {
    /// Evaluation: no dropout.
    pub fn evaluation(sequences: Arc<Sequences>) -> Pass {
        Pass { sequences, dropout_seed: None, recompute: false, part: None, shared: None }
    }

    /// Training: dropout masks of `seed`.
    pub fn training(sequences: Arc<Sequences>, seed: u64) -> Pass {
        Pass { dropout_seed: Some(seed), ..Pass::evaluation(sequences) }
    }

    /// The same pass over the first row of each sequence only.
    pub fn first_rows(&self) -> Pass {
        Pass { sequences: Arc::new(self.sequences.first_rows()), ..self.clone() }
    }

    /// The mask of a dropout site at probability `p`; `None` if nothing is dropped.
    pub fn mask(&self, p: f64, site: u32) -> Option<Mask> {
        self.dropout_seed.filter(|_| p > 0.0).map(|seed| Mask { p, seed, site })
    }
}

/// Every place of the model that drops has a number of its own, so that no two draw the same mask.
pub mod site {
    /// After the embeddings' layer norm.
    pub const EMBEDDINGS: u32 = 0;
    /// Before the classifier.
    pub const CLASSIFIER_INPUT: u32 = 1;
    /// Low-rank term of the first linear of the head.
    pub const PRE_CLASSIFIER_TERM: u32 = 2;
    /// Low-rank term of the second linear of the head. LoRA as in PEFT gives it none.
    pub const CLASSIFIER_TERM: u32 = 3;

    /// Attention probabilities of a layer.
    pub const fn attention(layer: usize) -> u32 {
        16 * (layer as u32 + 1)
    }

    /// Output of the feed-forward block of a layer.
    pub const fn ffn(layer: usize) -> u32 {
        attention(layer) + 1
    }

    /// Output of attention of a layer. Only BERT drops there.
    pub const fn attention_output(layer: usize) -> u32 {
        attention(layer) + 8
    }

    /// First low-rank term of linear 0 to 5 (q, k, v, out, lin1, lin2) of a layer. Each further term of the linear adds 2¹⁶.
    pub const fn term(layer: usize, linear: usize) -> u32 {
        attention(layer) + 2 + linear as u32
    }
}
