//! `lowrank demo`: runs the study on the bundled encoder and the bundled reviews.

#[cfg(feature = "serve")]
use super::adapted::{AdaptedArgs, Named};
#[cfg(feature = "serve")]
use super::common::Checkpoint;
use super::common::{Outcome, say};
use super::notes::{is_quiet, note};
use super::output::recover;
use super::study::{OUTPUTS, StudyArgs, quoted};
use crate::folder::{self, Lock, MARKER, check_replaceable, check_replaceable_file, replace_file, write_directory};
use crate::study::rows;
use clap::Args;
use lowrank::files::write_file;
use lowrank::nn::Architecture;
use lowrank::{Error, Result, assets};
use std::fs;
use std::path::Path;

/// Output folder, in the current folder.
const OUT: &str = "lowrank-demo";
/// Subfolders with the bundled files.
const ENCODER: &str = "encoder";
const REVIEWS: &str = "reviews";
/// What the study writes last.
#[cfg(feature = "serve")]
const LAST: &str = "report.html";

/// The bundled files by folder.
const BUNDLED: [(&str, &assets::Files); 2] = [(ENCODER, assets::ENCODER), (REVIEWS, assets::REVIEWS)];

/// Tells a person what the folder is.
const README: &str = "`lowrank demo` made this folder. Its next run replaces what it wrote here, so keep nothing of your own in it.\n";

/// Arguments of `demo`.
#[derive(Args)]
pub struct Demo {
    /// Serve a page to try the adapters. The study runs first, unless an earlier run has finished it
    #[cfg(feature = "serve")]
    #[arg(long)]
    serve: bool,
    #[cfg(feature = "serve")]
    #[command(flatten)]
    place: super::serve::PlaceArgs,
}

impl Demo {
    /// Runs the command.
    #[cfg(feature = "serve")]
    pub(super) fn run(self) -> Result<Outcome> {
        if !self.serve && (self.place.open || self.place.port.is_some()) {
            return Err(Error::invalid("demo: --port and --open are for the page of --serve: give that too"));
        }
        let made = || exists(&Path::new(OUT).join(LAST));
        if !self.serve || !made()? {
            let outcome = run()?;
            if !self.serve || matches!(outcome, Outcome::Interrupted) {
                return Ok(outcome);
            }
        }
        super::serve::on(&adapters()?, &self.place)
    }

    /// Runs the command.
    #[cfg(not(feature = "serve"))]
    pub(super) fn run(self) -> Result<Outcome> {
        run()
    }
}

/// The adapters that the demo trained, on its encoder. Full fine-tuning gives a checkpoint, which is no adapter.
#[cfg(feature = "serve")]
fn adapters() -> Result<AdaptedArgs> {
    let out = Path::new(OUT);
    let named = |row: &crate::study::Row| {
        let directory = out.join(row.folder(0));
        Named { name: Some(row.key.clone()), given: directory.display().to_string(), directory }
    };
    let all = rows(Architecture::DistilBert, 1.0)
        .iter()
        .map(named)
        .filter(|named| named.directory.join("adapter_config.json").exists())
        .collect();
    let encoder = out.join(ENCODER);
    Ok(AdaptedArgs::on_cpu(Checkpoint { name: encoder.display().to_string(), path: encoder }, all, false))
}

