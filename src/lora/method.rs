//! The ways to fine-tune, one value each: which weights of the checkpoint train, and what is added to the model.

use super::pattern::layer;
use super::{Bias, LoraConfig, Placement, bottleneck, subspace, terms, virtual_tokens};
use crate::Result;
use crate::nn::{DistilBert, WeightMut, in_head, in_layer_norm, in_pooler};
use serde::{Deserialize, Serialize};

/// A way to fine-tune. All but `Full` and `Selective` give an adapter: small files that belong to an unchanged base.
// There are few values of it: a box around the large variant would save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Method {
    /// The classifier on a frozen encoder.
    Head {
        /// Whether `pre_classifier` trains too. If not, and the checkpoint lacks it, it stays random. In BERT it is the pooler.
        pre_classifier: bool,
    },
    /// Every weight.
    Full,
    /// Every weight above the embeddings and the lowest layers.
    Selective {
        /// Number of frozen layers.
        frozen_layers: usize,
    },
    /// Every bias, layer norms included, and the head. Ben Zaken et al. 2021, <https://arxiv.org/abs/2106.10199>, section 3.
    BitFit,
    /// Low-rank terms and the head. Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, equation 3.
    #[serde(rename = "LoRA")]
    Lora(LoraConfig),
    /// Bottleneck networks after the sublayers, and the head; see `bottleneck.rs`.
    #[serde(rename = "Adapter")]
    Bottleneck {
        /// Hidden width m of each.
        size: usize,
        /// After which sublayers they are.
        placement: Placement,
    },
    /// Rows before each sequence's embeddings, and the head; see `virtual_tokens.rs`.
    Prompt {
        /// Number of rows, P.
        tokens: usize,
    },
    /// Keys and values in the attention of each layer, and the head; see `virtual_tokens.rs`.
    Prefix {
        /// Number of each, E.
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
    /// Whether weight `name` of the checkpoint trains itself. As in PEFT, BERT's pooler is not part of the head that every method trains.
    /// But [`Method::apply`] trains it if the checkpoint lacks it. `in_head`, `in_pooler` and `in_layer_norm` (`nn/architecture.rs`) tell
    /// from its name to which part of the model a weight belongs.
    pub fn trains(&self, name: &str) -> bool {
        let classifier = name.starts_with("classifier.");
        let head = in_head(name) && !in_pooler(name);
        match self {
            Method::Head { pre_classifier } => classifier || (in_head(name) && *pre_classifier),
            Method::Full => true,
            Method::Selective { frozen_layers } => in_head(name) || layer(name).is_some_and(|layer| layer >= *frozen_layers),
            Method::BitFit => head || name.ends_with(".bias"),
            Method::Bottleneck { placement: Placement::Houlsby, .. } => head || (in_layer_norm(name) && layer(name).is_some()),
            Method::Bottleneck { .. } | Method::Prompt { .. } | Method::Prefix { .. } | Method::Intrinsic { .. } => head,
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

    /// Whether the result is a whole checkpoint, and not an adapter.
    pub fn makes_checkpoint(&self) -> bool {
        matches!(self, Method::Full | Method::Selective { .. })
    }

    /// Prepares `model` for training: adds what the method adds, drawn from `seed` (a subspace has its own seed), and makes weights of the
    /// checkpoint trainable. Returns the names of the linears that got a low-rank term.
    ///
    /// # Errors
    /// If a number is out of its range, or the model lacks something that the method names, such as a target or a layer.
    pub fn apply(&self, model: &mut DistilBert, seed: u64) -> Result<Vec<String>> {
        self.check(&model.config)?; // the ranges of its numbers: `ranges.rs`
        let mut adapted = Vec::new();
        match self {
            Method::Lora(config) => adapted = terms::add(model, config, seed)?,
            Method::Bottleneck { size, placement } => bottleneck::insert(model, *size, *placement, seed)?,
            Method::Prompt { tokens } => virtual_tokens::prompt(model, *tokens, seed)?,
            Method::Prefix { tokens } => virtual_tokens::prefix(model, *tokens, seed)?,
            Method::Intrinsic { dimension, seed: own } => subspace::project(model, *dimension, *own)?,
            Method::Head { .. } | Method::Full | Method::Selective { .. } | Method::BitFit => {}
        }
        let new_pooler = model.pre_classifier_in_head;
        // `Base`: a weight of the checkpoint, and not one that the method has added.
        for part in model.parts_mut() {
            if let WeightMut::Base(weight) = part
                && (self.trains(weight.name()) || (in_pooler(weight.name()) && new_pooler))
            {
                weight.train()?;
            }
        }
        Ok(adapted)
    }
}

/// [`Method::Lora`] applied to a model: every linear that `config` adapts gets a term, and the head trains in full.
///
/// # Errors
/// If a target names no linear; the message lists the nearest names.
pub fn adapt(model: &mut DistilBert, config: &LoraConfig, seed: u64) -> Result<Vec<String>> {
    Method::Lora(config.clone()).apply(model, seed)
}
