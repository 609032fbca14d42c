//! The arguments for long texts.

use super::common::count;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lowrank::cut::{Cut, Truncate};

/// What is done with a text that is longer than `--max-length`.
#[derive(Args, Clone, Default)]
pub struct CutArgs {
    /// The tokens that are kept of a longer text: the first, the last, or the first and the last at 128 to 382
    #[arg(long, value_name = "PART", value_parser = parser())]
    truncate: Option<Truncate>,
    /// Cut a longer text into up to N windows of --max-length tokens, which overlap by a quarter, and take the mean of their logits. Training
    /// sees one window of each text, the tokens that --truncate names; windows are for the texts that are measured or classified
    #[arg(long, value_name = "N", value_parser = count::<{ usize::MAX }>)]
    windows: Option<usize>,
}

/// Reads the name of a part of a text.
pub fn parser() -> impl TypedValueParser<Value = Truncate> {
    let named = |name: String| Truncate::ALL.into_iter().find(|part| part.name() == name);
    PossibleValuesParser::new(Truncate::ALL.map(Truncate::name)).try_map(move |name| named(name).ok_or("no part of a text"))
}

impl CutArgs {
    /// How texts are cut: as the arguments say, else as in `trained`, the training of the model.
    pub fn cut(&self, max_length: usize, trained: Option<Cut>) -> Cut {
        let trained = trained.unwrap_or(Cut::from(max_length));
        Cut { max_length, truncate: self.truncate.or(trained.truncate), windows: self.windows.unwrap_or(trained.windows) }
    }
}
