//! The study: LoRA fine-tuning of DistilBERT on IMDB in seven configurations, each a row of its table, and what it claims of them.

mod rows;
mod run;
mod table;

pub use rows::{Row, rows};
pub use run::{Progress, RowResult, Study};
pub use table::{markdown, mcnemar};
