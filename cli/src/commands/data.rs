//! `lowrank data check`: the truth about labelled texts, before anything is trained on them.

use super::common::{Checkpoint, DataArgs, Outcome, ignore_closed, length, open_wordpiece, say, say_json};
use super::parts::part_at;
use super::task::{self, TaskArg, spread_in_words};
use clap::{Args, Subcommand};
use lowrank::data::{
    Example, FileForm, Finding, FindingKind, Lengths, Part, PartFacts, Place, Split, Survey, file_form, location, survey, token_lengths,
};
use lowrank::nn::{Config, Outputs};
use lowrank::text::thousands;
use lowrank::{Error, Result};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `data`.
#[derive(Args)]
pub struct Data {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Show the labels and lengths of labelled texts, and name rows that are empty, repeat or contradict each other, leak between splits, or are damaged.
    /// Texts are the same if they differ only in case and white space. The exit status is 0 for a data set that could be read, or with --strict
    /// 1 if something was found
    Check(Box<Check>),
}

/// Arguments of `data check`.
#[derive(Args)]
struct Check {
    #[command(flatten)]
    source: DataArgs,
    /// What the labels are
    #[arg(long, value_enum, default_value_t = TaskArg::Classes)]
    task: TaskArg,
    /// Labelled texts for the test [default: the test split of --data, or test.* beside train.*]
    #[arg(long, value_name = "PATH")]
    test: Option<PathBuf>,
    /// Held-out texts [default: the validation split of --data, or validation.* beside train.*]
    #[arg(long, value_name = "PATH")]
    dev: Option<PathBuf>,
    /// Models whose tokens are counted: folders of checkpoints, or names of fetched models
    #[arg(long, value_name = "DIR|NAME", num_args = 1..)]
    model: Vec<Checkpoint>,
    /// Tokens kept of each text [default: 512, or the number of positions of the model if that is less]
    #[arg(long, requires = "model")]
    max_length: Option<usize>,
    /// Examples of each finding
    #[arg(long, default_value_t = 5, value_name = "N")]
    examples: usize,
    /// End with exit status 1 if something was found
    #[arg(long)]
    strict: bool,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

/// What a model sees of a part.
#[derive(Serialize)]
struct Tokens {
    model: String,
    part: String,
    lengths: Lengths,
    /// Tokens kept of each text, and the number of texts that are longer.
    max_length: usize,
    cut: usize,
}

impl Data {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let What::Check(check) = self.what;
        check.run()
    }
}

impl Check {
    fn run(&self) -> Result<Outcome> {
        let (outputs, parts) = (Outputs::from(self.task), self.parts()?);
        let mut found = survey(&parts, &task::labels(outputs, &self.source, None)?, self.examples);
        let mut forms = Vec::new();
        for part in &parts {
            let form = file_form(&part.path, &self.source.options())?;
            found.findings.extend(form.as_ref().and_then(|form| mixed_line_ends(form, part)));
            forms.push(form);
        }
        let tokens = self.tokens(&parts)?;
        ignore_closed(self.print(&parts, &forms, &tokens, &found))?;
        Ok(if self.strict && !found.findings.is_empty() { Outcome::Failed } else { Outcome::Done })
    }

    fn print(&self, parts: &[Part], forms: &[Option<FileForm>], tokens: &[Tokens], found: &Survey) -> Result<()> {
        let outputs = Outputs::from(self.task);
        if self.json {
            let paths: Vec<String> = parts.iter().map(|part| part.path.display().to_string()).collect();
            return say_json(
                &json!({ "task": task::name(outputs), "files": paths, "forms": forms, "parts": found.parts, "tokens": tokens, "findings": found.findings }),
            );
        }
        for ((part, facts), form) in parts.iter().zip(&found.parts).zip(forms) {
            let of_part = tokens.iter().filter(|tokens| tokens.part == part.name);
            facts_in_words(part, facts, form.as_ref(), of_part).iter().try_for_each(say)?;
        }
        findings_in_words(found, outputs).iter().try_for_each(say)
    }

