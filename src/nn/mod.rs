//! Layers and the DistilBERT model, over the tape. Layers know low-rank terms as arithmetic, not who gets them: that is `lora`'s.

mod block;
mod config;
#[cfg(feature = "cuda")]
mod device;
mod distilbert;
#[cfg(feature = "data")]
mod fingerprint;
mod finite;
mod layer_norm;
mod linear;
mod load;
mod save;
mod share;
mod weight;

pub use block::{Block, Hook, Wanted};
pub use config::{Config, Outputs, generic_label};
pub use distilbert::DistilBert;
#[cfg(feature = "data")]
pub use fingerprint::fingerprint;
pub use layer_norm::LayerNorm;
pub use linear::{Linear, LowRank, Magnitude};
pub use load::{Head, LoadOptions, LoadReport};
pub use save::TOKENIZER_FILES;
pub use weight::{Weight, WeightFn, WeightMut, WeightRef};

use crate::tensor::Mask;
use crate::tensor::Sequences;
use std::sync::Arc;

/// What one forward pass needs to know beside the ids.
#[derive(Clone)]
pub struct Pass {
    /// Sequence boundaries of the packed batch.
    pub sequences: Arc<Sequences>,
    /// The seed of every dropout mask; `None` in evaluation: nothing is dropped.
    pub dropout: Option<u64>,
    /// Keep only the input of each layer, and compute the layer again in backward: time for memory.
    pub recompute: bool,
    /// Take the first ranks of every low-rank term alone. Valipour et al. 2022 (DyLoRA), <https://arxiv.org/abs/2210.07558>, equation 7.
    pub rank: Option<usize>,
}

impl Pass {
    /// Evaluation: no dropout.
    pub fn evaluation(sequences: Arc<Sequences>) -> Pass {
        Pass { sequences, dropout: None, recompute: false, rank: None }
    }

    /// Training: dropout masks of `seed`.
    pub fn training(sequences: Arc<Sequences>, seed: u64) -> Pass {
        Pass { sequences, dropout: Some(seed), recompute: false, rank: None }
    }

    /// The same pass over the first row of each sequence alone.
    pub fn first_rows(&self) -> Pass {
        Pass { sequences: Arc::new(self.sequences.first_rows()), ..self.clone() }
    }

    /// The mask of `site` at probability `p`, if anything is to be dropped.
    pub fn mask(&self, p: f64, site: u32) -> Option<Mask> {
        self.dropout.filter(|_| p > 0.0).map(|seed| Mask { p, seed, site })
    }
}

/// The static numbers of the dropout sites: each has its own masks.
pub mod site {
    /// After the embeddings' layer norm.
    pub const EMBEDDINGS: u32 = 0;
    /// Before the classifier.
    pub const CLASSIFIER_INPUT: u32 = 1;
    /// Low-rank term of the first linear of the head.
    pub const PRE_CLASSIFIER_TERM: u32 = 2;
    /// Low-rank term of the second linear of the head.
    pub const CLASSIFIER_TERM: u32 = 3;

    /// Attention probabilities of a layer.
    pub const fn attention(layer: usize) -> u32 {
        16 * (layer as u32 + 1)
    }

    /// Output of the feed-forward block of a layer.
    pub const fn ffn(layer: usize) -> u32 {
        attention(layer) + 1
    }

    /// Low-rank term of linear 0..6 (q, k, v, out, lin1, lin2) of a layer; further terms of the same linear add 2¹⁶ each.
    pub const fn term(layer: usize, linear: usize) -> u32 {
        attention(layer) + 2 + linear as u32
    }
}
