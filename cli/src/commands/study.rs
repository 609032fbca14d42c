//! `lowrank study`: runs the study and writes its results.

use super::base::{checked, weights_hash};
use super::common::{Outcome, count, length, say};
use super::notes::{note, warning};
use super::output::{check_apart, output_state, recover};
use super::parts::{Reader, digest};
use super::shard::{FROM_ARRAY, Shard, shard};
use super::signals::{asked_to_stop, catch_signals};
use super::study_watch::Watch;
use super::task::check_pairs;
use super::training_args::TrainingArgs;
use crate::folder::{Lock, check_replaceable_file, lock, replace_file};
use crate::study::{
    Claim, Findings, McNemar, Provenance, Row, RowResult, Study, claim_rows, claims, figures, markdown, neighbours, p_value, processor,
    recipe_lines, report, results_json, rows,
};
use clap::{Args, Command, FromArgMatches};
use lowrank::lora::About;
use lowrank::nn::{Config, DistilBert};
use lowrank::text::repeated;
use lowrank::train::Recipe;
use lowrank::{Error, Result};
use std::ffi::OsStr;
use std::fmt::Display;
use std::hash::Hash;
use std::path::{Path, PathBuf};

/// Files that a study writes, apart from the folders of its rows.
pub(super) const OUTPUTS: [&str; 3] = ["table.md", "results.json", "report.html"];

/// Arguments of `study`.
#[derive(Args)]
pub struct StudyArgs {
    #[command(flatten)]
    args: TrainingArgs,
    /// Folder for results and checkpoints; the same command resumes a study that was stopped
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Rows to run [default: all]: head, qv4, qv8, qv16, attention, all, full; with --claims also further rows (a wrong name lists them)
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    rows: Vec<String>,
    /// Seeds; each row runs once for each seed
    #[arg(long, value_delimiter = ',', default_value = "0")]
    seeds: Vec<u64>,
    /// Multiply the learning rates of all rows; a small encoder with few reviews needs larger steps
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    lr_scale: f64,
    /// Also run the rows that the study's claims need, and judge each claim
    #[arg(long)]
    claims: bool,
    /// Run only part I, from 0, of N parts of the rows and seeds; all write into one shared --out. Without a value: from the variables of a Slurm
    /// array. Afterwards, --collect writes the table
    #[arg(long, value_name = "I/N", num_args = 0..=1, default_missing_value = FROM_ARRAY, value_parser = shard, conflicts_with = "collect")]
    shard: Option<Shard>,
    /// Run nothing: write table and report from the rows that --shard has finished, and name those that are missing
    #[arg(long)]
    collect: bool,
    /// Steps between two checkpoints
    #[arg(long, default_value_t = 100, value_name = "STEPS", value_parser = count::<{ usize::MAX }>)]
    checkpoint_every: usize,
    /// Whether this is the demo. Its output folder also contains its model and data, and it has locked the folder.
    #[arg(skip)]
    demo: bool,
}

impl StudyArgs {
    /// The study in small, on the encoder and the reviews in these folders.
    pub(super) fn demo(encoder: &Path, reviews: &Path, out: &Path) -> Result<StudyArgs> {
        let options = ["--epochs=4", "--lr-scale=5", "--checkpoint-every=1000", "--no-cache", "--model"].map(OsStr::new);
        let words = [OsStr::new("study")].into_iter().chain(options);
        let words = words.chain([encoder.as_os_str(), "--data".as_ref(), reviews.as_ref(), "--out".as_ref(), out.as_ref()]);
        let matches = StudyArgs::augment_args(Command::new("study")).try_get_matches_from(words);
        let args = matches.and_then(|matches| StudyArgs::from_arg_matches(&matches)).map_err(|e| Error::invalid(e.to_string()))?;
        Ok(StudyArgs { demo: true, ..args })
    }

    fn folders(&self, rows: &[Row]) -> impl Iterator<Item = PathBuf> {
        rows.iter().flat_map(|row| self.seeds.iter().map(|&seed| self.out.join(row.folder(seed))))
    }

    /// Locks the output folder. (Each row is locked while it runs, and a shard locks nothing else.) Refuses a folder that contains inputs, or
    /// that has a file with the name of an output which no study wrote.
    fn check_out(&self, rows: &[Row]) -> Result<Option<Lock>> {
        let inputs = self.args.inputs();
        // The demo's model and reviews are in its output folder, so its outputs are checked one by one.
        let outputs = || OUTPUTS.iter().map(|name| self.out.join(name)).chain(self.folders(rows)).collect();
        let places = if self.demo { outputs() } else { vec![self.out.clone()] };
        places.iter().try_for_each(|place| check_apart("--out", place, &inputs))?;
        if self.shard.is_some() {
            return Ok(None);
        }
        let lock = (!self.demo).then(|| lock(&self.out)).transpose()?;
        // The result of a finished run is read, and never replaced. Shards may be at work on rows while others are collected.
        if !self.collect {
            let to_write = self.folders(rows).filter(|folder| !folder.join("result.json").exists());
            to_write.map(|folder| output_state(&folder)).try_for_each(|found| found.map(drop))?;
        }
        OUTPUTS.iter().try_for_each(|name| check_replaceable_file(&self.out, name))?;
        Ok(lock)
    }

