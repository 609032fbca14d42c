//! The report: everything that a study found, on one page.

use super::figure::thousands;
use super::figure::{Axis, Bar, Figure, Heat, Plot, Point, Scale, Series};
use super::page::{Block, html};
use super::statistics::{McNemar, accuracy, p_value};
use super::{Claim, Row, RowResult, Setting, origin, settings};
use lowrank::Result;
use lowrank::nn::Config;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a report says of how it was made.
pub struct Provenance {
    /// What was trained on what, in a sentence.
    pub lead: String,
    /// The command.
    pub command: String,
    /// Names and values: what was given, and its hashes.
    pub facts: Vec<(String, String)>,
    /// What the runs used.
    pub settings: Vec<Setting>,
}

impl Provenance {
    /// What `results`, those of `rows`, were made with. `facts` are names and values of what was given.
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

/// What a study found.
pub struct Findings<'a> {
    /// The rows of the table.
    pub rows: &'a [Row],
    /// Results of these and of further rows.
    pub results: &'a [RowResult],
    /// Test labels.
    pub labels: &'a [u32],
    /// Names of the classes.
    pub label_names: &'a [String],
    /// Test reviews.
    pub texts: &'a [String],
    /// Claims, if they were asked for.
    pub claims: Vec<Claim>,
    /// ΔW of full fine-tuning, a map a linear.
    pub changes: Vec<Heat>,
    /// McNemar's tests of neighbours in the table.
    pub neighbours: Vec<McNemar>,
    /// What else was measured: that of the claims comes with them.
    pub figures: Vec<Figure>,
}

/// Numbers of DistilBERT-base with its head: what the study's figures belong to.
const STUDY_SIZE: usize = 66_955_010;
/// Points of a curve.
const SMOOTHED: usize = 60;
/// Reviews shown on which rows disagree, and the characters of each.
const SHOWN: usize = 12;
const EXCERPT: usize = 600;

/// The page.
pub fn report(findings: Findings, provenance: &Provenance) -> String {
    let mut blocks = vec![Block::Heading("The table".into()), table(&findings)];
    blocks.extend([accuracies(&findings), sizes(&findings)].map(Block::Figure));
    blocks.push(Block::Heading("The recipe".into()));
    blocks.push(Block::Table {
        caption: "What each run used: a value for all, or each value with its rows.".into(),
        head: vec!["setting".into(), "value".into()],
        rows: provenance.settings.iter().map(|setting| vec![setting.name.clone(), setting.text()]).collect(),
    });
    blocks.push(Block::Heading("Training".into()));
    blocks.push(Block::Figure(curve(&findings, "Training loss", "cross-entropy (nats)", |r| r.losses.clone())));
    let percent = |r: &RowResult| r.accuracies.iter().map(|a| 100.0 * a).collect();
    blocks.push(Block::Figure(curve(&findings, "Training accuracy", "accuracy (%)", percent)));
    blocks.push(Block::Heading("Confusions".into()));
    blocks.push(confusions(&findings));
    if !findings.neighbours.is_empty() {
        blocks.push(Block::Heading("Whether neighbours in the table differ".into()));
        blocks.push(tests(&findings));
    }
    let Findings { rows, results, labels, label_names, texts, claims, changes, figures, .. } = findings;
    if !changes.is_empty() {
        blocks.push(Block::Heading("What full fine-tuning changed".into()));
        blocks.push(Block::Figure(Figure {
            title: "ΔW by layer and matrix".into(),
            caption: "Root mean square of the change of the weights, in cells of neighbouring rows and columns.".into(),
            x: Axis { label: "input of the matrix".into(), scale: Scale::Linear },
            y: Axis { label: "output of the matrix".into(), scale: Scale::Linear },
            plot: Plot::Heat(changes),
        }));
    }
    if !figures.is_empty() {
        blocks.push(Block::Heading("Ranks and times".into()));
        blocks.extend(figures.into_iter().map(Block::Figure));
    }
    if !claims.is_empty() {
        blocks.push(Block::Heading("What the study claims".into()));
    }
    for Claim { claim, verdict, measured, figures } in claims {
        blocks.push(Block::Verdict { claim, verdict, measured });
        blocks.extend(figures.into_iter().map(Block::Figure));
    }
    blocks.push(Block::Heading("Where they disagree".into()));
    blocks.extend(disagreements(rows, results, labels, label_names, texts));
    blocks.push(Block::Heading("How this was made".into()));
    blocks.push(Block::Code(provenance.command.clone()));
    blocks.push(Block::Table {
        caption: "What was given.".into(),
        head: vec!["what".into(), "value".into()],
        rows: provenance.facts.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect(),
    });
    html("LoRA fine-tuning of DistilBERT: the study", &provenance.lead, &blocks)
}

