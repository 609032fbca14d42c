//! The arguments that select the fine-tuning method.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use lowrank::lora::{Bias, Init, LoraConfig, Method, Placement};
use lowrank::nn::{Architecture, DistilBert};
use lowrank::train::{AdamW, Recipe, lora_plus};
use lowrank::{Error, Result};

/// The method and its options.
#[derive(Args)]
pub struct MethodArgs {
    /// Fine-tuning method
    #[arg(long, value_enum, default_value_t = MethodName::Lora)]
    method: MethodName,
    /// head: also train pre_classifier (in BERT: the pooler)
    #[arg(long)]
    train_pre_classifier: bool,
    /// selective: number of lower layers that stay frozen [default: 4]
    #[arg(long, value_name = "N")]
    frozen_layers: Option<usize>,
    /// adapter: hidden size of each adapter [default: 64]
    #[arg(long, value_name = "N")]
    adapter_size: Option<usize>,
    /// prefix and prompt: number of virtual tokens; those of a prompt use positions of the text [default: 20]
    #[arg(long, value_name = "N")]
    virtual_tokens: Option<usize>,
    /// intrinsic: dimension of the random subspace in which the layers train [default: 1000]
    #[arg(long, value_name = "N")]
    dimension: Option<usize>,
    /// Linears that get a low-rank term, by name or end of the name; all-linear: all six of each layer [default: q_lin,v_lin; in BERT query,value]
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// The same, as a regular expression for whole names, such as '.*layer\.[345]\..*lin1'
    #[arg(long, value_name = "REGEX", conflicts_with = "targets")]
    target_pattern: Option<String>,
    /// Rank of the terms; dylora: highest rank [default: 8]
    #[arg(long)]
    rank: Option<usize>,
    /// The term is scaled by alpha / rank [default: 2 · rank]
    #[arg(long)]
    alpha: Option<f64>,
    /// Scale the term by alpha / √rank, as in rsLoRA
    #[arg(long)]
    rslora: bool,
    /// Ranks for particular linears, such as lin1=4,layer.5.attention.q_lin=16
    #[arg(long, value_delimiter = ',', value_parser = pair::<usize>, value_name = "NAME=RANK")]
    rank_pattern: Vec<(String, usize)>,
    /// Alphas for particular linears
    #[arg(long, value_delimiter = ',', value_parser = pair::<f64>, value_name = "NAME=ALPHA")]
    alpha_pattern: Vec<(String, f64)>,
    /// Layers whose linears are adapted [default: all]
    #[arg(long, value_delimiter = ',')]
    layers: Vec<usize>,
    /// Biases that also train [default: none]
    #[arg(long, value_parser = named([("none", Bias::None), ("lora-only", Bias::LoraOnly), ("all", Bias::All)]))]
    bias: Option<Bias>,
    /// Further modules that train in full, by the end of their names
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    modules_to_save: Vec<String>,
    /// Dropout on the input of each term [default: 0.1]
    #[arg(long)]
    lora_dropout: Option<f64>,
    /// Initial A: kaiming as in PEFT, gaussian as in the paper [default: kaiming]
    #[arg(long, value_parser = named([("kaiming", Init::Kaiming), ("gaussian", Init::Gaussian)]))]
    lora_init: Option<Init>,
    /// LoRA+: the learning rate of B and of vectors is multiplied by this; its authors advise 16 [default: 1]
    #[arg(long, value_name = "RATIO")]
    lora_plus_ratio: Option<f64>,
}

/// Names of [`Method`].
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodName {
    /// Low-rank terms on frozen linears, and the head
    Lora,
    /// Low-rank terms scaled by alpha / √rank
    Rslora,
    /// Low-rank terms, and a trained length for each row of the weights
    Dora,
    /// Low-rank terms; each step trains only the first ranks, up to a random one: one adapter for all ranks
    Dylora,
    /// Low-rank terms with a frozen A
    LoraFa,
    /// Only the classifier
    Head,
    /// All weights
    Full,
    /// The head and the upper layers
    Selective,
    /// All biases, and the head
    Bitfit,
    /// A small network after each sublayer, layer norms, and the head (Houlsby)
    Adapter,
    /// A small network after each feed-forward block, and the head (Pfeiffer)
    AdapterPfeiffer,
    /// Trained keys and values in each attention, and the head
    Prefix,
    /// Trained embeddings before each text, and the head
    Prompt,
    /// The layers' weights in a random subspace, and the head
    Intrinsic,
}

