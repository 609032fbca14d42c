//! The table.

use super::figure::thousands;
use super::statistics::accuracy;
use super::{Row, RowResult, origin, settings};
use lowrank::Result;

/// The table of the study in Markdown: rows that have results, over their seeds.
pub fn markdown(rows: &[Row], results: &[RowResult]) -> String {
    let mut out = String::from("| configuration | trainable | % | test accuracy (95 % interval) | the study's | minutes | peak memory |\n");
    out.push_str("|---|---|---|---|---|---|---|\n");
    for row in rows {
        let of: Vec<&RowResult> = results.iter().filter(|r| r.row == row.key).collect();
        let Some(first) = of.first() else { continue };
        let (mean, (low, high)) = accuracy(&of);
        let seeds = match of.len() {
            1 => String::new(),
            n => {
                let accuracies = of.iter().map(|r| 100.0 * r.test.accuracy);
                let (lowest, highest) = accuracies.fold((100.0, 0.0), |(low, high): (f64, f64), a| (low.min(a), high.max(a)));
                format!(", {n} seeds {lowest:.2}–{highest:.2}")
            }
        };
        let accuracy = format!("{mean:.2} ({low:.2}–{high:.2}){seeds}");
        let minutes = of.iter().map(|r| r.seconds).sum::<f64>() / 60.0 / of.len() as f64;
        let memory = first.peak_memory.map_or("?".to_string(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
        out.push_str(&format!(
            "| {} | {} | {:.2} | {accuracy} | {} | {minutes:.1} | {memory} |\n",
            row.name,
            thousands(first.trainable),
            100.0 * first.trainable as f64 / first.base as f64,
            row.stated.map_or("–".to_string(), |stated| format!("{stated:.2}")),
        ));
    }
    out
}

/// What is to be known of the table, below it: the recipe, and when, with what and where it was made.
///
/// # Errors
/// Those of [`settings`].
pub fn recipe_lines(rows: &[Row], results: &[RowResult]) -> Result<String> {
    let settings = settings(rows, results)?;
    // The last line says these.
    let recipe = || settings.iter().filter(|s| !["finished", "lowrank", "commit", "machine"].contains(&s.name.as_str()));
    let same: Vec<String> = recipe().filter_map(|s| s.common().map(|value| format!("{} {value}", s.name))).collect();
    let by_row = recipe().filter(|s| s.common().is_none()).map(|s| format!(" By row, {}: {}.", s.name, s.text()));
    Ok(format!("Recipe: {}.{}\n\n{}\n", same.join(", "), by_row.collect::<String>(), origin(results)))
}
