//! Matches names of modules as PEFT does.

use crate::{Error, Result};

/// The number of the layer that weight or linear `name` belongs to.
pub(super) fn layer(name: &str) -> Option<usize> {
    name.split_once(".layer.")?.1.split('.').next()?.parse().ok()
}

/// Whether `end` is the whole name, or the end of the name after a dot.
pub(super) fn named(name: &str, end: &str) -> bool {
    name == end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'))
}

/// The target that means the six linears of every layer.
pub(super) const ALL_LINEAR: &str = "all-linear";

/// Whether `target` means linear `name`: it is its whole name or the end of it after a dot, or [`ALL_LINEAR`].
pub(super) fn is_target(name: &str, target: &str) -> bool {
    named(name, target) || (target == ALL_LINEAR && layer(name).is_some())
}

/// The lists of layers. They hold no tensors of their own, and PEFT cannot save them.
const LISTS_OF_LAYERS: [&str; 2] = ["distilbert.transformer.layer", "bert.encoder.layer"];

/// Whether weight `name` is inside a module whose name ends with these letters: unlike for targets, PEFT asks for no dot before them.
pub(super) fn saved_by(name: &str, end: &str) -> bool {
    let mut modules = name.match_indices('.').map(|(dot, _)| &name[..dot]).filter(|module| !LISTS_OF_LAYERS.contains(module));
    !end.is_empty() && modules.any(|module| module.ends_with(end))
}

/// Whether the regular expression `pattern` matches the whole name: Python's `re.fullmatch`.
///
/// # Errors
/// If it is no regular expression, or takes too many steps.
#[cfg(feature = "regex")]
pub(super) fn whole(name: &str, pattern: &str) -> Result<bool> {
    let problem = |e| Error::invalid(format!("lora: the pattern {pattern:?}: {e}"));
    fancy_regex::Regex::new(&format!("^(?:{pattern})$")).map_err(problem)?.is_match(name).map_err(problem)
}

#[cfg(not(feature = "regex"))]
pub(super) fn whole(_: &str, pattern: &str) -> Result<bool> {
    Err(Error::invalid(format!("lora: {pattern:?} is a regular expression, and this build has none: build with the feature `regex`")))
}

/// Whether a key of `rank_pattern` matches the whole name, or its end after a dot: Python's `re.match(r"(.*\.)?(KEY)$", name)`.
///
/// # Errors
/// As [`whole`].
pub(super) fn ends(name: &str, key: &str) -> Result<bool> {
    if is_regex(key) {
        return whole(name, &format!("(.*\\.)?({key})"));
    }
    let Some(start) = name.len().checked_sub(key.len()) else { return Ok(false) };
    let name = name.as_bytes();
    Ok(like(&name[start..], key) && (start == 0 || name[start - 1] == b'.'))
}

/// Whether `name` is `module` or inside of it: Python's `re.match(r"(^|.*\.)MODULE($|\..*)", name)`.
///
/// # Errors
/// As [`whole`].
pub(super) fn within(name: &str, module: &str) -> Result<bool> {
    if is_regex(module) {
        return whole(name, &format!("(^|.*\\.){module}($|\\..*)"));
    }
    let (name, n) = (name.as_bytes(), module.len());
    let at = |start: usize| like(&name[start..start + n], module) && matches!(name.get(start + n), None | Some(b'.'));
    Ok((0..(name.len() + 1).saturating_sub(n)).any(|start| (start == 0 || name[start - 1] == b'.') && at(start)))
}

/// Whether a pattern is more than a name with dots.
fn is_regex(pattern: &str) -> bool {
    pattern.contains(['^', '$', '*', '+', '?', '(', ')', '[', '{', '|', '\\'])
}

/// Whether a pattern of letters and dots matches the text. A dot stands for any character, as in regular expressions.
fn like(text: &[u8], plain: &str) -> bool {
    text.len() == plain.len() && text.iter().zip(plain.bytes()).all(|(&a, b)| a == b || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: &str = "distilbert.transformer.layer.1.attention.q_lin";

    #[test]
    fn names_are_matched_as_in_peft() {
        assert!(named(Q, "q_lin") && named(Q, Q) && named(Q, "attention.q_lin") && !named(Q, "lin") && !named(Q, "k_lin"));
        let ends = |key: &str| super::ends(Q, key).unwrap();
        assert!(ends("layer.1.attention.q_lin") && !ends("layer.2.attention.q_lin") && !ends("lin") && ends(Q) && !ends(&format!("x.{Q}")));
        assert!(ends("q.lin") && ends("layer.1.attention.q.lin") && !ends("q.li"), "a dot stands for any character");
        let within = |module: &str| super::within(Q, module).unwrap();
        assert!(within("q_lin") && within("attention") && within("layer.1") && within("distilbert") && within(Q) && within("layer.."));
        assert!(!within("lin") && !within("layer.2") && !within("stilbert") && !within("q_li") && !within(&format!("{Q}x")));
    }

    #[test]
    #[cfg(feature = "regex")]
    fn regular_expressions_are_those_of_python() {
        let whole = |pattern: &str| super::whole(Q, pattern).unwrap();
        // A part of a name is no match, as `re.fullmatch` has it.
        assert!(whole(r".*\.(q|v)_lin") && !whole("q_lin") && !whole(".*k_lin") && !whole("distilbert|.*k_lin"));
        assert!(whole(r".*layer\.(?!0)\d+\..*(?<!k)_lin") && !whole(r".*layer\.(?!1)\d+\..*") && !whole(r".*(?<!q)_lin"));
        let ends = |key: &str| super::ends(Q, key).unwrap();
        assert!(ends(r"layer\.[01]\.attention\.q_lin") && ends("[qv]_lin") && !ends("[kv]_lin") && !ends("_li[mn]") && ends("k_lin|q_lin"));
        assert!(ends(&format!("^{Q}")) && !ends("^q_lin") && ends("(?=q).*_lin") && !ends("(?=k).*_lin"));
        assert!(super::within(Q, r"layer\.\d").unwrap() && !super::within(Q, r"layer\.[2-9]").unwrap());
        assert!(super::whole(Q, "(").is_err_and(|e| e.to_string().contains("pattern \"(\"")));
        // Steps without end are an error, not an endless run.
        let a = "a".repeat(60);
        assert!(super::whole(&a, r"((?=a)a|(?=a)a)*b").is_err_and(|e| e.to_string().contains("backtracking")));
    }

    #[test]
    #[cfg(not(feature = "regex"))]
    fn a_build_without_regular_expressions_says_so() {
        assert!(whole(Q, ".*q_lin").is_err_and(|e| e.to_string().contains("feature")));
    }
}
