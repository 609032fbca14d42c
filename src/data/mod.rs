//! Text to packed batches: WordPiece, labelled data sets, their tokens, and the order in which training sees them.
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
mod normalize;
mod ordered;
mod pieces;
mod settings;
mod special;
mod stream;
mod tokenized;
mod vocabulary;
mod wordpiece;

#[cfg(feature = "data")]
mod cache;
#[cfg(feature = "data")]
mod decode;
#[cfg(feature = "data")]
mod imdb;
#[cfg(feature = "data")]
mod labels;
#[cfg(feature = "data")]
mod source;
#[cfg(feature = "data")]
mod table;
#[cfg(feature = "data")]
mod tsv;

pub use batch::{Batch, batch, evaluation_batches, order, order_by_length};
pub use dataset::Dataset;
pub use encoder::Encoder;
pub use tokenized::{Encoded, Oddities, Tokenized, text_key};
pub use vocabulary::{count_words, learn_vocabulary};
pub use wordpiece::WordPiece;

#[cfg(feature = "data")]
pub use cache::{TokenKey, cached, data_hash, hash_file, hex};
#[cfg(feature = "data")]
pub use labels::Labels;
#[cfg(feature = "data")]
pub use source::{
    Found, Split, TableOptions, files, find, load, load_encoded, load_texts, load_with_labels, read_text, sibling_split, sources,
};
