//! Downloads weights and adapters from the Hugging Face hub and the reviews of IMDB, and finds them again by name.
//!
//! Models are stored where `huggingface_hub` stores them (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>). So transformers
//! finds what was fetched here, and models that transformers has downloaded are found here. The program `curl` does HTTP and TLS, because a
//! TLS library would need a C compiler. Only [`fetch()`] needs curl or a network.
//!
//! ```text
//! url, trouble ──► settings ──► curl ──► partial_file ──► download, room ──► fetch
//!                  cache ──┘
//! ```

mod cache;
mod curl;
mod download;
mod fetch;
mod partial_file;
mod room;
mod settings;
mod trouble;
mod url;

pub use download::DownloadProgress;
pub use fetch::{Fetched, fetch};
pub use settings::{Archive, Hub};
