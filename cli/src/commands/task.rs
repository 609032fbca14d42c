//! `train --task`: what the labels are, and which options have a meaning for them.

use super::common::DataArgs;
use clap::ValueEnum;
use lowrank::cut::Cut;
use lowrank::data::{Labels, Spread, Targets, Tokenized};
use lowrank::lora::About;
use lowrank::nn::{Config, Outputs};
use lowrank::text::thousands;
use lowrank::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

/// What the labels are.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TaskArg {
    /// One of several classes
    Classes,
    /// Any number of labels: a|b, or a JSON list
    Labels,
    /// A number: regression
    Numbers,
}

impl From<TaskArg> for Outputs {
    fn from(task: TaskArg) -> Outputs {
        match task {
            TaskArg::Classes => Outputs::Classes,
            TaskArg::Labels => Outputs::Labels,
            TaskArg::Numbers => Outputs::Numbers,
        }
    }
}

/// The name of a task on the command line.
pub fn name(outputs: Outputs) -> &'static str {
    match outputs {
        Outputs::Classes => "classes",
        Outputs::Labels => "labels",
        Outputs::Numbers => "numbers",
    }
}

/// The task of a run: the one `given`, else that of the adapter at `init_from`, else the `problem_type` of the checkpoint's head, else classes.
///
/// # Errors
/// If the head that is kept is for another task than the one given.
pub fn of_run(given: Option<TaskArg>, model: &Path, init_from: Option<&Path>, new_head: bool) -> Result<Outputs> {
    let given = given.map(Outputs::from);
    let (place, own) = match init_from {
        Some(directory) => (directory, About::open(directory)?.map(|about| about.outputs())),
        None if new_head => (model, None),
        None => (model, Config::open(model)?.problem_type.as_deref().and_then(Outputs::named)),
    };
    match (given, own) {
        (Some(given), Some(own)) if given != own => {
            let (task, advice) = (name(given), if init_from.is_some() { "" } else { ", or --new-head for a new head" });
            let problem =
                format!("the head is for {} (--task {}), and --task {task} is given: leave it out{advice}", own.problem_type(), name(own));
            Err(Error::file(place, "\"problem_type\"", problem))
        }
        (given, own) => Ok(given.or(own).unwrap_or_default()),
    }
}

/// The labels of a run for `task`, with the names of the head.
///
/// # Errors
/// Those of [`DataArgs::labels`], and if numbers get names.
pub fn labels(task: Outputs, source: &DataArgs, names: Option<&[String]>) -> Result<Labels> {
    let labels = Labels { outputs: task, ..source.labels(names)? };
    let named = labels.names.as_ref().is_some_and(|names| names.len() > 1) || !labels.renamed.is_empty();
    match task == Outputs::Numbers && named {
        true => Err(Error::invalid("--labels names classes or labels, and --task numbers has one number for each text: leave it out")),
        false => Ok(labels),
    }
}

/// Checks that pairs of texts can be cut as `cut` says.
///
/// # Errors
/// If `--max-length` is too short for a pair, or a part of each pair or windows are asked for.
pub fn check_pairs(pair_column: Option<&str>, cut: Cut) -> Result<()> {
    let problem = match pair_column {
        None => return Ok(()),
        Some(_) if cut.max_length < 5 => {
            let problem = "is too short for pairs of texts: [CLS], two [SEP] and a token of each text need 5";
            format!("--max-length {} {problem}", cut.max_length)
        }
        Some(_) if cut.truncate.is_some() || cut.windows > 1 => {
            "--truncate and --windows are for single texts: of a pair of texts, the longer one is cut first".to_string()
        }
        Some(_) => return Ok(()),
    };
    Err(Error::invalid(problem))
}

/// Refuses an option that is given and has no meaning for the task.
///
/// # Errors
/// If it is given.
pub fn only_for_classes(task: Outputs, option: &str, given: bool) -> Result<()> {
    match given && task != Outputs::Classes {
        true => Err(Error::invalid(format!("{option} is for --task classes, and this is --task {}: leave it out", name(task)))),
        false => Ok(()),
    }
}

/// Adds the task to the settings on which the bytes of a run depend. Classes are left out, as in states that older versions saved.
pub fn add_setting(settings: &mut Value, train: &Tokenized) {
    if let Some(targets) = &train.targets {
        settings["task"] = json!(name(targets.outputs));
    }
}

/// Why nothing can be learned from the training texts, if all have the same number.
pub fn nothing_to_learn(train: &Tokenized) -> Option<String> {
    let targets = train.targets.as_ref()?;
    let mut wanted = train.labels.iter().map(|&label| &targets.rows[label as usize]);
    let first = wanted.next()?;
    wanted.all(|row| row == first).then(|| format!("all {} texts to train on have the label {first:?}", train.len()))
}

/// The spread of numbers in words.
pub fn spread_in_words(Spread { smallest, median, largest, mean, deviation }: &Spread) -> String {
    format!("numbers: {smallest} to {largest}, median {median}, mean {mean:.4}, standard deviation {deviation:.4}")
}

/// The labels or numbers of the training texts in words; `None` for classes.
pub fn in_words(train: &Tokenized) -> Option<String> {
    let Targets { outputs, rows } = train.targets.as_ref()?;
    if *outputs == Outputs::Numbers {
        return Spread::of(train.labels.iter().flat_map(|&label| rows[label as usize].iter().copied()).collect())
            .as_ref()
            .map(spread_in_words);
    }
    let counts: Vec<String> =
        train.label_names.iter().zip(train.class_counts()).map(|(name, count)| format!("{name} {}", thousands(count))).collect();
    let is_none: Vec<bool> = rows.iter().map(|row| row.iter().all(|y| *y < 0.5)).collect();
    let none = train.labels.iter().filter(|&&label| is_none[label as usize]).count();
    Some(format!("labels: {}; {} texts have none", counts.join(", "), thousands(none)))
}
