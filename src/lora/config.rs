//! What a LoRA adapter is: ranks, scales, and the linears that get a term.
//!
//! Names are matched as in PEFT (`pattern.rs`), which has other rules for other fields. A name is, for example,
//! `distilbert.transformer.layer.1.attention.q_lin`.
//!
//! | field | what it matches | function |
//! |---|---|---|
//! | `targets`, `exclude` | the whole name of a linear, or its end after a dot | `named`; `is_target` adds `all-linear` |
//! | `target_pattern`, `exclude_pattern` | the whole name, as a regular expression | `whole` |
//! | a key of `rank_pattern` or `alpha_pattern` | the whole name or its end after a dot, as a regular expression | `ends` |
//! | `modules_to_save` | a module; the linears inside get no term, and its weights train | `within`, `saved_by` |

use super::pattern::{ends, is_target, layer, named, saved_by, whole, within};
use crate::Result;
use serde::{Deserialize, Serialize};

/// Modules that train in full with every adapter of a sequence classifier, as PEFT names them. `score` is the head's name in other models.
/// PEFT has two rules. It trains each module whose name ends with these letters, so `pre_classifier`, too. It bars low-rank terms only
/// inside modules of exactly these names (`within`), so `pre_classifier` may have one.
pub(super) const HEAD: [&str; 2] = ["classifier", "score"];

/// How A starts. B starts at zero, so that training starts exactly at the base.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Init {
    /// U(−1/√in, 1/√in): PEFT's default (`kaiming_uniform` with a = √5).
    #[default]
    Kaiming,
    /// N(0, (1/r)²): PEFT's option `gaussian`.
    Gaussian,
}

/// Biases that train besides the low-rank terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Bias {
    /// Only those of the head.
    #[default]
    None,
    /// Those of the adapted linears.
    LoraOnly,
    /// All, layer norms included.
    All,
}

/// A LoRA configuration: y = x Wᵀ + b + s · drop(x) Aᵀ Bᵀ for the chosen linears. Hu et al. 2021, <https://arxiv.org/abs/2106.09685>,
/// equation 3.
///
/// Before it is applied to a model, `ranges.rs` checks its numbers, and `names.rs` that each of its names is in the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank r: A is `[r, in]`, B is `[out, r]`. From 1 to 4096.
    pub rank: usize,
    /// The scale is s = alpha / r, or alpha / √r if `rank_stabilised`.
    pub alpha: f64,
    /// Probability of dropping an element of x in a term, in [0, 1).
    pub dropout: f64,
    /// Names of the adapted linears: whole names, or ends of names after a dot, or `all-linear` for the six linears of every layer.
    /// `layers` restricts ends of names and `all-linear` to some layers.
    pub targets: Vec<String>,
    /// A regular expression for the whole names of the adapted linears. It replaces `targets`.
    pub target_pattern: Option<String>,
    /// How A starts.
    pub init: Init,
    /// Whether the scale is s = alpha / √r. Kalajdzievski 2023, <https://arxiv.org/abs/2312.03732>, equation 4.
    pub rank_stabilised: bool,
    /// Train the length of each row of W + s B A apart from its direction. Liu et al. 2024, <https://arxiv.org/abs/2402.09353>, equation 5.
    pub dora: bool,
    /// Leave A as it starts, and train B only (LoRA-FA). Zhang et al. 2023, <https://arxiv.org/abs/2308.03303>, equation 3.
    pub freeze_a: bool,
    /// Other ranks for single linears. A key is a name, the end of a name, or a regular expression of either. The first key that matches
    /// decides, as in PEFT's files.
    pub rank_pattern: Vec<(String, usize)>,
    /// Other alphas for single linears, with the same kind of keys.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Layers in which a target that is the end of a name is adapted; empty: all layers. A target that is a whole name is always adapted.
    pub layers: Vec<usize>,
    /// Linears that are not adapted even if they are targets: whole names, or ends of names after a dot.
    pub exclude: Vec<String>,
    /// The same as a regular expression of whole names.
    pub exclude_pattern: Option<String>,
    /// Biases that train.
    pub bias: Bias,
    /// Modules that train in full besides the head, by the ends of their names. A module may hold others. Linears inside get no term.
    pub modules_to_save: Vec<String>,
}

impl Default for LoraConfig {
    /// Rank 8 on `q_lin` and `v_lin`, PEFT's choice for DistilBERT. For BERT it is `query` and `value`.
    fn default() -> LoraConfig {
        LoraConfig::new(8, &["q_lin", "v_lin"])
    }
}

impl LoraConfig {
    /// Rank r on `targets`, with alpha = 2r and dropout 0.1. `all-linear` stands for the six linears of every layer.
    pub fn new(rank: usize, targets: &[&str]) -> LoraConfig {
        LoraConfig {
            rank,
            alpha: 2.0 * rank as f64,
            dropout: 0.1,
            targets: targets.iter().map(|target| target.to_string()).collect(),
            target_pattern: None,
            init: Init::Kaiming,
            rank_stabilised: false,
            dora: false,
            freeze_a: false,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            layers: Vec::new(),
            exclude: Vec::new(),
            exclude_pattern: None,
            bias: Bias::None,
            modules_to_save: Vec::new(),
        }
    }

    /// The same with another alpha.
    pub fn alpha(self, alpha: f64) -> LoraConfig {
        LoraConfig { alpha, ..self }
    }

