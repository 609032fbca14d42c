//! The column of the second texts, for models of pairs of texts.

use super::adapted::Adapted;
use super::task::check_pairs;
use lowrank::{Error, Result};

/// The column of the second text of each pair, for all of these models: the one `given`, else the one that they were trained with. `None`: single texts.
///
/// # Errors
/// If a model was trained on pairs and the column is not known, or on single texts and one is given, or if the models have different columns. What a model
/// without `lowrank.json` was trained on is not known.
pub fn pair_column(all: &[Adapted], given: Option<&str>) -> Result<Option<String>> {
    let of = |adapted: &Adapted| match &adapted.about {
        Some(about) if about.pairs => match given.or(about.text_pair_column.as_deref()) {
            Some(column) => Ok(Some(column.to_string())),
            None => Err("was trained on pairs of texts: name the column of the second text with --text-pair-column"),
        },
        Some(_) if given.is_some() => Err("was trained on single texts: leave out --text-pair-column"),
        _ => Ok(given.map(String::from)),
    };
    let mut column = None;
    for adapted in all {
        let found = of(adapted).map_err(|problem| Error::invalid(format!("{}: {problem}", adapted.name)))?;
        if column.get_or_insert(found.clone()) != &found {
            let problem = "was trained on another column of second texts than the first model: give them one by one, or name one with --text-pair-column";
            return Err(Error::invalid(format!("{}: {problem}", adapted.name)));
        }
        check_pairs(found.as_deref(), adapted.cut)?;
    }
    Ok(column.flatten())
}
