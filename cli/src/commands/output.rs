//! `--out`: the folder for the result. Everything that could overwrite inputs or foreign files is refused before anything is computed.

use super::common::{CacheArgs, DataArgs};
use super::notes::note;
use crate::folder::{self, Lock, check_replaceable, lock};
use clap::Args;
use lowrank::data::{Split, location};
use lowrank::{Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// Arguments for the folder of the result.
#[derive(Args)]
pub struct Output {
    /// Folder for the result, an adapter or a checkpoint; it appears complete or not at all
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace the finished result in --out
    #[arg(long)]
    overwrite: bool,
}

/// An input of a command.
pub enum Input {
    /// The folder of a model or of an adapter. Nothing may be written inside it.
    Model(&'static str, PathBuf),
    /// Data, a vocabulary or a cache, with a name for messages.
    Data(&'static str, PathBuf),
}

impl Input {
    /// Labelled texts for the test.
    pub fn test(path: &Path) -> Input {
        Input::Data("the texts to measure on", path.to_path_buf())
    }

    /// The files of labelled texts, and the cache of their tokens.
    pub fn of(source: &DataArgs, cache: &CacheArgs) -> Vec<Input> {
        let files = [Split::Train, Split::Validation, Split::Test].into_iter().flat_map(|split| location(&source.data, split));
        let cache = cache.folder().map(|folder| Input::Data("the cache", folder));
        let all = std::iter::once(source.data.clone()).chain(files).map(|path| Input::Data("the data", path));
        all.chain(cache).collect()
    }
}

/// The content of an output folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutputState {
    /// Nothing.
    Empty,
    /// The saved state of a run.
    Unfinished,
    /// An adapter or a checkpoint.
    Finished,
}

/// [`folder::recover`], with notes about what stays.
pub fn recover(path: &Path) -> Result<()> {
    folder::recover(path, &mut |text| note!("{text}"))
}

/// The content of the folder `path`.
///
/// # Errors
/// If it holds files that lowrank did not write.
pub fn output_state(path: &Path) -> Result<OutputState> {
    recover(path)?;
    check_replaceable(path)?;
    let has = |name: &str| path.join(name).exists();
    match fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
        false => Ok(OutputState::Empty),
        true if has("checkpoint.safetensors") && has("metrics.jsonl") => Ok(OutputState::Unfinished),
        true => Ok(OutputState::Finished),
    }
}

impl Output {
    /// Checks that no input, finished result or saved run would be lost. Keep the lock as long as something may be written.
    ///
    /// # Errors
    /// If one would be lost; the message says what to do.
    pub fn check(&self, inputs: &[Input]) -> Result<Lock> {
        self.check_state(inputs, false, Some("holds the saved state of a training run that is not finished: choose another --out"))
    }

    /// [`Output::check`] for a run that can resume from its saved state, or discard it (`restart`).
    ///
    /// # Errors
    /// As [`Output::check`].
    pub fn check_run(&self, inputs: &[Input], resume: bool, restart: bool) -> Result<Lock> {
        let problem = "holds the saved state of a run that is not finished: give --resume to go on with it, or --restart to throw it away and begin anew";
        self.check_state(inputs, resume, (!resume && !restart).then_some(problem))
    }

    /// Locks the place of the result. `unfinished`: why the folder is refused if it holds the saved state of a run.
    fn check_state(&self, inputs: &[Input], resume: bool, unfinished: Option<&str>) -> Result<Lock> {
        check_apart("--out", &self.out, inputs)?;
        let lock = lock(&self.out)?;
        let problem = match (output_state(&self.out)?, resume) {
            (OutputState::Unfinished, _) => unfinished,
            (OutputState::Finished, true) => Some(
                "holds a finished result, so there is nothing to --resume: the run is finished. With --overwrite in place of --resume it is run again",
            ),
            (OutputState::Empty, true) => Some("holds no saved state of a run, so there is nothing to --resume: begin without --resume"),
            (OutputState::Finished, false) if !self.overwrite => {
                Some("holds a finished result: give --overwrite to replace it, or choose another --out")
            }
            _ => None,
        };
        problem.map_or(Ok(lock), |problem| Err(Error::file(&self.out, "--out", problem)))
    }
}

/// Checks that the output, which `option` names, is not an input, contains no input, and is not inside a model or an adapter that is read.
///
/// # Errors
/// If it is; the message names both.
pub fn check_apart(option: &str, out: &Path, inputs: &[Input]) -> Result<()> {
    let place = canonical(out)?;
    for input in inputs {
        let (Input::Model(what, path) | Input::Data(what, path)) = input;
        let is_model = matches!(input, Input::Model(..));
        let read = canonical(path)?;
        // The files of a snapshot in the hub's cache are links to other folders.
        let mut files = match (is_model, fs::read_dir(path)) {
            (true, Ok(entries)) => entries.flatten().map(|entry| canonical(&entry.path())).collect::<Result<_>>()?,
            _ => Vec::new(),
        };
        files.retain(|file| !file.starts_with(&read));
        let how = if place == read {
            "is"
        } else if read.starts_with(&place) || files.iter().any(|file| file.starts_with(&place)) {
            "contains"
        } else if is_model && place.starts_with(&read) {
            "lies inside"
        } else {
            continue;
        };
        let problem = format!("{how} {what} that this command reads, {}: choose another {option}, nothing was changed", path.display());
        return Err(Error::file(out, option, problem));
    }
    Ok(())
}

/// The path without links and dots. Its last parts need not exist.
fn canonical(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|e| Error::io(path, e))?;
    match (fs::canonicalize(&absolute), absolute.parent(), absolute.components().next_back()) {
        (Ok(found), ..) => Ok(found),
        (Err(e), Some(parent), Some(last)) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            let mut found = canonical(parent)?;
            match last {
                Component::ParentDir => drop(found.pop()),
                _ => found.push(last),
            }
            Ok(found)
        }
        (Err(e), ..) => Err(Error::io(path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::write_directory;
    use lowrank::files::write_file;

    /// The word with which the output is refused.
    fn how(out: &Path, inputs: &[Input]) -> String {
        match check_apart("--out", out, inputs) {
            Ok(()) => "apart".to_string(),
            Err(e) => e.to_string().split("--out: ").nth(1).unwrap().split(" the").next().unwrap().to_string(),
        }
    }

    #[test]
    fn an_output_is_apart_from_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("a/model")).unwrap();
        fs::create_dir_all(at("a/data")).unwrap();
        fs::write(at("a/data/train.tsv"), "").unwrap();
        let model = at("a/model");
        let inputs = || {
            vec![
                Input::Model("the model", model.clone()),
                Input::Data("the data", at("a/data")),
                Input::Data("the data", at("a/data/train.tsv")),
            ]
        };
        for (out, wanted) in [
            ("a/model", "is"),
            ("a/model/", "is"),
            ("a/./data/../model", "is"),
            ("a/new/../model", "is"),
            ("a", "contains"),
            ("a/model/deep/new", "lies inside"),
            ("a/data", "is"),
            ("a/data/train.tsv", "is"),
            ("a/data/adapter", "apart"),
            ("a/models", "apart"),
            ("b/a/model", "apart"),
            ("a/new/../../b", "apart"),
        ] {
            assert_eq!(how(&at(out), &inputs()), wanted, "{out}");
        }
        assert_eq!(how(Path::new("/"), &inputs()), "contains");
        // A folder that does not exist yet is known by where it will be.
        assert_eq!(how(&at("c"), &[Input::Data("the cache", at("c/cache"))]), "contains");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("hub/snapshots/1")).unwrap();
        fs::create_dir_all(at("blobs/x")).unwrap();
        fs::write(at("blobs/x/weights"), "").unwrap();
        symlink(at("blobs/x/weights"), at("hub/snapshots/1/model.safetensors")).unwrap();
        symlink(at("hub"), at("link")).unwrap();
        let model = at("link/snapshots/1");
        let inputs = || [Input::Model("the model", model.clone())];
        for (out, wanted) in [
            ("hub/snapshots/1", "is"),
            ("link", "contains"),
            ("hub", "contains"),
            ("blobs", "contains"),
            ("hub/snapshots/1/new", "lies inside"),
        ] {
            assert_eq!(how(&at(out), &inputs()), wanted, "{out}");
        }
        assert_eq!(how(&at("hub/snapshots/2"), &inputs()), "apart");
        symlink(at("nowhere"), at("broken")).unwrap();
        assert!(output_state(&at("broken")).is_err_and(|e| e.to_string().contains("leads nowhere")));
    }

    #[test]
    fn the_content_of_an_output_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        assert_eq!(output_state(&out).unwrap(), OutputState::Empty);
        fs::create_dir(&out).unwrap();
        assert_eq!(output_state(&out).unwrap(), OutputState::Empty);
        let written = |names: &[&str]| {
            write_directory(&out, |d| names.iter().try_for_each(|name| write_file(&d.join(name), b"{}"))).unwrap();
            output_state(&out).unwrap()
        };
        assert_eq!(written(&["checkpoint.safetensors", "metrics.jsonl"]), OutputState::Unfinished);
        assert_eq!(written(&["adapter_config.json", "lowrank.json"]), OutputState::Finished);
        fs::write(out.join("README.md"), "mine").unwrap();
        assert!(output_state(&out).is_err_and(|e| e.to_string().contains("README.md")));
    }
}
