//! The report: all results of a study on one page.

use super::figure::{Bar, Figure, Heat, Plot, Point, Series};
use super::page::Page;
use super::statistics::{McNemar, accuracy, p_value};
use super::table::{cells, with_results};
use super::{Claim, Row, RowResult, Setting, origin, settings};
use lowrank::Result;
use lowrank::nn::Config;
use lowrank::text::thousands;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How the results of a report were made.
pub struct Provenance {
    /// The sentence at the top: number of texts, date, version, machine.
    pub lead: String,
    /// The command.
    pub command: String,
    /// Names and values of the inputs, with hashes.
    pub facts: Vec<(String, String)>,
    /// Settings of the runs.
    pub settings: Vec<Setting>,
}

impl Provenance {
    /// For `results` of `rows`. `facts` are names and values of the inputs.
    ///
    /// # Errors
    /// Those of [`settings`].
    pub fn new(command: String, facts: Vec<(String, String)>, rows: &[Row], results: &[RowResult]) -> Result<Provenance> {
        let used = || results.iter().filter_map(|result| result.used.as_ref());
        let most = |numbers: &mut dyn Iterator<Item = usize>| thousands(numbers.max().unwrap_or(0));
        let (train, test) = (most(&mut used().map(|used| used.training_texts)), most(&mut used().map(|used| used.test_texts)));
        let lead = format!("{train} reviews to train on, {test} to test. {}", origin(results));
        Ok(Provenance { lead, command, facts, settings: settings(rows, results)? })
    }
}

/// The results of a study.
pub struct Findings<'a> {
    /// The rows of the table.
    pub rows: &'a [Row],
    /// Results of these rows, and of the rows that only the claims need.
    pub results: &'a [RowResult],
    /// Test labels.
    pub labels: &'a [u32],
    /// Names of the classes.
    pub label_names: &'a [String],
    /// Test reviews.
    pub texts: &'a [String],
    /// Claims with verdicts, if they were asked for.
    pub claims: Vec<Claim>,
    /// ΔW of full fine-tuning: one map for each linear.
    pub changes: Vec<Heat>,
    /// McNemar's tests of neighbours in the table.
    pub neighbours: Vec<McNemar>,
    /// Further figures; those of claims are in `claims`.
    pub figures: Vec<Figure>,
}

/// Parameters of DistilBERT-base with its head. The accuracies that the study states are for this model.
const STUDY_SIZE: usize = 66_955_010;
/// Number of reviews shown on which rows disagree.
const SHOWN: usize = 12;

/// The page as HTML.
pub fn report(findings: &Findings, provenance: &Provenance) -> String {
    let mut page = Page::default();
    page.heading("The table");
    table(&mut page, findings);
    page.figure(&accuracies(findings));
    page.figure(&sizes(findings));
    page.heading("The recipe");
    let settings: Vec<_> = provenance.settings.iter().map(|setting| vec![setting.name.clone(), setting.text()]).collect();
    page.table("What each run used: a value for all, or each value with its rows.", &["setting", "value"], &settings);
    page.heading("Training");
    page.figure(&curve(findings, "Training loss", "cross-entropy (nats)", |r| r.losses.clone()));
    let percent = |r: &RowResult| r.accuracies.iter().map(|a| 100.0 * a).collect();
    page.figure(&curve(findings, "Training accuracy", "accuracy (%)", percent));
    page.heading("Confusions");
    confusions(&mut page, findings);
    if !findings.neighbours.is_empty() {
        page.heading("Whether neighbours in the table differ");
        tests(&mut page, findings);
    }
    if !findings.changes.is_empty() {
        page.heading("What full fine-tuning changed");
        let caption = "Root mean square of the change of the weights, in cells of neighbouring rows and columns.";
        let labels = ["input of the matrix", "output of the matrix"];
        page.figure(&Figure::linear("ΔW by layer and matrix", caption, labels, Plot::Heat(findings.changes.clone())));
    }
    if !findings.figures.is_empty() {
        page.heading("Ranks and times");
    }
    findings.figures.iter().for_each(|figure| page.figure(figure));
    if !findings.claims.is_empty() {
        page.heading("What the study claims");
    }
    for Claim { claim, verdict, measured, figures } in &findings.claims {
        page.verdict(claim, *verdict, measured);
        figures.iter().for_each(|figure| page.figure(figure));
    }
    page.heading("Where they disagree");
    disagreements(&mut page, findings);
    page.heading("How this was made");
    page.code(&provenance.command);
    let facts: Vec<_> = provenance.facts.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
    page.table("What was given.", &["what", "value"], &facts);
    page.html("LoRA fine-tuning of DistilBERT: the study", &provenance.lead)
}

/// The content of the report as JSON: `results.json`.
pub fn results_json(findings: &Findings, provenance: &Provenance, config: &Config) -> Value {
    let settings = provenance.settings.iter().map(|setting| (setting.name.clone(), setting.text()));
    let claim = |c: &Claim| json!({ "claim": c.claim, "verdict": c.verdict.to_string(), "measured": c.measured });
    json!({
        "command": provenance.command,
        "made": provenance.facts.iter().cloned().chain(settings).collect::<BTreeMap<_, _>>(),
        "model": config,
        "rows": findings.results,
        "mcnemar": findings.neighbours,
        "claims": findings.claims.iter().map(claim).collect::<Vec<_>>(),
    })
}

