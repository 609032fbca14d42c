//! The arguments that say what to train.

use crate::lora::{Bias, Init, LoraConfig, Method, Placement};
use crate::{Error, Result};
use clap::{Args, ValueEnum};

/// What to train.
#[derive(Args)]
pub struct MethodArgs {
    /// What to train
    #[arg(long, value_enum, default_value_t = MethodName::Lora)]
    method: MethodName,
    /// head: train pre_classifier too
    #[arg(long)]
    train_pre_classifier: bool,
    /// selective: layers that stay frozen, from the lowest
    #[arg(long, default_value_t = 4, value_name = "N")]
    frozen_layers: usize,
    /// adapter: hidden numbers of each
    #[arg(long, default_value_t = 64, value_name = "N")]
    adapter_size: usize,
    /// prefix and prompt: number of virtual tokens; a prompt's take positions from the text
    #[arg(long, default_value_t = 20, value_name = "N")]
    virtual_tokens: usize,
    /// intrinsic: numbers that train in place of the layers' weights
    #[arg(long, default_value_t = 1000, value_name = "N")]
    dimension: usize,
    /// Linears that get a low-rank term, by name or end of a name; all-linear: the six of each layer
    #[arg(long, value_delimiter = ',', default_value = "q_lin,v_lin")]
    targets: Vec<String>,
    /// The same as one regular expression of whole names, such as '.*layer\.[345]\..*lin1'
    #[arg(long, value_name = "REGEX", conflicts_with = "targets")]
    target_pattern: Option<String>,
    /// Rank of the terms; dylora: the highest
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// The term is scaled by alpha / rank [default: 2 · rank]
    #[arg(long)]
    alpha: Option<f64>,
    /// Scale the term by alpha / √rank, as the method rslora does
    #[arg(long)]
    rslora: bool,
    /// Ranks of single linears, such as lin1=4,layer.5.attention.q_lin=16
    #[arg(long, value_delimiter = ',', value_parser = pair::<usize>, value_name = "NAME=RANK")]
    rank_pattern: Vec<(String, usize)>,
    /// Alphas of single linears
    #[arg(long, value_delimiter = ',', value_parser = pair::<f64>, value_name = "NAME=ALPHA")]
    alpha_pattern: Vec<(String, f64)>,
    /// Layers whose linears are adapted [default: all]
    #[arg(long, value_delimiter = ',')]
    layers: Vec<usize>,
    /// Biases that train beside the terms
    #[arg(long, value_enum, default_value_t = BiasName::None)]
    bias: BiasName,
    /// Modules that train in full beside the terms and the head, by the end of their names
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    modules_to_save: Vec<String>,
    /// Dropout of each term's input
    #[arg(long, default_value_t = 0.1)]
    lora_dropout: f64,
    /// How A starts: kaiming is what PEFT does, gaussian what the paper says
    #[arg(long, value_enum, default_value_t = InitName::Kaiming)]
    lora_init: InitName,
}

/// Names of [`Method`].
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodName {
    /// Low-rank terms on frozen linears, and the head
    Lora,
    /// Low-rank terms scaled by alpha / √rank
    Rslora,
    /// Low-rank terms, and the lengths of the weights' rows apart
    Dora,
    /// Low-rank terms of which each step trains the first few ranks: one adapter for all ranks
    Dylora,
    /// Low-rank terms with a frozen A
    LoraFa,
    /// The classifier alone
    Head,
    /// Every weight
    Full,
    /// The head and the upper layers
    Selective,
    /// Every bias, and the head
    Bitfit,
    /// A small network after each sublayer, layer norms, and the head (Houlsby)
    Adapter,
    /// A small network after each feed-forward block, and the head (Pfeiffer)
    AdapterPfeiffer,
    /// Keys and values in each layer's attention, and the head
    Prefix,
    /// Rows before each text, and the head
    Prompt,
    /// The layers' weights in a random subspace, and the head
    Intrinsic,
}

