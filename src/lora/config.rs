//! What a low-rank adapter is: ranks, scales, and the linears that get one.

use super::method::layer;
use crate::tensor::safetensors::nearest;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// How A starts; B is zero, so that training starts at the base exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Init {
    /// U(−1/√in, 1/√in): PEFT's default (`kaiming_uniform` with a = √5), what the study's code ran.
    #[default]
    Kaiming,
    /// N(0, (1/r)²): PEFT's option of that name, and what the study's text says.
    Gaussian,
}

/// Biases that train beside the low-rank terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bias {
    /// None but the head's.
    #[default]
    None,
    /// Those of the adapted linears.
    LoraOnly,
    /// All, layer norms' included.
    All,
}

/// A LoRA configuration. Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, equation 3.
#[derive(Clone, Debug, Default)]
pub struct LoraConfig {
    /// Rank r.
    pub rank: usize,
    /// Scale of the term is alpha / r.
    pub alpha: f64,
    /// Probability of dropping an element of a term's input, in [0, 1).
    pub dropout: f64,
    /// Names of the adapted linears: a whole name, or its end after a dot.
    pub targets: Vec<String>,
    /// The adapted linears as a regular expression of whole names, in place of `targets`.
    pub target_pattern: Option<String>,
    /// How A starts.
    pub init: Init,
    /// Scale alpha / √r in place of alpha / r. Kalajdzievski 2023, <https://arxiv.org/abs/2312.03732>, equation 4.
    pub rank_stabilised: bool,
    /// Learn the length of each row of W + s B A apart from its direction. Liu et al. 2024, <https://arxiv.org/abs/2402.09353>, equation 5.
    pub dora: bool,
    /// Leave A as it starts and train B alone (LoRA-FA). Zhang et al. 2023, <https://arxiv.org/abs/2308.03303>, equation 3.
    pub freeze_a: bool,
    /// Ranks of single linears, by name, end of a name, or a regular expression of either; of those that match, the first in alphabetical
    /// order holds, as in PEFT's files.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single linears, likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Layers whose linears are adapted; all if there are none.
    pub layers: Vec<usize>,
    /// Biases that train.
    pub bias: Bias,
    /// Modules that train in full beside the head, by the end of their names.
    pub modules_to_save: Vec<String>,
}

/// The linears of a layer, by the ends of their names.
const BLOCK_LINEARS: [&str; 6] = ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"];

impl LoraConfig {
    /// The study's recipe at rank `r`: alpha = 2r, dropout 0.1. `all-linear` stands for the six linears of a layer.
    pub fn new(rank: usize, targets: &[&str]) -> LoraConfig {
        let mut all = Vec::new();
        for target in targets {
            match *target {
                "all-linear" => all.extend(BLOCK_LINEARS.map(String::from)),
                other => all.push(other.to_string()),
            }
        }
        LoraConfig { rank, alpha: 2.0 * rank as f64, dropout: 0.1, targets: all, ..LoraConfig::default() }
    }

    /// Rank and scale of the term of linear `name`.
    pub fn term_of(&self, name: &str) -> (usize, f64) {
        let rank = self.rank_pattern.iter().find(|(end, _)| ends(name, end)).map_or(self.rank, |(_, &rank)| rank);
        let alpha = self.alpha_pattern.iter().find(|(end, _)| ends(name, end)).map_or(self.alpha, |(_, &alpha)| alpha);
        (rank, alpha / if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 })
    }

    /// Whether linear `name` gets a term.
    pub fn adapts(&self, name: &str) -> bool {
        let targeted = match &self.target_pattern {
            Some(pattern) => regex(pattern).is_ok_and(|regex| regex.is_match(name)),
            None => self.targets.iter().any(|target| named(name, target)),
        };
        targeted && (self.layers.is_empty() || layer(name).is_some_and(|layer| self.layers.contains(&layer)))
    }

    /// Whether the weight `name` trains in full because its module is to be saved.
    pub(super) fn saves(&self, name: &str) -> bool {
        let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
        self.modules_to_save.iter().any(|end| module.ends_with(end.as_str()))
    }

    /// Checks that every name names something: of `linears`, or of all `weights`.
    pub(super) fn check(&self, linears: &[String], weights: &[String]) -> Result<()> {
        let patterns = || self.rank_pattern.keys().chain(self.alpha_pattern.keys());
        self.target_pattern.iter().chain(patterns().filter(|p| is_regex(p))).try_for_each(|p| regex(p).map(|_| ()))?;

        let adapted: Vec<&String> = linears.iter().filter(|name| self.adapts(name)).collect();
        let unmatched = |what: &str, name: &str| {
            let near = nearest_of(name, linears.iter().map(|n| n.rsplit('.').next().unwrap_or(n)));
            let of = if self.layers.is_empty() { "" } else { " in these layers" };
            Err(Error::invalid(format!("lora: the {what} {name:?} names no linear of the model{of}; the nearest names are {near}")))
        };
        if let (Some(pattern), true) = (&self.target_pattern, adapted.is_empty()) {
            return unmatched("target pattern", pattern);
        }
        let targets = if self.target_pattern.is_some() { &[][..] } else { &self.targets };
        if let Some(target) = targets.iter().find(|target| !adapted.iter().any(|name| named(name, target))) {
            return unmatched("target", target);
        }
        if let Some(pattern) = patterns().find(|pattern| !adapted.iter().any(|name| ends(name, pattern))) {
            return unmatched("rank or alpha pattern", pattern);
        }
        if let Some(layer) = self.layers.iter().find(|&&l| !adapted.iter().any(|name| layer(name) == Some(l))) {
            return Err(Error::invalid(format!("lora: layer {layer} has no linear that a target names")));
        }
        for module in &self.modules_to_save {
            let only = LoraConfig { modules_to_save: vec![module.clone()], ..LoraConfig::default() };
            if !weights.iter().any(|name| only.saves(name)) {
                let near = nearest_of(module, weights.iter().filter_map(|n| n.rsplit('.').nth(1)));
                return Err(Error::invalid(format!("lora: no module of the model is named {module:?}; the nearest names are {near}")));
            }
        }
        Ok(())
    }
}