/// What the report says, for programs: `results.json`.
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
    /// The rows of the table that have results, and these.
    fn table(&self) -> impl Iterator<Item = (&Row, Vec<&RowResult>)> {
        let of = |row: &Row| self.results.iter().filter(|r| r.row == row.key).collect::<Vec<_>>();
        self.rows.iter().map(move |row| (row, of(row))).filter(|(_, of)| !of.is_empty())
    }
}

fn table(findings: &Findings) -> Block {
    let head = ["configuration", "trainable", "%", "accuracy (%)", "95 % interval", "the study's (%)", "minutes", "memory (MB)"];
    let row = |(row, of): (&Row, Vec<&RowResult>)| {
        let (mean, (low, high)) = accuracy(&of);
        let minutes = of.iter().map(|r| r.seconds).sum::<f64>() / 60.0 / of.len() as f64;
        vec![
            row.name.clone(),
            thousands(of[0].trainable),
            format!("{:.2}", 100.0 * of[0].trainable as f64 / of[0].base as f64),
            format!("{mean:.2}"),
            format!("{low:.2}–{high:.2}"),
            row.stated.map_or("–".into(), |stated| format!("{stated:.2}")),
            format!("{minutes:.1}"),
            of[0].peak_memory.map_or("–".into(), |bytes| format!("{:.0}", bytes as f64 / 1e6)),
        ]
    };
    let seeds = findings.table().map(|(_, of)| of.len()).max().unwrap_or(0);
    let mean = if seeds > 1 { format!(" Accuracies are means over {seeds} seeds.") } else { String::new() };
    Block::Table {
        caption: format!(
            "The interval is that of the sample of reviews. Memory is the most of the process until the row was done: a small row after a large one shows \
             the large one's. The study's accuracies are those of distilbert-base-uncased on the whole of IMDB.{mean}"
        ),
        head: head.map(String::from).to_vec(),
        rows: findings.table().map(row).collect(),
    }
}

fn accuracies(findings: &Findings) -> Figure {
    let bar = |(row, of): (&Row, Vec<&RowResult>)| {
        let (value, interval) = accuracy(&of);
        Bar { name: row.name.clone(), value, interval: Some(interval), mark: row.stated.filter(|_| of[0].base == STUDY_SIZE) }
    };
    Figure {
        title: "Test accuracy".into(),
        caption: "With 95 % intervals of the sample of reviews.".into(),
        x: Axis { label: "accuracy (%)".into(), scale: Scale::Linear },
        y: Axis { label: "configuration".into(), scale: Scale::Linear },
        plot: Plot::Bars(findings.table().map(bar).collect()),
    }
}

fn sizes(findings: &Findings) -> Figure {
    let point = |(row, of): (&Row, Vec<&RowResult>)| {
        let (y, interval) = accuracy(&of);
        (row.name.clone(), Point { x: of[0].trainable as f64, y, interval: Some(interval) })
    };
    Figure {
        title: "Accuracy against what trains".into(),
        caption: "Each configuration by the numbers that it trains.".into(),
        x: Axis { label: "trainable parameters".into(), scale: Scale::Log },
        y: Axis { label: "test accuracy (%)".into(), scale: Scale::Linear },
        plot: Plot::Points(findings.table().map(point).collect()),
    }
}