impl Findings<'_> {
    /// The rows of the table that have results, with these results.
    fn table(&self) -> impl Iterator<Item = (&Row, Vec<&RowResult>)> {
        with_results(self.rows, self.results)
    }
}

fn table(page: &mut Page, findings: &Findings) {
    let head = ["configuration", "trainable", "%", "accuracy (%)", "95 % interval", "the study's (%)", "minutes", "memory (MB)"];
    let row = |(row, of): (&Row, Vec<&RowResult>)| {
        let (cells, memory) = cells(row, &of);
        cells.into_iter().chain([memory.unwrap_or("–".into())]).collect()
    };
    let rows: Vec<_> = findings.table().map(row).collect();
    let seeds = findings.table().map(|(_, of)| of.len()).max().unwrap_or(0);
    let mean = if seeds > 1 { format!(" Accuracies are means over {seeds} seeds.") } else { String::new() };
    let caption = format!(
        "The interval is that of the sample of reviews. Memory is the peak of the process until the row was done, so a small row after a large one \
         shows the peak of the large one. The study's accuracies are those of distilbert-base-uncased on all of IMDB.{mean}"
    );
    page.table(&caption, &head, &rows);
}

fn accuracies(findings: &Findings) -> Figure {
    let bar = |(row, of): (&Row, Vec<&RowResult>)| {
        let (value, interval) = accuracy(&of);
        Bar { name: row.name.clone(), value, interval: Some(interval), mark: row.stated.filter(|_| of[0].base == STUDY_SIZE) }
    };
    let (caption, labels) = ("With 95 % intervals of the sample of reviews.", ["accuracy (%)", "configuration"]);
    Figure::linear("Test accuracy", caption, labels, Plot::Bars(findings.table().map(bar).collect()))
}

fn sizes(findings: &Findings) -> Figure {
    let point = |(row, of): (&Row, Vec<&RowResult>)| {
        let (y, interval) = accuracy(&of);
        (row.name.clone(), Point { x: of[0].trainable as f64, y, interval: Some(interval) })
    };
    let (caption, labels) = ("Each configuration by the numbers that it trains.", ["trainable parameters", "test accuracy (%)"]);
    Figure::linear("Accuracy against what trains", caption, labels, Plot::Points(findings.table().map(point).collect())).log_x()
}

/// Curves over the steps with the first seed. Each point is the mean of neighbouring steps.
fn curve(findings: &Findings, title: &str, y: &str, of: impl Fn(&RowResult) -> Vec<f64>) -> Figure {
    let series = findings.table().map(|(row, results)| Series::smoothed(&row.name, &of(results[0])));
    let caption = "Means over neighbouring steps, with dropout, before each step.";
    Figure::linear(title, caption, ["step", y], Plot::Lines(series.collect()))
}

fn confusions(page: &mut Page, findings: &Findings) {
    let names = findings.label_names;
    let pairs = names.iter().flat_map(|label| names.iter().map(move |answer| format!("{label} answered {answer}")));
    let head: Vec<String> = ["configuration".to_string()].into_iter().chain(pairs).collect();
    let row = |(row, of): (&Row, Vec<&RowResult>)| {
        let cells = of[0].test.confusion.iter().flatten().map(|n| thousands(*n));
        [row.name.clone()].into_iter().chain(cells).collect()
    };
    let rows: Vec<_> = findings.table().map(row).collect();
    page.table("Test reviews of each class by the answer, with the first seed.", &head, &rows);
}

/// McNemar's tests.
fn tests(page: &mut Page, findings: &Findings) {
    let name = |key: &str| findings.rows.iter().find(|row| row.key == key).map_or(key, |row| &row.name).to_string();
    let row = |test: &McNemar| {
        let McNemar { a, b, seed, only_a, only_b, p } = test;
        vec![name(a), name(b), seed.to_string(), thousands(*only_a), thousands(*only_b), p_value(*p)]
    };
    let caption = "McNemar's exact test: test reviews that one row alone has right, and the two-sided p of both being right equally often.";
    let head = ["configuration", "next", "seed", "the first alone is right", "the next alone is right", "p"];
    page.table(caption, &head, &findings.neighbours.iter().map(row).collect::<Vec<_>>());
}

/// The reviews on which about half of the rows are right.
fn disagreements(page: &mut Page, findings: &Findings) {
    let Findings { results, labels, texts, .. } = findings;
    let seed = results.first().map_or(0, |r| r.seed);
    let table: Vec<(&Row, &RowResult)> =
        findings.table().filter_map(|(row, of)| Some((row, of.into_iter().find(|r| r.seed == seed)?))).collect();
    let right = |i: usize| table.iter().filter(|(_, r)| r.answers[i] == labels[i]).count();
    let mut divided: Vec<usize> = (0..labels.len().min(texts.len())).filter(|&i| (1..table.len()).contains(&right(i))).collect();
    divided.sort_by_key(|&i| (right(i).abs_diff(table.len() / 2), i));
    page.text(&format!(
        "On {} of {} test reviews some configurations are right and others are not. The {} on which they are divided most evenly:",
        thousands(divided.len()),
        thousands(labels.len()),
        divided.len().min(SHOWN)
    ));
    let name = |label: u32| &findings.label_names[label as usize];
    for i in divided.into_iter().take(SHOWN) {
        let answers: Vec<String> = table.iter().map(|(row, r)| format!("{}: {}", row.name, name(r.answers[i]))).collect();
        page.excerpt(name(labels[i]), &texts[i], &answers.join("; "));
    }
}