/// Runs the study.
fn run() -> Result<Outcome> {
    let out = Path::new(OUT);
    let _lock = prepare(out)?;
    note!(
        "The study's seven configurations on an encoder of 1.8 million numbers and 1,000 short film reviews, both bundled. About two minutes."
    );
    let [encoder, reviews] = [ENCODER, REVIEWS].map(|name| out.join(name));
    let outcome = StudyArgs::demo(&encoder, &reviews, out)?.run()?;
    if matches!(outcome, Outcome::Interrupted) || is_quiet() {
        return Ok(outcome);
    }
    let program = std::env::args_os().next().map_or_else(|| "lowrank".to_string(), |program| quoted(&program.to_string_lossy()));
    say("\nThe folder has the model, the data and the results. This command computes one number of the table again, from its adapter:")?;
    say(format!("  {program} eval --model {} --adapter {OUT}/qv8-seed0 --data {}", encoder.display(), reviews.display()))?;
    #[cfg(feature = "serve")]
    say(format!("\nThis opens a page to try the adapters, and to see how they think:\n  {program} demo --serve"))?;
    say("\nThe encoder is tiny and the reviews are hard (irony, negation, understatement). The real study:")?;
    say("  cargo install --path cli")?;
    say("  lowrank fetch distilbert-base-uncased imdb")?;
    say("  lowrank study --model distilbert-base-uncased --data imdb --out study --claims")?;
    Ok(outcome)
}

/// Locks the folder, makes it with the bundled files, and removes the results of an earlier run. Keep the lock while the study runs.
///
/// # Errors
/// If another process has the lock, or a file that would be replaced was not written by the demo; then nothing is removed or written.
fn prepare(out: &Path) -> Result<Lock> {
    // If `out` is a link, it is refused here, before the lock file is made beside it.
    exists(out)?;
    let lock = folder::lock(out)?;
    if !exists(out)? {
        fs::create_dir(out).map_err(|e| Error::io(out, e))?;
    }
    let marker = out.join(MARKER);
    recover(&marker)?;
    let empty = fs::read_dir(out).map_err(|e| Error::io(out, e))?.next().is_none();
    if !empty && !exists(&marker)? {
        return Err(foreign(out, "was not made by this version of `lowrank demo`"));
    }
    for (folder, files) in BUNDLED {
        check_bundled(&out.join(folder), files)?;
    }
    // The demo runs seed 0 only.
    let rows: Vec<_> = rows(Architecture::DistilBert, 1.0).iter().map(|row| out.join(row.folder(0))).collect();
    for row in &rows {
        recover(row)?;
        if exists(row)? {
            check_replaceable(row)?;
        }
    }
    for name in OUTPUTS {
        exists(&out.join(name))?;
        check_replaceable_file(out, name)?;
    }
    replace_file(out, "README.md", README.as_bytes())?;
    for file in OUTPUTS.map(|name| out.join(name)).iter().filter(|file| file.exists()) {
        fs::remove_file(file).map_err(|e| Error::io(file, e))?;
    }
    rows.iter().filter(|row| row.exists()).try_for_each(|row| folder::remove(row))?;
    for (folder, files) in BUNDLED {
        let folder = out.join(folder);
        recover(&folder)?;
        if !folder.exists() {
            write_directory(&folder, |directory| files.iter().try_for_each(|(name, bytes)| write_file(&directory.join(name), bytes)))?;
        }
    }
    Ok(lock)
}

/// Checks that `folder`, if it exists, contains exactly these files. Another encoder would give other numbers.
fn check_bundled(folder: &Path, files: &assets::Files) -> Result<()> {
    if !exists(folder)? {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path != folder.join(MARKER) && !files.iter().any(|(name, _)| path == folder.join(name)) {
            return Err(foreign(&path, "was not written by the demo"));
        }
    }
    for (name, bytes) in files {
        let path = folder.join(name);
        if !exists(&path)? || fs::read(&path).map_err(|e| Error::io(&path, e))? != *bytes {
            return Err(foreign(&path, "is not as the demo writes it"));
        }
    }
    Ok(())
}

/// Whether the path exists. A link is refused, so that nothing is written outside of the folder.
fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(foreign(path, "is a link, which the demo does not follow")),
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(path, e)),
    }
}

