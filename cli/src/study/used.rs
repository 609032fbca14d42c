//! What a run used, as it is saved with its result.

use lowrank::lora::Method;
use lowrank::train::Recipe;
use serde::{Deserialize, Serialize};

/// What a run really used. A report says every field of it: see [`settings`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// How it trained.
    pub recipe: Recipe,
    /// What trained.
    pub method: Method,
    /// Type that it computed in.
    pub dtype: String,
    /// Tokens kept of a text.
    pub max_length: usize,
    /// Number of texts that it trained on.
    pub training_texts: usize,
    /// Share of the study's training texts that these are, in (0, 1].
    pub share: f64,
    /// Number of texts that it was tested on.
    pub test_texts: usize,
    /// When it ended, in UTC as RFC 3339 writes it.
    pub finished: String,
    /// Version of the program.
    pub version: String,
    /// The commit that the program was built from.
    pub commit: String,
}

/// What an older version did not keep.
pub const UNKNOWN: &str = "unknown";
