//! The table of the study: its cells, and the table in Markdown.

use super::statistics::accuracy;
use super::{Row, RowResult, origin, settings};
use lowrank::Result;
use lowrank::text::thousands;

/// The cells of a row of the table.
pub struct Cells {
    pub name: String,
    pub trainable: String,
    /// Trainable parameters in per cent of the base.
    pub percent: String,
    /// Mean over the seeds, in per cent.
    pub accuracy: String,
    /// 95 % interval of the sample of reviews, in per cent.
    pub interval: String,
    /// Accuracy that the study states, in per cent.
    pub stated: String,
    /// Mean over the seeds.
    pub minutes: String,
    /// Peak memory in MB, if it is known.
    pub memory: Option<String>,
}

impl Cells {
    /// For a row and its results, one a seed and at least one.
    pub fn new(row: &Row, of: &[&RowResult]) -> Cells {
        let (mean, (low, high)) = accuracy(of);
        let minutes = of.iter().map(|r| r.seconds).sum::<f64>() / 60.0 / of.len() as f64;
        Cells {
            name: row.name.clone(),
            trainable: thousands(of[0].trainable),
            percent: format!("{:.2}", 100.0 * of[0].trainable as f64 / of[0].base as f64),
            accuracy: format!("{mean:.2}"),
            interval: format!("{low:.2}–{high:.2}"),
            stated: row.stated.map_or("–".into(), |stated| format!("{stated:.2}")),
            minutes: format!("{minutes:.1}"),
            memory: of[0].peak_memory.map(|bytes| format!("{:.0}", bytes as f64 / 1e6)),
        }
    }
}

/// The rows that have results, with these results.
pub fn with_results<'a>(rows: &'a [Row], results: &'a [RowResult]) -> impl Iterator<Item = (&'a Row, Vec<&'a RowResult>)> {
    let of = |row: &Row| results.iter().filter(|r| r.row == row.key).collect::<Vec<_>>();
    rows.iter().map(move |row| (row, of(row))).filter(|(_, of)| !of.is_empty())
}

/// The table in Markdown: the rows that have results, each over its seeds.
pub fn markdown(rows: &[Row], results: &[RowResult]) -> String {
    let mut out = String::from("| configuration | trainable | % | test accuracy (95 % interval) | the study's | minutes | peak memory |\n");
    out.push_str("|---|---|---|---|---|---|---|\n");
    for (row, of) in with_results(rows, results) {
        let Cells { name, trainable, percent, accuracy, interval, stated, minutes, memory } = Cells::new(row, &of);
        let accuracies = of.iter().map(|r| 100.0 * r.test.accuracy);
        let (lowest, highest) = accuracies.fold((100.0, 0.0), |(low, high): (f64, f64), a| (low.min(a), high.max(a)));
        let seeds = if of.len() == 1 { String::new() } else { format!(", {} seeds {lowest:.2}–{highest:.2}", of.len()) };
        let memory = memory.map_or("?".to_string(), |memory| format!("{memory} MB"));
        let accuracy = format!("{accuracy} ({interval}){seeds}");
        out.push_str(&format!("| {name} | {trainable} | {percent} | {accuracy} | {stated} | {minutes} | {memory} |\n"));
    }
    out
}

/// The lines below the table: the recipe, and date, version and machine.
///
/// # Errors
/// Those of [`settings`].
pub fn recipe_lines(rows: &[Row], results: &[RowResult]) -> Result<String> {
    let settings = settings(rows, results)?;
    // These are in the last line.
    let recipe = || settings.iter().filter(|s| !["finished", "lowrank", "commit", "machine"].contains(&s.name.as_str()));
    let same: Vec<String> = recipe().filter_map(|s| s.common().map(|value| format!("{} {value}", s.name))).collect();
    let by_row = recipe().filter(|s| s.common().is_none()).map(|s| format!(" By row, {}: {}.", s.name, s.text()));
    Ok(format!("Recipe: {}.{}\n\n{}\n", same.join(", "), by_row.collect::<String>(), origin(results)))
}