fn foreign(path: &Path, problem: &str) -> Error {
    let place = if path.is_dir() { "folder" } else { "file" };
    Error::file(path, place, format!("{problem}; nothing was changed: move it away, or run the demo in another folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(out: &Path, what: &str) {
        let e = prepare(out).unwrap_err().to_string();
        assert!(e.contains(what) && e.contains("move it away"), "{e}");
    }

    #[test]
    fn the_demo_replaces_what_it_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join(OUT);
        for _ in 0..2 {
            prepare(&out).unwrap();
            for (folder, files) in BUNDLED {
                for (name, bytes) in files {
                    assert!(fs::read(out.join(folder).join(name)).unwrap() == *bytes, "{name}");
                }
            }
            // As a study leaves them, and a study that was killed while it wrote.
            assert!(!out.join("qv8-seed0").exists() && !out.join("table.md").exists());
            write_directory(&out.join("qv8-seed0"), |folder| write_file(&folder.join("result.json"), b"{}")).unwrap();
            replace_file(&out, "table.md", b"|").unwrap();
            fs::create_dir_all(out.join(".qv4-seed0.partial-0123456789abcdef")).unwrap();
            fs::write(out.join("notes.txt"), "mine").unwrap();
        }
        // Under a name that is not the demo's, everything stays.
        assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "mine");
    }

    #[test]
    fn a_second_demo_removes_nothing_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join(OUT);
        let first = prepare(&out).unwrap();
        write_directory(&out.join("qv8-seed0"), |folder| write_file(&folder.join("result.json"), b"{}")).unwrap();
        replace_file(&out, "table.md", b"|").unwrap();
        let second = prepare(&out).unwrap_err().to_string();
        assert!(
            second.contains("another process") && out.join("qv8-seed0/result.json").exists() && out.join("table.md").exists(),
            "{second}"
        );
        drop(first);
        prepare(&out).unwrap();
        assert!(!out.join("qv8-seed0").exists());
    }

    #[test]
    fn what_another_wrote_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join(OUT);
        // A folder of that name that the demo did not make, whatever is in it.
        fs::create_dir(&out).unwrap();
        fs::write(out.join("results.json"), "mine").unwrap();
        refused(&out, "was not made by");
        assert_eq!(fs::read_to_string(out.join("results.json")).unwrap(), "mine");
        fs::remove_file(out.join("results.json")).unwrap();
        prepare(&out).unwrap();
        // Something of another in the demo's folder.
        for (path, problem) in [
            ("encoder/tokenizer.json", "was not written by the demo"),
            ("reviews/train.tsv", "is not as the demo writes it"),
            ("encoder/model.safetensors", "is not as the demo writes it"),
        ] {
            let before = fs::read(out.join(path)).ok();
            fs::write(out.join(path), "mine").unwrap();
            refused(&out, problem);
            assert_eq!(fs::read_to_string(out.join(path)).unwrap(), "mine");
            match before {
                Some(bytes) => fs::write(out.join(path), bytes).unwrap(),
                None => fs::remove_file(out.join(path)).unwrap(),
            }
        }
        for path in ["qv8-seed0/notes.txt", "table.md"] {
            fs::create_dir_all(out.join(path).parent().unwrap()).unwrap();
            fs::write(out.join(path), "mine").unwrap();
            assert!(prepare(&out).unwrap_err().to_string().contains(path.rsplit('/').next().unwrap()));
            assert_eq!(fs::read_to_string(out.join(path)).unwrap(), "mine");
            fs::remove_file(out.join(path)).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (out, victim) = (dir.path().join(OUT), dir.path().join("victim"));
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("config.json"), "mine").unwrap();
        std::os::unix::fs::symlink(&victim, &out).unwrap();
        refused(&out, "is a link");
        fs::remove_file(&out).unwrap();
        prepare(&out).unwrap();
        for name in ["head-seed0", "table.md", "encoder", "reviews"] {
            let path = out.join(name);
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            }
            std::os::unix::fs::symlink(&victim, &path).unwrap();
            refused(&out, "is a link");
            fs::remove_file(&path).unwrap();
        }
        prepare(&out).unwrap();
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(victim.join("config.json")).unwrap(), "mine");
    }
}
