//! `lowrank predict`: classifies texts.

use super::adapted::{Adapted, AdaptedArgs};
use super::answer::{BATCH, object, say_answer, scores};
use super::common::{Outcome, user_cache};
use super::eval::say_one_or_all;
use super::pair_column::pair_column;
use super::predict_table::{self, TableArgs};
use super::ranks::{is_first, shared};
use super::texts::{InputLines, TextArgs};
use clap::Args;
use lowrank::cut::Windows;
use lowrank::data::{Encoded, Encoder, Labels, Sequence, TableOptions, load_texts, read_text};
use lowrank::{Error, Result};
use serde_json::{Value, json};

/// Arguments of `predict`.
#[derive(Args)]
pub struct Predict {
    #[command(flatten)]
    adapted: AdaptedArgs,
    #[command(flatten)]
    input: TextArgs,
    #[command(flatten)]
    table: TableArgs,
    /// Column of the text in a table [default: text]
    #[arg(long, value_name = "NAME", requires = "table")]
    text_column: Option<String>,
    /// Column of the second text of each pair in a table, for a model that was trained on pairs [default: as in training]
    #[arg(long, value_name = "NAME", requires = "table")]
    text_pair_column: Option<String>,
    /// Names of the classes in order, if the model has no names
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    labels: Vec<String>,
    /// Print only JSON: one object for texts from arguments, else one line for each text
    #[arg(long)]
    json: bool,
}

impl Predict {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        self.input.check("predict")?;
        let table = self.table.check(self.adapted.inputs())?;
        let mut all = self.adapted.open(user_cache().as_deref())?;
        all.iter_mut().try_for_each(|adapted| self.rename(adapted))?;
        let text_pair_column = pair_column(&all, self.text_pair_column.as_deref())?;
        if text_pair_column.is_some() && self.input.file.is_none() && table.is_none() {
            let problem = "was trained on pairs of texts: give a table of pairs with --data or --file";
            return Err(Error::invalid(format!("{}: {problem}", all[0].name)));
        }
        let options = TableOptions {
            text_column: self.text_column.clone(),
            text_pair_column,
            encoding: self.input.encoding.clone(),
            ..TableOptions::default()
        };
        let Some((data, out)) = &table else { return self.answer(&all, &options).map(|()| Outcome::Done) };
        match &all[..] {
            [adapted] => predict_table::run(adapted, (data, out), &options, BATCH),
            _ => Err(Error::invalid("--data is answered by one model: give one adapter")),
        }
    }

    /// Prints the answers.
    fn answer(&self, all: &[Adapted], options: &TableOptions) -> Result<()> {
        if !self.input.texts.is_empty() {
            return if self.json { self.answer_together(all) } else { self.answer_lines(all, &single(&self.input.texts)) };
        }
        let Some(path) = &self.input.file else { return self.answer_input(all) };
        if let Some(rows) = load_texts(path, options)? {
            let texts: Vec<Text> = rows.iter().map(|row| (row.text.as_str(), row.second.as_deref())).collect();
            return texts.chunks(4 * BATCH).try_for_each(|texts| self.answer_lines(all, texts));
        }
        if let Some(column) = options.text_pair_column.as_ref().or(options.text_column.as_ref()) {
            let problem = format!("is no table with a column {column:?}: expected .csv, .tsv, .json or .jsonl");
            return Err(Error::file(path, "--file", problem));
        }
        let texts: Vec<String> = read_text(path, self.input.encoding.as_deref())?.lines().map(String::from).collect();
        texts.chunks(4 * BATCH).try_for_each(|texts| self.answer_lines(all, &single(texts)))
    }

    /// Sets the names of the classes from `--labels`.
    fn rename(&self, adapted: &mut Adapted) -> Result<()> {
        if self.labels.is_empty() {
            return Ok(());
        }
        let names = Labels::parse(&self.labels)?.names.filter(|names| names.len() == adapted.labels.len());
        match names {
            Some(names) if adapted.is_unnamed() => adapted.labels = names,
            Some(_) => return Err(Error::invalid(format!("--labels: the model's classes have names: {}", adapted.labels.join(", ")))),
            None => return Err(Error::invalid(format!("--labels: the model has {} classes; give a name for each", adapted.labels.len()))),
        }
        Ok(())
    }

    /// Answers the texts from arguments with one JSON object.
    fn answer_together(&self, all: &[Adapted]) -> Result<()> {
        let mut results = Vec::new();
        for adapted in all {
            let rows = answers(adapted, &single(&self.input.texts))?;
            let predictions: Vec<Value> = self.input.texts.iter().zip(&rows).map(|(text, row)| object(adapted, text, row)).collect();
            results.push(json!({ "adapter": adapted.name, "labels": adapted.labels, "predictions": predictions }));
        }
        say_one_or_all(results)
    }

    /// Answers each line of standard input as soon as it arrives.
    fn answer_input(&self, all: &[Adapted]) -> Result<()> {
        // Rank 0 has the input.
        let mut lines = is_first().then(InputLines::new);
        loop {
            let texts = shared(lines.as_mut().map(next_texts).transpose()?.unwrap_or_default())?;
            if texts.is_empty() {
                return Ok(());
            }
            self.answer_lines(all, &single(&texts))?;
        }
    }

    /// Prints one line for each text and model.
    fn answer_lines(&self, all: &[Adapted], texts: &[Text]) -> Result<()> {
        for adapted in all {
            let rows = answers(adapted, texts)?;
            texts.iter().zip(&rows).try_for_each(|(text, row)| say_answer(adapted, all.len() > 1, *text, row, self.json))?;
        }
        Ok(())
    }
}

/// The next lines of the input, none at its end. Further lines than the first only if they have arrived already, so that nobody waits for an answer.
fn next_texts(lines: &mut InputLines) -> Result<Vec<String>> {
    let mut texts: Vec<String> = lines.next().transpose()?.into_iter().collect();
    while !texts.is_empty() && texts.len() < BATCH && lines.is_ready() {
        texts.extend(lines.next().transpose()?);
    }
    Ok(texts)
}

/// A text, and the second text of a pair.
type Text<'a> = (&'a str, Option<&'a str>);

/// Texts that stand alone.
fn single(texts: &[String]) -> Vec<Text<'_>> {
    texts.iter().map(|text| (text.as_str(), None)).collect()
}

/// The scores `[C]` of each text.
fn answers(adapted: &Adapted, texts: &[Text]) -> Result<Vec<Vec<f64>>> {
    let mut encoder = Encoder::new(&adapted.wordpiece);
    let encoded: Vec<Encoded> = texts.iter().map(|(text, second)| Encoded::of(&mut encoder, text, *second, adapted.cut)).collect();
    let windows = Windows::of(&encoded.iter().map(Sequence::from).collect::<Vec<_>>(), adapted.cut.window());
    Ok(scores(adapted, &windows, BATCH, &mut |_| true)?.unwrap_or_default())
}
