//! `--out`: the folder for the result. Everything that could overwrite inputs or foreign files is refused before anything is computed.

use super::common::DataArgs;
use crate::folder::{Lock, check_replaceable, lock, recover};
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
pub enum Input<'a> {
    /// The folder of a model or of an adapter. Nothing may be written inside it.
    Model(&'a str, &'a Path),
    /// Data, a vocabulary or a cache, with a name for messages.
    Data(&'a str, PathBuf),
}

impl Input<'_> {
    /// Labelled texts for the test.
    pub fn test(path: &Path) -> Input<'static> {
        Input::Data("the texts to measure on", path.to_path_buf())
    }

    /// The files of labelled texts, and the cache of their tokens.
    pub fn of(source: &DataArgs) -> Vec<Input<'static>> {
        let files = [Split::Train, Split::Validation, Split::Test].into_iter().flat_map(|split| location(&source.data, split));
        let cache = source.cache_folder().map(|folder| Input::Data("the cache", folder));
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
        let (lock, found) = self.look(inputs)?;
        match found {
            OutputState::Unfinished => {
                Err(self.refuse("holds the saved state of a training run that is not finished: choose another --out"))
            }
            found => self.check_finished(found).map(|()| lock),
        }
    }

    /// [`Output::check`] for a run that can resume from its saved state, or discard it (`restart`).
    ///
    /// # Errors
    /// As [`Output::check`].
    pub fn check_run(&self, inputs: &[Input], resume: bool, restart: bool) -> Result<Lock> {
        let (lock, found) = self.look(inputs)?;
        match (found, resume) {
            (OutputState::Unfinished, false) if !restart => Err(self.refuse(
                "holds the saved state of a run that is not finished: give --resume to go on with it, or --restart to throw it away and begin anew",
            )),
            (OutputState::Unfinished, _) => Ok(lock),
            (OutputState::Finished, true) => Err(self.refuse(
                "holds a finished result, so there is nothing to --resume: the run is finished. With --overwrite in place of --resume it is run again",
            )),
            (OutputState::Empty, true) => {
                Err(self.refuse("holds no saved state of a run, so there is nothing to --resume: begin without --resume"))
            }
            (found, false) => self.check_finished(found).map(|()| lock),
        }
    }

    /// Locks the place of the result, and looks what is there.
    fn look(&self, inputs: &[Input]) -> Result<(Lock, OutputState)> {
        check_apart(&self.out, inputs)?;
        let lock = lock(&self.out)?;
        Ok((lock, output_state(&self.out)?))
    }

    fn check_finished(&self, found: OutputState) -> Result<()> {
        match found == OutputState::Finished && !self.overwrite {
            true => Err(self.refuse("holds a finished result: give --overwrite to replace it, or choose another --out")),
            false => Ok(()),
        }
    }

    fn refuse(&self, problem: &str) -> Error {
        Error::file(&self.out, "--out", problem)
    }
}

/// Checks that the output is not an input, contains no input, and is not inside a model or an adapter that is read.
///
/// # Errors
/// If it is; the message names both.
pub fn check_apart(out: &Path, inputs: &[Input]) -> Result<()> {
    let place = canonical(out)?;
    for input in inputs {
        let (what, path, is_model) = match input {
            Input::Model(what, path) => (*what, *path, true),
            Input::Data(what, path) => (*what, path.as_path(), false),
        };
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
        let problem = format!("{how} {what} that this command reads, {}: choose another --out, nothing was changed", path.display());
        return Err(Error::file(out, "--out", problem));
    }
    Ok(())
}

/// The path without links and dots. Its last parts need not exist.
fn canonical(path: &Path) -> Result<PathBuf> {
    let mut start = std::path::absolute(path).map_err(|e| Error::io(path, e))?;
    let mut end = Vec::new();
    loop {
        match fs::canonicalize(&start) {
            Ok(found) => {
                return Ok(end.iter().rev().fold(found, |mut path, part: &std::ffi::OsString| {
                    match Path::new(part).components().next() {
                        Some(Component::ParentDir) => drop(path.pop()),
                        _ => path.push(part),
                    }
                    path
                }));
            }
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                let Some(last) = start.components().next_back().map(|part| part.as_os_str().to_os_string()) else {
                    return Err(Error::io(path, e));
                };
                end.push(last);
                if !start.pop() {
                    return Err(Error::io(path, e));
                }
            }
            Err(e) => return Err(Error::io(path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::write_directory;
    use lowrank::files::write_file;

    /// The word with which the output is refused.
    fn how(out: &Path, inputs: &[Input]) -> String {
        match check_apart(out, inputs) {
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
            vec![Input::Model("the model", &model), Input::Data("the data", at("a/data")), Input::Data("the data", at("a/data/train.tsv"))]
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
        let inputs = || [Input::Model("the model", &model)];
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