    /// The same with another dropout probability of a term's input, in [0, 1).
    pub fn dropout(self, dropout: f64) -> LoraConfig {
        LoraConfig { dropout, ..self }
    }

    /// Rank r and scale s of the term of linear `name`.
    pub fn term_of(&self, name: &str) -> (usize, f64) {
        let matches = |key: &str| ends(name, key).unwrap_or(false);
        let rank = self.rank_pattern.iter().find(|(key, _)| matches(key)).map_or(self.rank, |(_, rank)| *rank);
        let alpha = self.alpha_pattern.iter().find(|(key, _)| matches(key)).map_or(self.alpha, |(_, alpha)| *alpha);
        (rank, alpha / if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 })
    }

    /// Whether linear `name` gets a term. Also false if a pattern is wrong, which [`super::adapt`] reports.
    pub fn adapts(&self, name: &str) -> bool {
        self.matches(name).unwrap_or(false)
    }

    /// [`LoraConfig::adapts`], or the error of a wrong pattern. A linear gets a term if the target pattern matches it, or one of `targets`
    /// names it (by its whole name, or in one of `layers`), and nothing bars it: a saved module that it is inside of, the head, or
    /// `exclude`.
    pub(super) fn matches(&self, name: &str) -> Result<bool> {
        for module in self.modules_to_save.iter().map(String::as_str).chain(HEAD) {
            if within(name, module)? {
                return Ok(false);
            }
        }
        let excluded = self.exclude_pattern.as_ref().map(|pattern| whole(name, pattern)).transpose()?;
        if excluded == Some(true) || self.exclude.iter().any(|end| named(name, end)) {
            return Ok(false);
        }
        if let Some(pattern) = &self.target_pattern {
            return whole(name, pattern);
        }
        let in_layers = self.layers.is_empty() || layer(name).is_some_and(|layer| self.layers.contains(&layer));
        Ok(self.targets.iter().any(|target| name == target || (is_target(name, target) && in_layers)))
    }

    /// Whether weight `name` trains in full, because it is inside a module to save.
    pub(super) fn saves(&self, name: &str) -> bool {
        self.modules_to_save.iter().any(|end| saved_by(name, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn linears_are_adapted_as_in_peft() {
        let [q, lin] = ["distilbert.transformer.layer.1.attention.q_lin", "distilbert.transformer.layer.0.ffn.lin1"];
        let config = LoraConfig::new(2, &["q_lin", "lin1", "classifier"]);
        assert!(config.adapts(q) && config.adapts(lin) && !config.adapts("classifier"), "the classifier trains in full");
        assert!(!LoraConfig { exclude: names(&["layer.1.attention.q_lin"]), ..config.clone() }.adapts(q));
        assert!(LoraConfig { exclude: names(&["layer.0.attention.q_lin"]), ..config.clone() }.adapts(q));
        assert!(!LoraConfig { modules_to_save: names(&["attention"]), ..config.clone() }.adapts(q));
        assert!(!LoraConfig { layers: vec![0], ..config.clone() }.adapts(q) && LoraConfig { layers: vec![1], ..config.clone() }.adapts(q));
        assert!(LoraConfig { layers: vec![0], targets: names(&[q]), ..config.clone() }.adapts(q), "a whole name is adapted in any layer");
        #[cfg(feature = "regex")]
        {
            let excluding = |pattern: &str| LoraConfig { exclude_pattern: Some(pattern.into()), ..config.clone() };
            assert!(!excluding(r".*layer\.1\..*").adapts(q) && excluding(r"layer\.1").adapts(q));
            let pattern = |pattern: &str| LoraConfig { target_pattern: Some(pattern.to_string()), ..LoraConfig::new(2, &[]) };
            let linears = names(&[q, lin]);
            assert!(pattern(r".*\.(q|v)_lin").check(&linears, &[]).is_ok());
            assert!(pattern("(").check(&linears, &[]).is_err_and(|e| e.to_string().contains("pattern \"(\"")));
            assert!(pattern("x.*").check(&linears, &[]).is_err_and(|e| e.to_string().contains("nearest")));
            let both = LoraConfig { layers: vec![1], ..pattern(".*q_lin") };
            assert!(both.check(&linears, &[]).is_err_and(|e| e.to_string().contains("layers go with target names")));
        }
    }

    #[test]
    fn modules_are_saved_with_all_that_they_hold() {
        let saves = |end: &str, name: &str| LoraConfig { modules_to_save: names(&[end]), ..LoraConfig::default() }.saves(name);
        let lin = "distilbert.transformer.layer.1.ffn.lin1.weight";
        assert!(["lin1", "ffn", "layer.1", "transformer", "distilbert", "1"].iter().all(|end| saves(end, lin)));
        assert!(["lin2", "layer.0", "transformer.layer", "layer", "ffn.lin", "", "weight"].iter().all(|end| !saves(end, lin)));
    }

    #[test]
    fn the_first_pattern_that_matches_holds() {
        let patterns = vec![("lin1".to_string(), 3.0), ("layer.1.ffn.lin1".to_string(), 5.0)];
        let config = LoraConfig { alpha_pattern: patterns.clone(), ..LoraConfig::new(1, &["lin1"]) };
        assert_eq!(config.term_of("distilbert.transformer.layer.1.ffn.lin1"), (1, 3.0));
        let config = LoraConfig { alpha_pattern: patterns.into_iter().rev().collect(), ..config };
        assert_eq!(config.term_of("distilbert.transformer.layer.1.ffn.lin1"), (1, 5.0));
    }
}
