//! From text to packed batches: WordPiece, labelled data sets, their tokens, and the order of an epoch.
//!
//! ```text
//! source (archive, folder, table) ──► Dataset ──► Tokenized ──► Batch
//!                                     texts       ids, offsets  packed ids, labels
//! ```

mod added;
mod batch;
mod dataset;
mod encoder;
mod export;
mod folds;
mod labels;
mod normalize;
mod numbered;
mod ordered;
mod pair;
mod pieces;
mod rows;
mod settings;
mod special;
mod stream;
mod targets;
mod tokenized;
mod wordpiece;

#[cfg(feature = "data")]
mod cache;
#[cfg(feature = "data")]
mod decode;
#[cfg(feature = "data")]
mod imdb;
#[cfg(feature = "data")]
mod records;
#[cfg(feature = "data")]
mod source;
#[cfg(feature = "data")]
mod split;
#[cfg(feature = "data")]
mod survey;
#[cfg(feature = "data")]
mod table;
#[cfg(feature = "data")]
mod tsv;

pub use crate::cut::Sequence;
pub use batch::{Batch, batch, order, order_by_length};
pub use dataset::{Dataset, TrainTest, text_key};
pub use encoder::Encoder;
pub use labels::Labels;
pub use normalize::Normalizer;
pub use rows::Row;
pub use tokenized::{Encoded, Oddities, Targets, Tokenized};
pub use wordpiece::WordPiece;

#[cfg(feature = "data")]
pub use cache::{TokenKey, cached, data_hash, hash_file};
#[cfg(feature = "data")]
pub use records::{Cell, Record, Records, Style};
#[cfg(feature = "data")]
pub use source::{Found, find, load, load_encoded, load_rows, load_texts, load_with_labels, location, read_text, sibling_split};
#[cfg(feature = "data")]
pub use split::Split;
#[cfg(feature = "data")]
pub use survey::{
    ClassCount, Example, FileForm, Finding, FindingKind, Lengths, Part, PartFacts, Place, Spread, Survey, file_form, survey, token_lengths,
};
#[cfg(feature = "data")]
pub use table::{TableOptions, text_columns};
