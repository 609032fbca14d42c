//! Checks that every name in a LoRA configuration names something in the model.

use super::LoraConfig;
use super::pattern::{ends, is_target, layer, saved_by};
use crate::error::nearest;
use crate::nn::DistilBert;
use crate::{Error, Result};
use std::collections::BTreeSet;

/// The names of the linears, and of all weights of the checkpoint.
pub(super) fn names_in(model: &mut DistilBert) -> (Vec<String>, Vec<String>) {
    let linears = model.linears_mut().iter().map(|linear| linear.name.clone()).collect();
    (linears, model.weights().iter().map(|weight| weight.name().to_string()).collect())
}

/// The names in a model that a configuration can mean.
struct Known<'a> {
    /// The linears that get a term.
    adapted: Vec<&'a String>,
    /// All weights.
    weights: &'a [String],
}

impl Known<'_> {
    fn target(&self, target: &str) -> bool {
        self.adapted.iter().any(|name| is_target(name, target))
    }

    fn pattern(&self, key: &str) -> bool {
        self.adapted.iter().any(|name| ends(name, key).unwrap_or(false))
    }

    fn layer(&self, number: usize) -> bool {
        self.adapted.iter().any(|name| layer(name) == Some(number))
    }

    fn module(&self, end: &str) -> bool {
        self.weights.iter().any(|name| saved_by(name, end))
    }
}

impl LoraConfig {
    /// Tries every pattern on every linear. `linears` and `weights` are all names of the model.
    fn known<'a>(&self, linears: &'a [String], weights: &'a [String]) -> Result<Known<'a>> {
        let mut adapted = Vec::new();
        for name in linears {
            if self.matches(name)? {
                adapted.push(name);
            }
            self.pattern_keys().try_for_each(|(_, key)| ends(name, key).map(|_| ()))?;
        }
        Ok(Known { adapted, weights })
    }

    /// The keys of the two patterns, each with the name of its pattern.
    fn pattern_keys(&self) -> impl Iterator<Item = (&str, &String)> {
        let ranks = self.rank_pattern.iter().map(|(key, _)| ("rank", key));
        ranks.chain(self.alpha_pattern.iter().map(|(key, _)| ("alpha", key)))
    }

    /// Removes the names that are not in the model, and returns a note for each: a file of PEFT may hold such names, and PEFT skips them.
    ///
    /// # Errors
    /// If a pattern is wrong.
    pub(super) fn skip_unmatched(&mut self, linears: &[String], weights: &[String]) -> Result<Vec<String>> {
        let names = self.known(linears, weights)?;
        let mut skipped = Vec::new();
        if names.adapted.is_empty() {
            return Ok(skipped);
        }
        let mut keep = |key: &str, name: &str, known: bool| {
            if !known {
                skipped.push(format!("{key}: {name} names nothing that is adapted in this model; it is skipped, as PEFT does"));
            }
            known
        };
        self.targets.retain(|target| keep("target_modules", target, names.target(target)));
        self.rank_pattern.retain(|(key, _)| keep("rank_pattern", key, names.pattern(key)));
        self.alpha_pattern.retain(|(key, _)| keep("alpha_pattern", key, names.pattern(key)));
        self.layers.retain(|&layer| keep("layers_to_transform", &layer.to_string(), names.layer(layer)));
        self.modules_to_save.retain(|end| keep("modules_to_save", end, names.module(end)));
        Ok(skipped)
    }

    /// Checks that every name is in the model. Training must not ignore a part of its configuration.
    ///
    /// # Errors
    /// If a name is not, or is given twice; the message lists the nearest names.
    pub(super) fn check(&self, linears: &[String], weights: &[String]) -> Result<()> {
        let wrong = |problem: String| Err(Error::invalid(format!("lora: {problem}")));
        if self.target_pattern.is_some() && !self.layers.is_empty() {
            return wrong("layers go with target names: a target pattern says itself which layers it means".into());
        }
        let names = self.known(linears, weights)?;
        let (what, unknown) = match &self.target_pattern {
            Some(pattern) => ("target pattern", names.adapted.is_empty().then_some(pattern)),
            None => ("target", self.targets.iter().find(|target| !names.target(target))),
        };
        if let Some(target) = unknown {
            return wrong(self.unmatched(what, target, linears));
        }
        let mut seen = BTreeSet::new();
        for (of, key) in self.pattern_keys() {
            if !names.pattern(key) {
                return wrong(self.unmatched("rank or alpha pattern", key, linears));
            }
            if !seen.insert((of, key)) {
                return wrong(format!("the rank or alpha pattern {key:?} is given twice"));
            }
        }
        if let Some(layer) = self.layers.iter().find(|&&layer| !names.layer(layer)) {
            return wrong(format!("layer {layer} has no linear that a target names"));
        }
        if let Some(module) = self.modules_to_save.iter().find(|end| !names.module(end)) {
            let near = three_nearest(module, weights.iter().filter_map(|n| n.rsplit('.').nth(1)));
            return wrong(format!("no module of the model is named {module:?}; the nearest names are {near}"));
        }
        Ok(())
    }

    /// The message that `name`, a `what`, means no adapted linear.
    fn unmatched(&self, what: &str, name: &str, linears: &[String]) -> String {
        if linears.iter().any(|linear| ends(linear, name).unwrap_or(false)) {
            let problem = "names linears that get no term: targets, excluded and saved modules, or layers leave them out";
            return format!("the {what} {name:?} {problem}");
        }
        let near = three_nearest(name, linears.iter().map(|n| n.rsplit('.').next().unwrap_or(n)));
        let of = if self.layers.is_empty() { "" } else { " in these layers" };
        format!("the {what} {name:?} names no linear of the model{of}; the nearest names are {near}")
    }
}

/// The three different names that are most like `name`.
fn three_nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let different: BTreeSet<&str> = names.collect();
    nearest(name, different.into_iter(), 3).join(", ")
}