/// Parses one of a few names of values.
fn named<T: Clone + Send + Sync + 'static, const N: usize>(values: [(&'static str, T); N]) -> impl TypedValueParser<Value = T> {
    let names = values.each_ref().map(|(name, _)| *name);
    PossibleValuesParser::new(names)
        .try_map(move |text| values.iter().find(|(name, _)| *name == text).map(|(_, value)| value.clone()).ok_or("an unknown value"))
}

/// Parses `name=value`.
fn pair<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> std::result::Result<(String, T), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_string(), value.parse().map_err(|e: T::Err| format!("{value:?}: {e}"))?))
}

/// The methods with low-rank terms.
const LOW_RANK: &[MethodName] = &[MethodName::Lora, MethodName::Rslora, MethodName::Dora, MethodName::Dylora, MethodName::LoraFa];

fn name(method: MethodName) -> String {
    method.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
}

impl MethodArgs {
    /// A new optimizer for `model`, which has the method.
    ///
    /// # Errors
    /// If LoRA+ is asked for, and the model has no low-rank term.
    pub fn optimizer(&self, recipe: &Recipe, model: &DistilBert) -> Result<AdamW> {
        let mut optimizer = AdamW::of(recipe);
        if self.lora_plus_ratio() != 1.0 {
            optimizer.lr_factor = lora_plus(&model.parameters(), self.lora_plus_ratio())?;
        }
        Ok(optimizer)
    }

    /// The options of methods: name, whether it was given, and the methods that use it.
    fn given(&self) -> [(&'static str, bool, &'static [MethodName]); 18] {
        use MethodName::{Adapter, AdapterPfeiffer, Head, Intrinsic, Prefix, Prompt, Selective};
        [
            ("train-pre-classifier", self.train_pre_classifier, &[Head]),
            ("frozen-layers", self.frozen_layers.is_some(), &[Selective]),
            ("adapter-size", self.adapter_size.is_some(), &[Adapter, AdapterPfeiffer]),
            ("virtual-tokens", self.virtual_tokens.is_some(), &[Prefix, Prompt]),
            ("dimension", self.dimension.is_some(), &[Intrinsic]),
            ("targets", !self.targets.is_empty(), LOW_RANK),
            ("target-pattern", self.target_pattern.is_some(), LOW_RANK),
            ("rank", self.rank.is_some(), LOW_RANK),
            ("alpha", self.alpha.is_some(), LOW_RANK),
            ("rslora", self.rslora, LOW_RANK),
            ("rank-pattern", !self.rank_pattern.is_empty(), LOW_RANK),
            ("alpha-pattern", !self.alpha_pattern.is_empty(), LOW_RANK),
            ("layers", !self.layers.is_empty(), LOW_RANK),
            ("bias", self.bias.is_some(), LOW_RANK),
            ("modules-to-save", !self.modules_to_save.is_empty(), LOW_RANK),
            ("lora-dropout", self.lora_dropout.is_some(), LOW_RANK),
            ("lora-init", self.lora_init.is_some(), LOW_RANK),
            ("lora-plus-ratio", self.lora_plus_ratio.is_some(), LOW_RANK),
        ]
    }

    /// Whether the arguments choose a method: one that is not the default, or an option of a method. `--lora-plus-ratio` does not count: it changes only
    /// how the method trains.
    pub fn is_given(&self) -> bool {
        self.method != MethodName::Lora || self.given().iter().any(|(name, given, _)| *given && *name != "lora-plus-ratio")
    }

