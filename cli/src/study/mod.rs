//! The study: LoRA fine-tuning of DistilBERT on IMDB. It has seven configurations, each a row of its table, and makes claims about them.
//!
//! ```text
//! rows ──► run ──► results ──► table, claims, report
//!                        evidence ──┘     (latency, change)
//! ```

mod change;
mod claim_figures;
mod claims;
mod evidence;
pub mod figure;
mod latency;
mod machine;
pub mod page;
mod record;
mod report;
mod rows;
mod run;
mod settings;
mod statistics;
mod table;
mod used;
mod verdict;

pub use change::{Change, rank_of};
pub use claim_figures::figures;
pub use claims::{Claim, claims};
pub use evidence::Evidence;
pub use latency::{Cost, Latency, Timing, latency};
pub use machine::processor;
pub use report::{Findings, Provenance, report, results_json};
pub use rows::{Row, claim_rows, rows};
pub use run::{RowResult, Study, StudyProgress};
pub use settings::{Setting, origin, settings};
pub use statistics::{Difference, McNemar, difference, mcnemar, neighbours, p_value};
pub use table::{markdown, recipe_lines};
pub use used::Used;
pub use verdict::Verdict;