    /// The rows of the table, and the further rows of the claims. `--rows` selects from both.
    fn rows(&self, config: &Config) -> Result<[Vec<Row>; 2]> {
        if !(self.lr_scale > 0.0 && self.lr_scale.is_finite()) {
            return Err(Error::invalid(format!("--lr-scale {} must be positive", self.lr_scale)));
        }
        once("--rows", &self.rows)?;
        once("--seeds", &self.seeds)?;
        let all = [rows(config.architecture, self.lr_scale), if self.claims { claim_rows(config, self.lr_scale) } else { Vec::new() }];
        let keys: Vec<&str> = all.iter().flatten().map(|row| row.key.as_str()).collect();
        if let Some(unknown) = self.rows.iter().find(|key| !keys.contains(&key.as_str())) {
            let more = if self.claims { "" } else { "; with --claims there are more" };
            return Err(Error::invalid(format!("--rows {unknown}: there are {}{more}", keys.join(", "))));
        }
        if self.rows.is_empty() {
            return Ok(all);
        }
        Ok([all.into_iter().flatten().filter(|row| self.rows.contains(&row.key)).collect(), Vec::new()])
    }

    /// Runs the rows and writes the results.
    pub(super) fn run(self) -> Result<Outcome> {
        let args = &self.args;
        let config = Config::open(&args.model.path)?;
        let [table, more] = self.rows(&config)?;
        let _lock = self.check_out(&[&table[..], &more[..]].concat())?;
        let recipe = Recipe { epochs: args.epochs, batch: args.batch, ..Recipe::default() };
        recipe.check()?;
        let base_hash = checked(&args.model.path, args.cache.folder().as_deref())?;
        std::fs::create_dir_all(&self.out).map_err(|e| Error::io(&self.out, e))?;
        // Files that were half written when an earlier run was killed.
        if self.shard.is_none() {
            OUTPUTS.iter().try_for_each(|name| recover(&self.out.join(name)))?;
        }
        let cut = args.long.cut(length(args.max_length, config.max_position_embeddings)?, None);
        check_pairs(args.source.text_pair_column.as_deref(), cut)?;
        // The reviews are read once: they are the same for all rows and seeds.
        let reader = Reader::new(args, &config, args.source.labels(None)?, cut, 0)?;
        let (train, test) = reader.train_and_test(0.0)?;
        let cpu = processor();
        let place = |model: &mut DistilBert| Ok(args.device.place(model)?.map_or(cpu.clone(), |gpu| format!("{gpu}; {cpu}")));
        let trained_on = reader.trained_on()?;
        let describe = |model: &DistilBert, folder: &Path, seed| {
            let about = About::new(model, &train.label_names, cut, seed);
            let (trained_on, base_hash) = (Some(trained_on.clone()), Some(base_hash.clone()));
            let text_pair_column = args.source.text_pair_column.clone();
            About { trained_on, base_hash, pairs: train.has_pairs(), text_pair_column, ..about }.write(folder)
        };
        let hashes = [weights_hash(&args.model.path)?, digest(&train), digest(&test)];
        let study = Study {
            model: &args.model.path,
            config: &config,
            hashes: &hashes,
            base: &args.model.name,
            dtype: args.dtype.into(),
            cut,
            recipe,
            train: &train,
            test: &test,
            out: &self.out,
            checkpoint_every: self.checkpoint_every,
            place: &place,
            describe: &describe,
        };
        let results = match self.shard {
            Some(shard) if shard.run(&study, self.runs(&table, &more), &mut Watch::default())? => return Ok(Outcome::Done),
            Some(_) => None,
            None if self.collect => Some(self.collect_rows(&study, &table, &more)?),
            None => self.run_rows(&study, &table, &more)?,
        };
        let Some(results) = results else {
            note!("stopped; {}", if self.demo { "the next run begins anew" } else { "the same command goes on from there" });
            return Ok(Outcome::Interrupted);
        };
        self.report(&study, &reader, &table, &more, &results).map(|()| Outcome::Done)
    }

    /// The results of all rows; `None` if the study was stopped. `table.md` grows with each row.
    fn run_rows(&self, study: &Study, table: &[Row], more: &[Row]) -> Result<Option<Vec<RowResult>>> {
        catch_signals()?;
        let mut watch = Watch::default();
        let mut results = Vec::new();
        for (row, seed) in self.runs(table, more) {
            // Neither a shard nor `train` writes this row meanwhile.
            let _lock = lock(&study.folder(row, seed))?;
            let Some(result) = study.run(row, seed, &mut watch)? else { return Ok(None) };
            results.push(result);
            self.write_table(table, &results)?;
        }
        Ok((!asked_to_stop()).then_some(results))
    }

