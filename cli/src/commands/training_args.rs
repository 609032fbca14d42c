//! The arguments that `train` and `study` share.

use super::common::{CacheArgs, Checkpoint, ComputeType, DataArgs, count};
use super::cut_args::CutArgs;
use super::device::DeviceArgs;
use super::output::Input;
use clap::Args;
use std::path::PathBuf;

/// Model, data and sizes of a run.
#[derive(Args)]
pub struct TrainingArgs {
    /// Folder of the checkpoint (config.json, model.safetensors, and vocab.txt or tokenizer.json), or the name of a fetched model
    #[arg(long, value_name = "DIR|NAME")]
    pub model: Checkpoint,
    #[command(flatten)]
    pub source: DataArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Labelled texts for the test [default: the test split of --data; if it has none, a part of the training texts is held out]
    #[arg(long, value_name = "PATH")]
    pub test: Option<PathBuf>,
    /// Share of the distinct texts that is held out for the test if the data have no test split [default: 0.2]
    #[arg(long, value_name = "SHARE")]
    pub test_fraction: Option<f64>,
    /// Train on this many texts, the same number of each label
    #[arg(long, value_name = "N", value_parser = count::<{ usize::MAX }>)]
    pub train_limit: Option<usize>,
    /// Test on this many texts, the same number of each label
    #[arg(long, value_name = "N", value_parser = count::<{ usize::MAX }>)]
    pub test_limit: Option<usize>,
    #[arg(long, default_value_t = 3)]
    pub epochs: usize,
    /// Texts of a micro-batch
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Tokens kept of each text [default: 512, or the number of positions of the model if that is less]
    #[arg(long)]
    pub max_length: Option<usize>,
    #[command(flatten)]
    pub long: CutArgs,
    /// Data type of the computation
    #[arg(long, value_enum, default_value_t = ComputeType::F32)]
    pub dtype: ComputeType,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl TrainingArgs {
    /// Everything that is read.
    pub fn inputs(&self) -> Vec<Input> {
        let test = self.test.as_deref().map(Input::test);
        Input::of(&self.source, &self.cache).into_iter().chain(test).chain([Input::Model("the model", self.model.path.clone())]).collect()
    }
}
