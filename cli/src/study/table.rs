//! The table of the study: its cells, and the table in Markdown.

use super::statistics::accuracy;
use super::{Row, RowResult, origin, settings};
use lowrank::Result;
use lowrank::text::thousands;

/// The cells of a row of the table, from its results, one a seed and at least one: name; trainable parameters; these in per cent of the base; mean
/// accuracy over the seeds in per cent; its 95 % interval for the sample of reviews; the study's accuracy in per cent; mean minutes. And the peak
/// memory in MB, if it is known.
pub fn cells(row: &Row, of: &[&RowResult]) -> ([String; 7], Option<String>) {
    let (mean, (low, high)) = accuracy(of);
    let minutes = of.iter().map(|r| r.seconds).sum::<f64>() / 60.0 / of.len() as f64;
    let cells = [
        row.name.clone(),
        thousands(of[0].trainable),
        format!("{:.2}", 100.0 * of[0].trainable as f64 / of[0].base as f64),
        format!("{mean:.2}"),
        format!("{low:.2}–{high:.2}"),
        row.stated.map_or("–".into(), |stated| format!("{stated:.2}")),
        format!("{minutes:.1}"),
    ];
    (cells, of[0].peak_memory.map(|bytes| format!("{:.0}", bytes as f64 / 1e6)))
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
        let ([name, trainable, percent, accuracy, interval, stated, minutes], memory) = cells(row, &of);
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