    /// The rows of all parts, those to train on first. An undivided data set is one part.
    fn parts(&self) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let mut add = |path: &Path, split: Split| {
            let rows = self.source.rows(path, split)?;
            let file = location(path, split).unwrap_or_else(|| path.to_path_buf());
            if rows.is_empty() {
                return Err(Error::file(&file, "data set", "holds no text"));
            }
            // A table beside another one in the current folder.
            let path = file.strip_prefix(".").unwrap_or(&file).to_path_buf();
            parts.push(Part { name: split.name().to_string(), path, rows });
            Ok(())
        };
        add(&self.source.data, Split::Train)?;
        for (given, split) in [(&self.dev, Split::Validation), (&self.test, Split::Test)] {
            if let Some((path, split)) = part_at(&self.source.data, given.as_deref(), split)? {
                add(&path, split)?;
            }
        }
        Ok(parts)
    }

    fn tokens(&self, parts: &[Part]) -> Result<Vec<Tokens>> {
        let mut all = Vec::new();
        for model in &self.model {
            let config = Config::open(&model.path)?;
            let (wordpiece, max_length) = (open_wordpiece(&model.path, &config)?, length(self.max_length, config.max_position_embeddings)?);
            for part in parts {
                let lengths = token_lengths(&part.rows, &wordpiece);
                let cut = lengths.iter().filter(|n| **n > max_length).count();
                all.push(Tokens { model: model.name.clone(), part: part.name.clone(), lengths: Lengths::of(lengths), max_length, cut });
            }
        }
        Ok(all)
    }
}

fn mixed_line_ends(form: &FileForm, part: &Part) -> Option<Finding> {
    let ends: Vec<String> = form.line_ends().iter().map(|(name, n)| format!("{} {name}", thousands(*n))).collect();
    let problem = Some(ends.join(", "));
    let parts = vec![part.name.clone()];
    (ends.len() > 1).then_some(Finding { kind: FindingKind::LineEnds, parts, rows: 0, identical: None, problem, examples: Vec::new() })
}

fn facts_in_words<'a>(part: &Part, facts: &PartFacts, form: Option<&FileForm>, tokens: impl Iterator<Item = &'a Tokens>) -> Vec<String> {
    let (of, rows) = (facts.rows as f64, thousands(facts.rows));
    let percent = |n: usize| format!("{:.1} %", 100.0 * n as f64 / of);
    let mark = |form: &FileForm| if form.byte_order_mark { " with a byte order mark" } else { "" };
    let form = form.map_or(String::new(), |form| format!(", {}{}", form.encoding, mark(form)));
    let mut lines = vec![format!("{}: {rows} rows of {}{form}", part.name, part.path.display())];
    let count = |name: &str, n: usize| format!("{name} {} ({})", thousands(n), percent(n));
    let classes = facts.classes.iter().map(|class| count(&class.name, class.rows)).collect::<Vec<_>>().join(", ");
    lines.extend(match (facts.none, &facts.numbers) {
        (Some(none), _) => Some(format!("  labels: {classes}; {}", count("none of them", none))),
        (None, Some(numbers)) => Some(format!("  {}", spread_in_words(numbers))),
        // Of labels that should be numbers, none is one.
        (None, None) if classes.is_empty() => None,
        (None, None) => Some(format!("  classes: {classes}")),
    });
    for (name, lengths) in [("words", &facts.words), ("characters", &facts.characters)] {
        lines.push(format!("  {name}: {}", lengths_in_words(lengths)));
    }
    for Tokens { model, lengths, max_length, cut, .. } in tokens {
        let cut = match cut {
            0 => format!("no text is longer than {max_length}"),
            n => format!("{} ({}) are longer than {max_length}, and are cut", thousands(*n), percent(*n)),
        };
        lines.push(format!("  tokens of {model}: {}; {cut}", lengths_in_words(lengths)));
    }
    lines
}

