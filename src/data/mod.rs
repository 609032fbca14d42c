//! Text to packed batches: WordPiece, labelled data sets, their tokens, and the order in which training sees them.
//!
//! ```text
//! source (archive, folder, table) ──► Dataset ──► Tokenized ──► Batch
//!                                     texts       ids, offsets  packed ids, labels
//! ```

mod batch;
mod dataset;
mod encoder;
mod normalize;
mod settings;
mod stream;
mod tokenized;
mod vocabulary;
mod wordpiece;

#[cfg(feature = "data")]
mod cache;
#[cfg(feature = "data")]
mod imdb;
#[cfg(feature = "data")]
mod source;
#[cfg(feature = "data")]
mod table;

pub use batch::{Batch, batch, evaluation_batches, order, order_by_length};
pub use dataset::Dataset;
pub use encoder::Encoder;
pub use tokenized::Tokenized;
pub use vocabulary::{count_words, learn_vocabulary};
pub use wordpiece::WordPiece;

#[cfg(feature = "data")]
pub use cache::{Recipe, cached, hash_file, hex};
#[cfg(feature = "data")]
pub use source::{Split, TableOptions, load, load_encoded, load_with_labels, sources};
