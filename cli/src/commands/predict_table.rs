//! `predict --data`: answers for the rows of a table, as further columns of a copy.

use super::adapted::Adapted;
use super::answer::{self, scores};
use super::common::Outcome;
use super::notes::note;
use super::output::Input;
use super::output_file::OutputFile;
use super::progress::RowProgress;
use super::ranks::is_first;
use super::signals::{asked_to_stop, catch_signals};
use crate::table::{Column, Format, Sink, Table, sink};
use clap::Args;
use lowrank::cut::Windows;
use lowrank::data::{Encoded, Encoder, Record, Sequence, TableOptions};
use lowrank::text::thousands;
use lowrank::{Error, Result};
use std::path::{Path, PathBuf};

/// The table that is read, and the one that is written.
#[derive(Args)]
pub struct TableArgs {
    /// Table whose rows are classified: .csv, .tsv, .jsonl or .json (also with .gz), or .parquet. It is read as a stream, however long it is
    #[arg(long, value_name = "FILE", group = "table", requires = "out", conflicts_with_all = ["json", "texts"])]
    data: Option<PathBuf>,
    /// Table to write, in any of these formats: all columns of --data, then the label, its probability and one column for each class (or the labels and a
    /// column for each; or the number). It appears complete or not at all
    #[arg(long, value_name = "FILE", requires = "data")]
    out: Option<PathBuf>,
    /// Replace the file --out
    #[arg(long, requires = "out")]
    overwrite: bool,
}

/// Rows that are computed at once, sorted by length, and then written in their order.
const ROWS: usize = 4096;
/// Bytes of the rows that are computed at once, about. It bounds the memory where texts are long.
const BYTES: usize = 16 << 20;

impl TableArgs {
    /// The table to read and the file to write, if they were given. Checks, before anything is computed, that it can be written. `inputs`: what else is
    /// read.
    ///
    /// # Errors
    /// If a name is not that of a table, or an input or another file would be lost.
    pub fn check(&self, inputs: Vec<Input>) -> Result<Option<(&Path, OutputFile)>> {
        let (Some(data), Some(out)) = (&self.data, &self.out) else { return Ok(None) };
        Format::of(data, "--data")?;
        Format::of(out, "--out")?;
        let inputs: Vec<Input> = inputs.into_iter().chain([Input::Data("the table", data.to_path_buf())]).collect();
        Ok(Some((data, OutputFile::check("--out", out, self.overwrite, &inputs)?)))
    }
}

/// Writes the rows of the table at `data` with the answers of `adapted` to `out`, `batch` texts at a time.
///
/// # Errors
/// If a row is malformed, a name of a new column is taken, or the file cannot be written. Then nothing is written.
pub fn run(adapted: &Adapted, (data, out): (&Path, &OutputFile), options: &TableOptions, batch: usize) -> Result<Outcome> {
    catch_signals()?;
    let stopped = || {
        note!("stopped: nothing was written");
        Ok(Outcome::Interrupted)
    };
    let mut progress = RowProgress::new();
    let Some(table) = Table::open(data, options, &mut |rows| {
        progress.checked(rows);
        !asked_to_stop()
    })?
    else {
        return stopped();
    };
    let added = columns(adapted, &table, data)?;
    progress.start(table.rows());
    let done = match is_first() {
        true => out.write_with(|file| Work::new(adapted, batch, progress, Some(sink(&out.given, file, &table, &added)?)).run(&table))?,
        false => Work::new(adapted, batch, progress, None).run(&table)?,
    };
    if done.is_none() {
        return stopped();
    }
    note!("{} rows with their answers written to {}", thousands(table.rows()), out.given.display());
    Ok(Outcome::Done)
}

/// The columns of the answers. If the table has a column with one of their names, all get a prefix.
fn columns(adapted: &Adapted, table: &Table, path: &Path) -> Result<Vec<Column>> {
    let mut all = answer::columns(adapted);
    let taken = |all: &[Column]| {
        let is_taken = |new: &&Column| table.columns().iter().any(|old| old.trim().to_lowercase() == new.name.to_lowercase());
        all.iter().find(is_taken).map(|new| new.name.clone())
    };
    let Some(name) = taken(&all) else { return Ok(all) };
    all.iter_mut().for_each(|column| column.name.insert_str(0, "predicted_"));
    if let Some(both) = taken(&all) {
        let problem = format!("there are columns {name:?} and {both:?} already, the names of the answers: rename or remove them");
        return Err(Error::file(path, "header", problem));
    }
    note!("the table has a column {name:?}: the names of the new columns begin with \"predicted_\"");
    Ok(all)
}

/// Classifies rows, some thousands at once.
struct Work<'a> {
    adapted: &'a Adapted,
    batch: usize,
    encoder: Encoder<'a>,
    /// Rows that wait, with their ids.
    rows: Vec<(Record, Encoded)>,
    /// Their size, about.
    bytes: usize,
    progress: RowProgress,
    /// `None` if another rank writes.
    sink: Option<Box<dyn Sink + 'a>>,
}

impl<'a> Work<'a> {
    fn new(adapted: &'a Adapted, batch: usize, progress: RowProgress, sink: Option<Box<dyn Sink + 'a>>) -> Work<'a> {
        Work { adapted, batch, encoder: Encoder::new(&adapted.wordpiece), rows: Vec::new(), bytes: 0, progress, sink }
    }

    /// Classifies all rows; `None` if it was stopped.
    fn run(mut self, table: &Table) -> Result<Option<()>> {
        let copied = self.sink.as_ref().is_none_or(|sink| sink.copies());
        let ended = table.each(copied, &mut |record, text, second| {
            let encoded = Encoded::of(&mut self.encoder, &text, second.as_deref(), self.adapted.cut);
            self.bytes += 2 * (text.len() + second.map_or(0, |second| second.len())) + 4 * encoded.ids.len() + record.bytes();
            self.rows.push((record, encoded));
            if self.rows.len() < ROWS && self.bytes < BYTES { Ok(true) } else { self.flush() }
        });
        let done = ended? && self.flush()?;
        self.progress.bar.finish();
        if !done {
            return Ok(None);
        }
        self.sink.map_or(Ok(()), |sink| sink.finish()).map(Some)
    }

    /// Classifies and writes the rows that wait. Returns false if it was stopped.
    fn flush(&mut self) -> Result<bool> {
        let (adapted, rows) = (self.adapted, std::mem::take(&mut self.rows));
        let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) else { return Ok(true) };
        self.bytes = 0;
        let windows = Windows::of(&rows.iter().map(|(_, text)| Sequence::from(text)).collect::<Vec<_>>(), adapted.cut.window());
        let mut go_on = |done| {
            self.progress.update(done);
            !asked_to_stop()
        };
        let scores = scores(adapted, &windows, self.batch, &mut go_on)
            .map_err(|e| Error::invalid(format!("{} to {}: {e}", first.place, last.place)))?;
        let Some(scores) = scores else { return Ok(false) };
        drop(windows);
        self.progress.done(rows.len());
        let Some(sink) = &mut self.sink else { return Ok(true) };
        rows.into_iter().zip(scores).try_for_each(|((record, _), row)| sink.row(record, answer::answers(adapted, &row)))?;
        Ok(true)
    }
}