fn lengths_in_words(lengths: &Lengths) -> String {
    let Lengths { shortest, median, p90, p99, longest } = lengths;
    format!("{shortest} to {longest}, median {median}, 90 % up to {p90}, 99 % up to {p99}")
}

fn findings_in_words(found: &Survey, outputs: Outputs) -> Vec<String> {
    if found.findings.is_empty() {
        return vec!["nothing was found".to_string()];
    }
    let mut lines = vec![format!("findings: {}", found.findings.len())];
    for finding in &found.findings {
        lines.push(format!("  {}", headline(finding, outputs)));
        lines.extend(finding.examples.iter().map(|example| format!("    {}", example_in_words(finding, example))));
        let more = finding.rows.saturating_sub(finding.examples.len());
        let one_by_one = finding.examples.iter().all(|example| example.places.len() == 1);
        if one_by_one && more > 0 && !finding.examples.is_empty() {
            lines.push(format!("    and {} more", thousands(more)));
        }
    }
    lines
}

fn headline(finding: &Finding, outputs: Outputs) -> String {
    let (n, problem) = (thousands(finding.rows), finding.problem.as_deref().unwrap_or_default());
    let rows = if finding.rows == 1 { "1 row".to_string() } else { format!("{n} rows") };
    let identical = finding.identical.map_or(String::new(), |n| format!(" ({} letter for letter)", thousands(n)));
    let what = match finding.kind {
        FindingKind::NoText => format!("{rows} without text"),
        FindingKind::NoLabel if outputs == Outputs::Labels => {
            format!("{rows} without a label: write [] for a text with none of the labels")
        }
        FindingKind::NoLabel => format!("{rows} without a label"),
        FindingKind::NoClasses if outputs == Outputs::Labels => format!("the labels cannot be read: {problem}"),
        FindingKind::NoClasses => format!("the labels cannot be classes: {problem}"),
        FindingKind::NotANumber => format!("{rows} whose label is not a number"),
        FindingKind::OtherLabel => format!("{rows} with a label that is none of the classes {problem}"),
        FindingKind::OneClass => format!("all rows have the label {problem}: there is nothing to learn"),
        FindingKind::MissingClass => format!("no row has the label {problem}"),
        FindingKind::Contradiction => format!("{rows} whose text also has another label"),
        FindingKind::Duplicate => format!("{rows} with the text and the label of an earlier row{identical}"),
        FindingKind::Leak => return format!("{}: {rows} whose text is in {}, too{identical}", finding.parts[1], finding.parts[0]),
        FindingKind::ReplacementCharacter => format!("{rows} with the replacement character U+FFFD: bytes were lost in decoding"),
        FindingKind::Misread => format!("{rows} with signs of UTF-8 that was read in another encoding"),
        FindingKind::ControlCharacter => format!("{rows} with control characters"),
        FindingKind::LineEnds => format!("lines end in several ways: {problem}"),
    };
    finding.parts.first().map_or(what.clone(), |part| format!("{part}: {what}"))
}

/// The places of an example, then the start of the text.
fn example_in_words(finding: &Finding, example: &Example) -> String {
    const LONGEST: usize = 60;
    let labelled = matches!(finding.kind, FindingKind::Contradiction | FindingKind::OtherLabel | FindingKind::NotANumber);
    let several = finding.parts.len() != 1;
    let place = |p: &Place| {
        let part = if several { format!("{} ", p.part) } else { String::new() };
        format!("{part}{}{}", p.place, if labelled { format!(" {}", p.label) } else { String::new() })
    };
    let places: Vec<String> = example.places.iter().map(place).collect();
    let text = example.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let start: String = text.chars().take(LONGEST).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    let shown = if text.is_empty() { String::new() } else { format!(": {start}{more}") };
    format!("{}{shown}", places.join(", "))
}