    /// Checks that no option was given that the method does not use.
    ///
    /// # Errors
    /// If there is one; the message lists the methods that use it.
    pub fn check(&self) -> Result<()> {
        let Some((option, _, users)) = self.given().into_iter().find(|(_, given, users)| *given && !users.contains(&self.method)) else {
            return Ok(());
        };
        let (own, users) = (name(self.method), users.iter().map(|&user| name(user)).collect::<Vec<_>>().join(", "));
        let advice = format!("leave it out, or choose a method that uses it ({users})");
        Err(Error::invalid(format!("--{option} is not used by --method {own}: {advice}")))
    }

    /// The factor for the learning rate of B.
    pub fn lora_plus_ratio(&self) -> f64 {
        self.lora_plus_ratio.unwrap_or(1.0)
    }

    fn rank(&self) -> usize {
        self.rank.unwrap_or(8)
    }

    /// Default learning rate of a method.
    pub fn learning_rate(method: &Method) -> f64 {
        match method {
            Method::Lora(_) => 3e-4,
            Method::Full | Method::Selective { .. } => 2e-5,
            Method::Head { .. } | Method::BitFit | Method::Bottleneck { .. } => 1e-3,
            Method::Prefix { .. } | Method::Prompt { .. } | Method::Intrinsic { .. } => 1e-2,
        }
    }

    /// dylora: the highest of the ranks that are drawn in training.
    ///
    /// # Errors
    /// For dylora with `--rslora`.
    pub fn nested_rank(&self) -> Result<Option<usize>> {
        match self.method {
            MethodName::Dylora if self.rslora => Err(Error::invalid("dylora scales by alpha / rank: it does not go with --rslora")),
            MethodName::Dylora => Ok(Some(self.rank_pattern.iter().map(|&(_, rank)| rank).fold(self.rank(), usize::max))),
            _ => Ok(None),
        }
    }

    fn lora(&self, architecture: Architecture) -> LoraConfig {
        let targets: Vec<&str> = match self.target_pattern {
            Some(_) => Vec::new(),
            None if self.targets.is_empty() => architecture.default_targets().into(),
            None => self.targets.iter().map(String::as_str).collect(),
        };
        LoraConfig {
            alpha: self.alpha.unwrap_or(2.0 * self.rank() as f64),
            dropout: self.lora_dropout.unwrap_or(0.1),
            target_pattern: self.target_pattern.clone(),
            init: self.lora_init.unwrap_or(Init::Kaiming),
            rank_stabilised: self.rslora || self.method == MethodName::Rslora,
            dora: self.method == MethodName::Dora,
            freeze_a: self.method == MethodName::LoraFa,
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            layers: self.layers.clone(),
            bias: self.bias.unwrap_or(Bias::None),
            modules_to_save: self.modules_to_save.clone(),
            ..LoraConfig::new(self.rank(), &targets)
        }
    }

    /// The method for a model of `architecture`. `seed` determines the random subspace of intrinsic.
    pub fn method(&self, architecture: Architecture, seed: u64) -> Method {
        match self.method {
            MethodName::Lora | MethodName::Rslora | MethodName::Dora | MethodName::Dylora | MethodName::LoraFa => {
                Method::Lora(self.lora(architecture))
            }
            MethodName::Head => Method::Head { pre_classifier: self.train_pre_classifier },
            MethodName::Full => Method::Full,
            MethodName::Selective => Method::Selective { frozen_layers: self.frozen_layers.unwrap_or(4) },
            MethodName::Bitfit => Method::BitFit,
            MethodName::Adapter => Method::Bottleneck { size: self.adapter_size.unwrap_or(64), placement: Placement::Houlsby },
            MethodName::AdapterPfeiffer => Method::Bottleneck { size: self.adapter_size.unwrap_or(64), placement: Placement::Pfeiffer },
            MethodName::Prefix => Method::Prefix { tokens: self.virtual_tokens.unwrap_or(20) },
            MethodName::Prompt => Method::Prompt { tokens: self.virtual_tokens.unwrap_or(20) },
            MethodName::Intrinsic => Method::Intrinsic { dimension: self.dimension.unwrap_or(1000), seed },
        }
    }
}
