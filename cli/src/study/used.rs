//! What a run used, as it is saved with its result.

use lowrank::cut::Cut;
use lowrank::lora::Method;
use lowrank::train::Recipe;
use serde::{Deserialize, Serialize};

/// The settings of a run. A report lists every field: see [`settings`](super::settings()).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Recipe of training.
    pub recipe: Recipe,
    /// Method of fine-tuning.
    pub method: Method,
    /// Data type of the computation.
    pub dtype: String,
    /// How texts were cut.
    #[serde(flatten)]
    pub cut: Cut,
    /// Number of training texts.
    pub training_texts: usize,
    /// Share of the study's training texts that were used, in (0, 1].
    pub share: f64,
    /// Number of test texts.
    pub test_texts: usize,
    /// End of the run in UTC, in the format of RFC 3339.
    pub finished: String,
    /// Version of the program.
    pub version: String,
    /// The commit that the program was built from.
    pub commit: String,
}

/// In place of a value that an older version did not save.
pub const UNKNOWN: &str = "unknown";