    /// The results of the rows that are finished; says which are missing. Writes `table.md`.
    fn collect_rows(&self, study: &Study, table: &[Row], more: &[Row]) -> Result<Vec<RowResult>> {
        let mut results = Vec::new();
        for (row, seed) in self.runs(table, more) {
            match study.result(row, seed)? {
                Some(result) => results.push(result),
                None => warning!("missing: {} ({}), seed {seed}", row.key, row.name),
            }
        }
        if results.is_empty() {
            return Err(Error::file(&self.out, "rows", "none is finished yet: run the study with --shard first, with the same arguments"));
        }
        self.write_table(table, &results).map(|()| results)
    }

    fn write_table(&self, table: &[Row], results: &[RowResult]) -> Result<()> {
        self.write("table.md", &format!("{}\n{}", markdown(table, results), recipe_lines(table, results)?))
    }

    /// Prints the table and the tests between its neighbours.
    fn say_table(&self, study: &Study, table: &[Row], results: &[RowResult]) -> Result<()> {
        say(format!("\n{}", markdown(table, results)))?;
        for McNemar { a, b, seed, only_a, only_b, p } in neighbours(table, results, &study.test.labels) {
            let p = p_value(p);
            say(format!("{a} against {b}, seed {seed}: {only_a} and {only_b} reviews that one alone has right, {p} (McNemar)"))?;
        }
        Ok(())
    }

    /// Rows and seeds in running order. The rows of the claims are many, so they run with the first seed only.
    fn runs<'a>(&'a self, table: &'a [Row], more: &'a [Row]) -> impl Iterator<Item = (&'a Row, u64)> {
        let table = table.iter().flat_map(|row| self.seeds.iter().map(move |&seed| (row, seed)));
        table.chain(more.iter().flat_map(|row| self.seeds.first().map(|&seed| (row, seed))))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        replace_file(&self.out, name, text.as_bytes())
    }

    /// Judges the claims if `--claims` is given, writes `results.json` and `report.html`, and prints the results.
    fn report(&self, study: &Study, reader: &Reader, table: &[Row], more: &[Row], results: &[RowResult]) -> Result<()> {
        note!("measuring what changed in the weights, and times of inference");
        let all = [table, more].concat();
        let command = std::env::args_os().map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ");
        let provenance = &Provenance::new(command, self.given(study.hashes), &all, results)?;
        let (evidence, changes) = study.evidence(&all, results, self.claims)?;
        let judged = if self.claims { claims(&evidence) } else { Vec::new() };
        let texts = reader.texts(study.train, study.test);
        let findings = Findings {
            rows: table,
            results,
            labels: &study.test.labels,
            label_names: &study.train.label_names,
            texts: &texts,
            claims: judged,
            changes,
            neighbours: neighbours(table, results, &study.test.labels),
            figures: if self.claims { Vec::new() } else { figures(&evidence) },
        };
        let json = results_json(&findings, provenance, study.config);
        let text = serde_json::to_string_pretty(&json).map_err(|e| Error::file(self.out.join("results.json"), "json", e))?;
        self.write("results.json", &text)?;
        self.write("report.html", &report(&findings, provenance))?;
        // Printed last: whoever closes standard output loses no file.
        self.say_table(study, table, results)?;
        for Claim { claim, verdict, measured, .. } in &findings.claims {
            say(format!("{verdict}: {claim}\n    {measured}"))?;
        }
        say(format!("report.html, results.json and table.md are in {}", self.out.display()))
    }

    /// Names and values of the inputs; all other settings come from the results.
    fn given(&self, [checkpoint, train, test]: &[String; 3]) -> Vec<(String, String)> {
        let facts = [
            ("checkpoint", self.args.model.name.clone()),
            ("SHA-256 of its weights", checkpoint.clone()),
            ("data", self.args.source.data.display().to_string()),
            ("SHA-256 of the training tokens", train.clone()),
            ("SHA-256 of the test tokens", test.clone()),
            ("factor of the study's learning rates", self.lr_scale.to_string()),
        ];
        facts.map(|(name, value)| (name.to_string(), value)).to_vec()
    }
}

/// Refuses an option that has a value twice: one result would count as two.
fn once<T: Eq + Hash + Display>(option: &str, values: &[T]) -> Result<()> {
    match repeated(values) {
        Some(twice) => Err(Error::invalid(format!("{option} {twice}: is given twice, and would be one result only: give it once"))),
        None => Ok(()),
    }
}

/// A word of a command, quoted for a shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_string() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_command_can_be_given_again() {
        assert_eq!(super::quoted("--data=a/b-c.csv"), "--data=a/b-c.csv");
        assert_eq!(super::quoted("it's here"), r"'it'\''s here'");
        assert_eq!(super::quoted(""), "''");
    }

    #[test]
    fn a_value_is_given_once() {
        assert!(super::once("--seeds", &[0, 1]).is_ok());
        assert!(super::once("--seeds", &[0, 1, 0]).is_err_and(|e| e.to_string().contains("--seeds 0: is given twice")));
        assert!(super::once("--rows", &["qv4", "qv4"]).is_err_and(|e| e.to_string().contains("--rows qv4")));
    }
}
