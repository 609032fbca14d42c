//! The two architectures, and the names of their weights, which are those of Hugging Face transformers.

use serde::{Deserialize, Serialize};

/// What a checkpoint holds. BERT (Devlin et al. 2018, <https://arxiv.org/abs/1810.04805>) differs from DistilBERT (Sanh et al. 2019,
/// <https://arxiv.org/abs/1910.01108>) in four places: an embedding of the token type is added, attention's output has dropout, the layer before
/// the classifier is a pooler with tanh in place of relu, and the names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// `model_type` "distilbert".
    #[default]
    DistilBert,
    /// `model_type` "bert".
    Bert,
}

/// The modules of a layer, in the order of [`super::Block`]: q, k, v, out, layer norm, lin1, lin2, layer norm.
const DISTILBERT_LAYER: [&str; 8] = [
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
];
const BERT_LAYER: [&str; 8] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];

impl Architecture {
    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::DistilBert => "DistilBERT",
            Architecture::Bert => "BERT",
        }
    }

    /// The class of a classifier in transformers.
    pub(super) fn classifier_class(self) -> &'static str {
        match self {
            Architecture::DistilBert => "DistilBertForSequenceClassification",
            Architecture::Bert => "BertForSequenceClassification",
        }
    }

    /// The name of the encoder, with which the names of its weights begin.
    pub(super) fn encoder(self) -> &'static str {
        match self {
            Architecture::DistilBert => "distilbert",
            Architecture::Bert => "bert",
        }
    }

    /// Name of layer number `layer`.
    pub(super) fn layer(self, layer: usize) -> String {
        match self {
            Architecture::DistilBert => format!("distilbert.transformer.layer.{layer}"),
            Architecture::Bert => format!("bert.encoder.layer.{layer}"),
        }
    }

    /// Names of the modules inside a layer: q, k, v, out, layer norm, lin1, lin2, layer norm.
    pub(super) fn modules(self) -> [&'static str; 8] {
        match self {
            Architecture::DistilBert => DISTILBERT_LAYER,
            Architecture::Bert => BERT_LAYER,
        }
    }

    /// Name of the linear before the classifier.
    pub(super) fn pre_classifier(self) -> &'static str {
        match self {
            Architecture::DistilBert => "pre_classifier",
            Architecture::Bert => "bert.pooler.dense",
        }
    }

    /// The linears of attention, q, k, v and out, by the shortest ends of their names that mean nothing else.
    pub fn attention(self) -> [&'static str; 4] {
        match self {
            Architecture::DistilBert => ["q_lin", "k_lin", "v_lin", "out_lin"],
            Architecture::Bert => ["query", "key", "value", "attention.output.dense"],
        }
    }

    /// The linears that PEFT adapts unless it is told others: q and v.
    pub fn default_targets(self) -> [&'static str; 2] {
        let [q, _, v, _] = self.attention();
        [q, v]
    }

    /// Ends of names that mean the six linears of every layer, and no other.
    pub fn layer_linears(self) -> &'static [&'static str] {
        match self {
            Architecture::DistilBert => &["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
            // "output.dense" ends attention's output, too.
            Architecture::Bert => &["query", "key", "value", "intermediate.dense", "output.dense"],
        }
    }
}

/// Whether weight `name` belongs to the classifier and not to the encoder. BERT's pooler counts as a part of the head, but a checkpoint may have it.
pub fn in_head(name: &str) -> bool {
    ["classifier.", "pre_classifier."].iter().any(|head| name.starts_with(head)) || in_pooler(name)
}

/// Whether weight `name` belongs to BERT's pooler.
pub fn in_pooler(name: &str) -> bool {
    name.starts_with("bert.pooler.")
}

/// Whether weight `name` belongs to a layer norm.
pub(crate) fn in_layer_norm(name: &str) -> bool {
    ["layer_norm", "LayerNorm"].iter().any(|norm| name.contains(norm))
}
