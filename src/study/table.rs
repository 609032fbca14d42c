//! The table.

use super::{Row, RowResult};
use crate::lora::thousands;
use crate::train::wilson;

/// The table of the study in Markdown: rows that have results, over their seeds.
pub fn markdown(rows: &[Row], results: &[RowResult]) -> String {
    let mut out = String::from("| configuration | trainable | % | test accuracy (95 % interval) | the study's | minutes | peak memory |\n");
    out.push_str("|---|---|---|---|---|---|---|\n");
    for row in rows {
        let of: Vec<&RowResult> = results.iter().filter(|r| r.row == row.key).collect();
        let Some(first) = of.first() else { continue };
        let percent = |x: f64| format!("{:.2}", 100.0 * x);
        let accuracy = match of.len() {
            1 => format!("{} ({}–{})", percent(first.test.accuracy), percent(first.test.interval.0), percent(first.test.interval.1)),
            n => {
                // All answers of all seeds as one sample is too sure of itself, as the reviews are the same: the seeds' spread stands beside it.
                let accuracies: Vec<f64> = of.iter().map(|r| r.test.accuracy).collect();
                let (low, high) = accuracies.iter().fold((1.0, 0.0), |(low, high): (f64, f64), &a| (low.min(a), high.max(a)));
                let mean = accuracies.iter().sum::<f64>() / n as f64;
                let (from, to) = wilson((mean * first.test.examples as f64).round() as usize, first.test.examples);
                format!("{} ({}–{}), {n} seeds {}–{}", percent(mean), percent(from), percent(to), percent(low), percent(high))
            }
        };
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
