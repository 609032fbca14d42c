//! Layers and the DistilBERT model. A layer holds its weights and puts its operations on a tape.
//!
//! Layers know low-rank terms as arithmetic. Who gets a term, and the other ways to fine-tune, are in [`crate::lora`], which plugs into the
//! model in these places: [`Linear::terms`] and [`Variant`], [`Weight::Computed`], [`TermPart`], [`Hook`], [`Block::prefix`] and
//! [`DistilBert::prompt`].

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
mod pass;
mod save;
mod share;
mod weight;

pub use block::{Block, Hook, Wanted};
pub use config::{Config, Outputs, generic_label};
pub use distilbert::DistilBert;
#[cfg(feature = "data")]
pub use fingerprint::fingerprint;
pub use layer_norm::LayerNorm;
pub use linear::{Linear, LowRank, TermPart, Variant};
pub use load::{Head, LoadReport};
pub use pass::{Pass, site};
pub use save::TOKENIZER_FILES;
pub use weight::{Origin, Weight, WeightFn, WeightMut, WeightRef};
