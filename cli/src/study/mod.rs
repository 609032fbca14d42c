//! The study: LoRA fine-tuning of DistilBERT on IMDB in seven configurations, each a row of its table, and what it claims of them.
//!
//! ```text
//! rows ──► run ──► results ──► table, claims, report
//!                        evidence ──┘     (latency, change)
//! ```

mod change;
mod claims;
mod evidence;
pub mod figure;
mod latency;
mod machine;
pub mod page;
mod report;
mod rows;
mod run;
mod statistics;
mod table;
mod used;

pub use change::{Change, rank_of};
pub use claims::{Claim, Evidence, claims, figures};
pub use latency::{Cost, Latency, Timing, latency};
pub use machine::processor;
pub use report::{Findings, Provenance, report, results_json};
pub use rows::{Row, claim_rows, rows};
pub use run::{Progress, RowResult, Study};
pub use statistics::{Difference, McNemar, difference, mcnemar, neighbours, p_value};
pub use table::{markdown, recipe_lines};
pub use used::{Setting, Used, origin, settings};