/// Names of [`Bias`].
#[derive(Clone, Copy, ValueEnum)]
enum BiasName {
    None,
    LoraOnly,
    All,
}

/// Names of [`Init`].
#[derive(Clone, Copy, ValueEnum)]
enum InitName {
    Kaiming,
    Gaussian,
}

/// `name=value`.
fn pair<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> std::result::Result<(String, T), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_string(), value.parse().map_err(|e: T::Err| format!("{value:?}: {e}"))?))
}

impl MethodArgs {
    /// The learning rate where none is given.
    pub fn learning_rate(&self) -> f64 {
        match self.method {
            MethodName::Lora | MethodName::Rslora | MethodName::Dora | MethodName::Dylora | MethodName::LoraFa => 3e-4,
            MethodName::Full | MethodName::Selective => 2e-5,
            MethodName::Head | MethodName::Bitfit | MethodName::Adapter | MethodName::AdapterPfeiffer => 1e-3,
            MethodName::Prefix | MethodName::Prompt | MethodName::Intrinsic => 1e-2,
        }
    }

    /// The highest of the ranks that are drawn in training, if they are.
    ///
    /// # Errors
    /// If the scale does not go with that.
    pub fn nested_rank(&self) -> Result<Option<usize>> {
        match self.method {
            MethodName::Dylora if self.rslora => Err(Error::invalid("dylora scales by alpha / rank: it does not go with --rslora")),
            MethodName::Dylora => Ok(Some(self.rank_pattern.iter().map(|&(_, rank)| rank).fold(self.rank, usize::max))),
            _ => Ok(None),
        }
    }

    fn lora(&self) -> LoraConfig {
        let init = match self.lora_init {
            InitName::Kaiming => Init::Kaiming,
            InitName::Gaussian => Init::Gaussian,
        };
        let bias = match self.bias {
            BiasName::None => Bias::None,
            BiasName::LoraOnly => Bias::LoraOnly,
            BiasName::All => Bias::All,
        };
        let targets: Vec<&str> = match self.target_pattern {
            Some(_) => Vec::new(),
            None => self.targets.iter().map(String::as_str).collect(),
        };
        LoraConfig {
            alpha: self.alpha.unwrap_or(2.0 * self.rank as f64),
            dropout: self.lora_dropout,
            target_pattern: self.target_pattern.clone(),
            init,
            rank_stabilised: self.rslora || self.method == MethodName::Rslora,
            dora: self.method == MethodName::Dora,
            freeze_a: self.method == MethodName::LoraFa,
            rank_pattern: self.rank_pattern.iter().cloned().collect(),
            alpha_pattern: self.alpha_pattern.iter().cloned().collect(),
            layers: self.layers.clone(),
            bias,
            modules_to_save: self.modules_to_save.clone(),
            ..LoraConfig::new(self.rank, &targets)
        }
    }

    /// The method; a random subspace is drawn from `seed`.
    pub fn method(&self, seed: u64) -> Method {
        match self.method {
            MethodName::Lora | MethodName::Rslora | MethodName::Dora | MethodName::Dylora | MethodName::LoraFa => Method::Lora(self.lora()),
            MethodName::Head => Method::Head { pre_classifier: self.train_pre_classifier },
            MethodName::Full => Method::Full,
            MethodName::Selective => Method::Selective { frozen_layers: self.frozen_layers },
            MethodName::Bitfit => Method::BitFit,
            MethodName::Adapter => Method::Adapter { size: self.adapter_size, placement: Placement::Houlsby },
            MethodName::AdapterPfeiffer => Method::Adapter { size: self.adapter_size, placement: Placement::Pfeiffer },
            MethodName::Prefix => Method::Prefix { tokens: self.virtual_tokens },
            MethodName::Prompt => Method::Prompt { tokens: self.virtual_tokens },
            MethodName::Intrinsic => Method::Intrinsic { dimension: self.dimension, seed },
        }
    }
}
