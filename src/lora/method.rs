//! What to train: the ways to fine-tune that the study compares, one value each.

use super::{Bias, LoraConfig, Placement, bottleneck, subspace, terms, virtual_tokens};
use crate::Result;
use crate::nn::{DistilBert, WeightMut};
use serde::{Deserialize, Serialize};

/// A way to fine-tune.
// A run has a few of them: a box would save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Method {
    /// The classifier on a frozen encoder, with `pre_classifier` before it if that is to train too.
    Head {
        /// Whether `pre_classifier` trains. Where the checkpoint lacks it, it is random otherwise.
        pre_classifier: bool,
    },
    /// Every weight.
    Full,
    /// Every weight but the embeddings and the lowest layers.
    Selective {
        /// Number of frozen layers.
        frozen_layers: usize,
    },
    /// Every bias, layer norms' included, and the head. Ben Zaken et al. 2021, <https://arxiv.org/abs/2106.10199>, section 3.
    BitFit,
    /// Low-rank terms and the head. Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, equation 3.
    #[serde(rename = "LoRA")]
    Lora(LoraConfig),
    /// Small networks after the sublayers, and the head.
    Adapter {
        /// Hidden numbers of each.
        size: usize,
        /// Where they are.
        placement: Placement,
    },
    /// Rows before each sequence, and the head.
    Prompt {
        /// Number of rows.
        tokens: usize,
    },
    /// Keys and values in each layer's attention, and the head.
    Prefix {
        /// Number of each.
        tokens: usize,
    },
    /// The layers' weights in a random subspace, and the head. Aghajanyan et al. 2020, <https://arxiv.org/abs/2012.13255>, equation 1.
    Intrinsic {
        /// Dimension d of the subspace.
        dimension: usize,
        /// Seed of the subspace.
        seed: u64,
    },
}

impl Method {
    /// Whether it trains the weight `name` of the checkpoint itself.
    pub fn trains(&self, name: &str) -> bool {
        let classifier = name.starts_with("classifier.");
        let head = classifier || name.starts_with("pre_classifier.");
        match self {
            Method::Head { pre_classifier } => classifier || (head && *pre_classifier),
            Method::Full => true,
            Method::Selective { frozen_layers } => head || layer(name).is_some_and(|layer| layer >= *frozen_layers),
            Method::BitFit => head || name.ends_with(".bias"),
            Method::Adapter { placement: Placement::Houlsby, .. } => head || name.contains("layer_norm."),
            Method::Adapter { .. } | Method::Prompt { .. } | Method::Prefix { .. } | Method::Intrinsic { .. } => head,
            Method::Lora(config) => {
                let bias_of = name.strip_suffix(".bias");
                head || config.saves(name)
                    || match config.bias {
                        Bias::None => false,
                        Bias::LoraOnly => bias_of.is_some_and(|linear| config.adapts(linear)),
                        Bias::All => bias_of.is_some(),
                    }
            }
        }
    }

    /// Whether what it trains is a checkpoint of its own, and not a small file beside the base.
    pub fn makes_checkpoint(&self) -> bool {
        matches!(self, Method::Full | Method::Selective { .. })
    }

    /// Makes what is to train of `model` train, and adds what is new. Returns the names of the linears that got a low-rank term.
    ///
    /// # Errors
    /// If a number is out of its range, or the model has not what the method needs: a target, so many layers.
    pub fn apply(&self, model: &mut DistilBert, seed: u64) -> Result<Vec<String>> {
        self.check(&model.config)?;
        let mut adapted = Vec::new();
        match self {
            Method::Lora(config) => adapted = terms::add(model, config, seed)?,
            Method::Adapter { size, placement } => bottleneck::insert(model, *size, *placement, seed)?,
            Method::Prompt { tokens } => virtual_tokens::prompt(model, *tokens, seed)?,
            Method::Prefix { tokens } => virtual_tokens::prefix(model, *tokens, seed)?,
            Method::Intrinsic { dimension, seed } => subspace::project(model, *dimension, *seed)?,
            Method::Head { .. } | Method::Full | Method::Selective { .. } | Method::BitFit => {}
        }
        for part in model.parts_mut() {
            if let WeightMut::Base(weight) = part
                && self.trains(weight.name())
            {
                weight.train()?;
            }
        }
        Ok(adapted)
    }
}

/// The layer that the weight `name` belongs to.
pub(super) fn layer(name: &str) -> Option<usize> {
    name.split_once(".layer.")?.1.split('.').next()?.parse().ok()
}
