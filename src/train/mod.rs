//! Training: optimizer, schedule, loop, evaluation, and the comparison with reference values.

mod compare;
mod evaluate;
mod fit;
mod optimizer;
mod schedule;

pub use compare::{Comparison, compare};
pub use evaluate::{Evaluation, evaluate, predict, wilson};
pub use fit::{Observer, Recipe, StepReport, fit, load_checkpoint, save_checkpoint};
pub use optimizer::{AdamW, Group, clip_factor};
pub use schedule::Linear;
