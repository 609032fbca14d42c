//! What the pages of all training runs have: tables of figures, curves and settings.

use super::figures::outputs;
use super::summary::Finished;
use crate::study::figure::{Figure, Plot, Point, Series};
use crate::study::page::Page;
use lowrank::nn::Outputs;
use serde_json::Value;

/// Names of the classes or labels.
pub fn labels<'a>(run: &'a Finished) -> &'a [String] {
    &run.texts.train.label_names
}

/// The figures of all outputs together.
pub fn overall_figures(page: &mut Page, run: &Finished, caption: &str) {
    let figures: Vec<_> = run.figures.overall().into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
    page.table(caption, &["figure", "value"], &figures);
}

/// A row of figures for each class or label: `what`.
pub fn figures_of_each(page: &mut Page, run: &Finished, what: &str, caption: &str) {
    let all = run.figures.of_labels();
    let head: Vec<&str> = std::iter::once(what).chain(all.first().into_iter().flatten().map(|(name, _)| *name)).collect();
    let row = |(label, figures): (&String, &Vec<(&'static str, String)>)| -> Vec<String> {
        std::iter::once(label.clone()).chain(figures.iter().map(|(_, value)| value.clone())).collect()
    };
    let rows: Vec<_> = labels(run).iter().zip(&all).map(row).collect();
    page.table(caption, &head, &rows);
}

/// Curves over steps and epochs.
pub fn training(page: &mut Page, run: &Finished) {
    let is_error = outputs(&run.texts.train) == Outputs::Numbers;
    let (unit, what) = if is_error { ("squared error", "mean_squared_error") } else { ("loss (nats)", "loss") };
    let losses: Vec<f64> = run.steps().filter_map(|step| step["loss"].as_f64()).collect();
    let series = vec![Series::smoothed("training", &losses)];
    let caption = "Means over neighbouring steps, with dropout, before each step.";
    page.figure(&Figure::linear("Training loss", caption, ["step", unit], Plot::Lines(series)));
    let records: Vec<Value> = run.records().collect();
    let measured = |part: &str, value: &dyn Fn(&Value) -> Option<Point>| {
        let points = records.iter().filter(|record| record.get(part).is_some()).filter_map(value).collect();
        Series { name: part.to_string(), points }
    };
    let drawn = |title: &str, caption: &str, y: &str, of: &dyn Fn(&str, &Value) -> Option<Point>| {
        let all = ["held-out", "test"].map(|part| measured(part, &|record| of(part, record)));
        let series: Vec<Series> = all.into_iter().filter(|series| !series.points.is_empty()).collect();
        (!series.is_empty()).then(|| Figure::linear(title, caption, ["epoch", y], Plot::Lines(series)))
    };
    let best = run.state.best.as_ref().map_or(String::new(), |best| format!(" Epoch {} was kept.", best.epoch));
    let accuracy = |part: &str, record: &Value| {
        let end = |i: usize| Some(100.0 * record[part]["interval"][i].as_f64()?);
        let (x, y) = (record["epoch"].as_f64()?, 100.0 * record[part]["accuracy"].as_f64()?);
        Some(Point { x, y, interval: Some((end(0)?, end(1)?)) })
    };
    let loss = |part: &str, record: &Value| Some(Point { x: record["epoch"].as_f64()?, y: record[part][what].as_f64()?, interval: None });
    let caption = format!("After each epoch, with 95 % intervals.{best}");
    drawn("Accuracy by epoch", &caption, "accuracy (%)", &accuracy).iter().for_each(|figure| page.figure(figure));
    drawn("Loss by epoch", "What training minimises, after each epoch.", unit, &loss).iter().for_each(|figure| page.figure(figure));
    if let Some(name) = run.chosen_by.filter(|name| records.iter().any(|record| record.get(*name).is_some())) {
        let chosen = |part: &str, record: &Value| {
            let point = || Some(Point { x: record["epoch"].as_f64()?, y: record[name].as_f64()?, interval: None });
            if part == "held-out" { point() } else { None }
        };
        let title = format!("{name} by epoch");
        drawn(&title, "The figure by which the epoch was chosen.", name, &chosen).iter().for_each(|figure| page.figure(figure));
    }
}

/// The recipe, the method, and how texts are cut.
pub fn settings(page: &mut Page, run: &Finished) {
    let mut rows = Vec::new();
    for part in [serde_json::json!(run.recipe), serde_json::json!(run.method)] {
        for (key, value) in part.as_object().into_iter().flatten() {
            rows.push(vec![key.replace('_', " "), value.as_str().map_or_else(|| value.to_string(), String::from)]);
        }
    }
    let kept = run.cut.truncate.map(|part| ("kept of a longer text", part.name().to_string()));
    let windows = (run.cut.windows > 1).then(|| ("windows of a measured text", run.cut.windows.to_string()));
    let always = [("data type", run.dtype.clone()), ("tokens kept of a text", run.cut.max_length.to_string())];
    for (name, value) in always.into_iter().chain(kept).chain(windows) {
        rows.push(vec![name.to_string(), value]);
    }
    let caption = format!("{} of {} epochs were trained. lowrank.json has the command.", run.epochs(), run.recipe.epochs);
    page.table(&caption, &["setting", "value"], &rows);
}