/// The three names that are most like `name`, for a message.
fn nearest_of<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let different: BTreeSet<&str> = names.collect();
    nearest(name, different.into_iter(), 3).join(", ")
}

/// Whether `end` is the name or its end after a dot.
fn named(name: &str, end: &str) -> bool {
    name == end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether the name, or its end after a dot, is what `pattern` says. A dot stands for itself in a pattern that is no regular expression else.
fn ends(name: &str, pattern: &str) -> bool {
    named(name, pattern) || (is_regex(pattern) && regex(&format!("(.*\\.)?({pattern})")).is_ok_and(|regex| regex.is_match(name)))
}

/// Whether it is more than a name with dots.
fn is_regex(pattern: &str) -> bool {
    pattern.contains(['^', '$', '*', '+', '?', '(', '[', '{', '|', '\\'])
}

/// A regular expression that matches whole names.
#[cfg(feature = "regex")]
fn regex(pattern: &str) -> Result<regex_lite::Regex> {
    regex_lite::Regex::new(&format!("^(?:{pattern})$")).map_err(|e| Error::invalid(format!("lora: the pattern {pattern:?}: {e}")))
}

#[cfg(not(feature = "regex"))]
fn regex(pattern: &str) -> Result<NoRegex> {
    Err(Error::invalid(format!("lora: {pattern:?} is a regular expression, and this build has none: build with the feature `regex`")))
}

#[cfg(not(feature = "regex"))]
enum NoRegex {}

#[cfg(not(feature = "regex"))]
impl NoRegex {
    fn is_match(&self, _: &str) -> bool {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_in_peft() {
        let q = "distilbert.transformer.layer.1.attention.q_lin";
        assert!(named(q, "q_lin") && named(q, q) && named(q, "attention.q_lin") && !named(q, "lin") && !named(q, "k_lin"));
        assert!(ends(q, "layer.1.attention.q_lin") && !ends(q, "layer.2.attention.q_lin"));
        let config = |pattern: &str| LoraConfig { target_pattern: Some(pattern.to_string()), ..LoraConfig::new(2, &[]) };
        let linears: Vec<String> = ["q_lin", "k_lin", "v_lin"].map(|n| format!("distilbert.transformer.layer.1.attention.{n}")).into();
        #[cfg(feature = "regex")]
        {
            // A part of a name is no match, as `re.fullmatch` has it.
            assert!(config(r".*\.(q|v)_lin").adapts(q) && !config("q_lin").adapts(q) && !config(".*k_lin").adapts(q));
            assert!(ends(q, r"layer\.[01]\.attention\.q_lin") && ends(q, "[qv]_lin") && !ends(q, "[kv]_lin") && !ends(q, "_li[mn]"));
            assert!(config(r".*\.(q|v)_lin").check(&linears, &[]).is_ok());
            assert!(config("(").check(&linears, &[]).is_err_and(|e| e.to_string().contains("pattern \"(\"")));
            assert!(config("x.*").check(&linears, &[]).is_err_and(|e| e.to_string().contains("nearest")));
        }
        #[cfg(not(feature = "regex"))]
        assert!(config(".*q_lin").check(&linears, &[]).is_err_and(|e| e.to_string().contains("feature")));
    }
}
