//! What a low-rank adapter is: ranks, scales, and the linears that get one.

use super::method::layer;
use super::pattern::{ends, named, whole, within};
use crate::tensor::safetensors::nearest;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What trains in full with every adapter of a sequence classifier. `pre_classifier` ends like it.
pub(super) const HEAD: [&str; 2] = ["classifier", "score"];

/// A list of layers: what a model keeps no tensors of, and PEFT cannot save.
const LIST_OF_LAYERS: &str = "distilbert.transformer.layer";

/// How A starts; B is zero, so that training starts at the base exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Init {
    /// U(−1/√in, 1/√in): PEFT's default (`kaiming_uniform` with a = √5), what the study's code ran.
    #[default]
    Kaiming,
    /// N(0, (1/r)²): PEFT's option of that name, and what the study's text says.
    Gaussian,
}

/// Biases that train beside the low-rank terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Ranks of single linears, by name, end of a name, or a regular expression of either; of those that match, the first holds, as in
    /// PEFT's files.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of single linears, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Layers whose linears are adapted; all if there are none. A target that is a whole name is adapted in any layer.
    pub layers: Vec<usize>,
    /// Names of linears that are not adapted though a target names them: a whole name, or its end after a dot.
    pub exclude: Vec<String>,
    /// The same as a regular expression of whole names.
    pub exclude_pattern: Option<String>,
    /// Biases that train.
    pub bias: Bias,
    /// Modules that train in full beside the head, by the end of their names: single ones, or such that hold others. What is in one of them
    /// is not adapted.
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

    /// The same with another alpha: the scale of a term is alpha / r.
    pub fn alpha(self, alpha: f64) -> LoraConfig {
        LoraConfig { alpha, ..self }
    }

    /// The same with another dropout probability of a term's input, in [0, 1).
    pub fn dropout(self, dropout: f64) -> LoraConfig {
        LoraConfig { dropout, ..self }
    }

    /// Rank and scale of the term of linear `name`.
    pub fn term_of(&self, name: &str) -> (usize, f64) {
        let says = |key: &str| ends(name, key).unwrap_or(false);
        let rank = self.rank_pattern.iter().find(|(key, _)| says(key)).map_or(self.rank, |(_, rank)| *rank);
        let alpha = self.alpha_pattern.iter().find(|(key, _)| says(key)).map_or(self.alpha, |(_, alpha)| *alpha);
        (rank, alpha / if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 })
    }

    /// Whether linear `name` gets a term. False also where a pattern is wrong: applying a configuration reports that.
    pub fn adapts(&self, name: &str) -> bool {
        self.matches(name).unwrap_or(false)
    }

    fn matches(&self, name: &str) -> Result<bool> {
        let saved = self.modules_to_save.iter().map(String::as_str).chain(HEAD);
        for module in saved {
            if within(name, module)? {
                return Ok(false);
            }
        }
        if self.exclude.iter().any(|end| named(name, end)) {
            return Ok(false);
        }
        if let Some(pattern) = &self.exclude_pattern
            && whole(name, pattern)?
        {
            return Ok(false);
        }
        if let Some(pattern) = &self.target_pattern {
            return whole(name, pattern);
        }
        let in_layers = || self.layers.is_empty() || layer(name).is_some_and(|layer| self.layers.contains(&layer));
        Ok(self.targets.iter().any(|target| name == target) || (self.targets.iter().any(|target| named(name, target)) && in_layers()))
    }

    /// Whether the weight `name` trains in full because its module, or one that holds it, is to be saved.
    pub(super) fn saves(&self, name: &str) -> bool {
        saved_by(name, &self.modules_to_save)
    }

    /// Takes out what names nothing of the model, and says what: PEFT skips it in a file. What a training is to do must all be there.
    ///
    /// # Errors
    /// If a pattern is wrong.
    pub(super) fn skip_unmatched(&mut self, linears: &[String], weights: &[String]) -> Result<Vec<String>> {
        self.check_patterns(linears)?;
        let adapted: Vec<&String> = linears.iter().filter(|name| self.adapts(name)).collect();
        let mut skipped = Vec::new();
        if adapted.is_empty() {
            return Ok(skipped);
        }
        let mut known = |key: &str, name: &str, known: bool| {
            if !known {
                skipped.push(format!("{key}: {name} names nothing that is adapted in this model; it is skipped, as PEFT does"));
            }
            known
        };
        let matched = |key: &str| adapted.iter().any(|name| ends(name, key).unwrap_or(false));
        self.targets.retain(|target| known("target_modules", target, adapted.iter().any(|name| named(name, target))));
        self.rank_pattern.retain(|(key, _)| known("rank_pattern", key, matched(key)));
        self.alpha_pattern.retain(|(key, _)| known("alpha_pattern", key, matched(key)));
        self.layers.retain(|&l| known("layers_to_transform", &l.to_string(), adapted.iter().any(|name| layer(name) == Some(l))));
        self.modules_to_save.retain(|end| known("modules_to_save", end, saves_any(end, weights)));
        Ok(skipped)
    }

    /// Tries every pattern on every linear.
    fn check_patterns(&self, linears: &[String]) -> Result<()> {
        for name in linears {
            self.matches(name)?;
            for key in self.patterns() {
                ends(name, key)?;
            }
        }
        Ok(())
    }

    fn patterns(&self) -> impl Iterator<Item = &str> {
        let ranks = self.rank_pattern.iter().map(|(key, _)| key.as_str());
        ranks.chain(self.alpha_pattern.iter().map(|(key, _)| key.as_str()))
    }

    fn check_numbers(&self) -> Result<()> {
        if self.rank == 0 || self.rank_pattern.iter().any(|&(_, rank)| rank == 0) {
            return Err(Error::invalid("lora: the rank must be at least 1"));
        }
        let mut alphas = self.alpha_pattern.iter().map(|&(_, alpha)| alpha).chain([self.alpha]);
        if !(0.0..1.0).contains(&self.dropout) || !alphas.all(f64::is_finite) {
            return Err(Error::invalid("lora: dropout must lie in [0, 1) and alpha be finite"));
        }
        if self.target_pattern.is_some() && !self.layers.is_empty() {
            return Err(Error::invalid("lora: layers go with target names: a target pattern says itself which layers it means"));
        }
        Ok(())
    }

    /// Checks that every name names something: of `linears`, or of all `weights`.
    pub(super) fn check(&self, linears: &[String], weights: &[String]) -> Result<()> {
        self.check_numbers()?;
        self.check_patterns(linears)?;
        let adapted: Vec<&String> = linears.iter().filter(|name| self.adapts(name)).collect();
        let unmatched = |what: &str, name: &str| {
            // What is there, but left out by another setting, is not reported as missing.
            if linears.iter().any(|linear| ends(linear, name).unwrap_or(false)) {
                let problem = "names linears that get no term: targets, excluded and saved modules, or layers leave them out";
                return Err(Error::invalid(format!("lora: the {what} {name:?} {problem}")));
            }
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
        if let Some(key) = self.patterns().find(|key| !adapted.iter().any(|name| ends(name, key).unwrap_or(false))) {
            return unmatched("rank or alpha pattern", key);
        }
        let twice = |keys: Vec<&String>| (1..keys.len()).find(|&i| keys[..i].contains(&keys[i])).map(|i| keys[i].clone());
        let (ranks, alphas) =
            (self.rank_pattern.iter().map(|(key, _)| key).collect(), self.alpha_pattern.iter().map(|(key, _)| key).collect());
        if let Some(key) = twice(ranks).or_else(|| twice(alphas)) {
            return Err(Error::invalid(format!("lora: the rank or alpha pattern {key:?} is given twice")));
        }
        if let Some(layer) = self.layers.iter().find(|&&l| !adapted.iter().any(|name| layer(name) == Some(l))) {
            return Err(Error::invalid(format!("lora: layer {layer} has no linear that a target names")));
        }
        if let Some(module) = self.modules_to_save.iter().find(|end| !saves_any(end, weights)) {
            let near = nearest_of(module, weights.iter().filter_map(|n| n.rsplit('.').nth(1)));
            return Err(Error::invalid(format!("lora: no module of the model is named {module:?}; the nearest names are {near}")));
        }
        Ok(())
    }
}

/// Whether a module that the weight `name` is in ends with one of these letters: PEFT does not ask for a dot before them.
fn saved_by(name: &str, ends: &[String]) -> bool {
    let mut modules = name.match_indices('.').map(|(dot, _)| &name[..dot]).filter(|module| *module != LIST_OF_LAYERS);
    modules.any(|module| ends.iter().any(|end| !end.is_empty() && module.ends_with(end.as_str())))
}

fn saves_any(end: &str, weights: &[String]) -> bool {
    weights.iter().any(|name| saved_by(name, &[end.to_string()]))
}

/// The three names that are most like `name`, for a message.
fn nearest_of<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let different: BTreeSet<&str> = names.collect();
    nearest(name, different.into_iter(), 3).join(", ")
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