/// Curves over the steps of the first seed, each point a mean of neighbouring steps.
fn curve(findings: &Findings, title: &str, y: &str, of: impl Fn(&RowResult) -> Vec<f64>) -> Figure {
    let series = findings.table().map(|(row, results)| {
        let values = of(results[0]);
        let width = values.len().div_ceil(SMOOTHED).max(1);
        let points = values.chunks(width).enumerate().map(|(i, chunk)| Point {
            x: (i * width) as f64 + (chunk.len() as f64 + 1.0) / 2.0,
            y: chunk.iter().sum::<f64>() / chunk.len() as f64,
            interval: None,
        });
        Series { name: row.name.clone(), points: points.collect() }
    });
    Figure {
        title: title.into(),
        caption: "Means over neighbouring steps, with dropout, before each step.".into(),
        x: Axis { label: "step".into(), scale: Scale::Linear },
        y: Axis { label: y.into(), scale: Scale::Linear },
        plot: Plot::Lines(series.collect()),
    }
}

fn confusions(findings: &Findings) -> Block {
    let names = findings.label_names;
    let pairs = || names.iter().enumerate().flat_map(|(i, _)| (0..names.len()).map(move |j| (i, j)));
    let head = pairs().map(|(i, j)| format!("{} answered {}", names[i], names[j]));
    let row = |(row, of): (&Row, Vec<&RowResult>)| {
        let cells = pairs().map(|(i, j)| thousands(of[0].test.confusion.get(i).and_then(|r| r.get(j)).copied().unwrap_or(0)));
        std::iter::once(row.name.clone()).chain(cells).collect()
    };
    Block::Table {
        caption: "Test reviews of each class by the answer, with the first seed.".into(),
        head: std::iter::once("configuration".to_string()).chain(head).collect(),
        rows: findings.table().map(row).collect(),
    }
}

/// McNemar's tests.
fn tests(findings: &Findings) -> Block {
    let name = |key: &str| findings.rows.iter().find(|row| row.key == key).map_or(key, |row| &row.name).to_string();
    let row = |test: &McNemar| {
        let McNemar { a, b, seed, only_a, only_b, p } = test;
        vec![name(a), name(b), seed.to_string(), thousands(*only_a), thousands(*only_b), p_value(*p)]
    };
    Block::Table {
        caption: "McNemar's exact test: test reviews that one row alone has right, and the two-sided p of both being right equally often."
            .into(),
        head: ["configuration", "next", "seed", "the first alone is right", "the next alone is right", "p"].map(String::from).to_vec(),
        rows: findings.neighbours.iter().map(row).collect(),
    }
}

/// The reviews on which the rows are divided most evenly.
fn disagreements(rows: &[Row], results: &[RowResult], labels: &[u32], names: &[String], texts: &[String]) -> Vec<Block> {
    let seed = results.first().map_or(0, |r| r.seed);
    let table: Vec<(&Row, &RowResult)> =
        rows.iter().filter_map(|row| Some((row, results.iter().find(|r| r.row == row.key && r.seed == seed)?))).collect();
    let right = |i: usize| table.iter().filter(|(_, r)| r.answers[i] == labels[i]).count();
    let mut divided: Vec<usize> = (0..labels.len().min(texts.len())).filter(|&i| (1..table.len()).contains(&right(i))).collect();
    divided.sort_by_key(|&i| (right(i).abs_diff(table.len() / 2), i));
    let whole = divided.len();
    let mut blocks = vec![Block::Text(format!(
        "On {} of {} test reviews some configurations are right and others are not. The {} on which they are divided most evenly:",
        thousands(whole),
        thousands(labels.len()),
        divided.len().min(SHOWN)
    ))];
    let name = |label: u32| names.get(label as usize).map_or("?", String::as_str);
    for i in divided.into_iter().take(SHOWN) {
        let answers: Vec<String> = table.iter().map(|(row, r)| format!("{}: {}", row.name, name(r.answers[i]))).collect();
        let text: String = texts[i].chars().take(EXCERPT).collect();
        let more = if texts[i].chars().count() > EXCERPT { " …" } else { "" };
        let first: String = text.chars().take(70).collect();
        blocks.push(Block::Details {
            summary: format!("{} – {first} …", name(labels[i])),
            blocks: vec![Block::Text(format!("{text}{more}")), Block::Text(answers.join("; "))],
        });
    }
    blocks
}
