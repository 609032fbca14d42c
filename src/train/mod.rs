//! Training: optimizer, schedule, loop, evaluation, and the comparison with reference values.

mod compare;
mod evaluate;
mod features;
mod fit;
mod memory;
mod optimizer;
mod schedule;
mod scores;

pub use compare::{Comparison, compare};
pub use evaluate::{Evaluation, Z95, argmax, evaluate, logits, measure, predict, predict_while, wilson};
pub use features::FrozenFeatures;
pub use fit::{Observer, Recipe, StepReport, fit, fit_on_features, load_checkpoint, save_checkpoint, save_checkpoint_with};
pub use memory::{memory_by_category, peak_memory};
pub use optimizer::{AdamW, Group, Groups, lora_plus};
pub use schedule::LinearSchedule;
pub use scores::{LabelsFound, NumberErrors, labels_found, number_errors, scores, target};
