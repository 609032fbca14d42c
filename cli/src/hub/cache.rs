//! The cache of `huggingface_hub`: `models--owner--name/{blobs/<etag>, refs/<revision>, snapshots/<commit>/<file>}`, and lock files.

use lowrank::files::{parent, read_text, remove_leftovers, temporary, write_file};
use lowrank::{Error, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files without which there is no model, the small one first.
pub const NEEDED: [&str; 2] = ["config.json", "model.safetensors"];

/// Files without which there is no adapter, the small one first.
pub const NEEDED_BY_ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// Files that hold a vocabulary; one of them is enough.
pub const VOCABULARIES: [&str; 2] = ["vocab.txt", "tokenizer.json"];

/// The folder of one model in the cache.
pub struct Repo {
    folder: PathBuf,
    locks: PathBuf,
}

impl Repo {
    /// The model `name` in the cache folder `root`.
    pub fn new(root: &Path, name: &str) -> Repo {
        let folder = format!("models--{}", name.replace('/', "--"));
        Repo { locks: root.join(".locks").join(&folder), folder: root.join(folder) }
    }

    /// The snapshot that `revision` points to: a branch, a tag, or a commit itself.
    pub fn snapshot(&self, revision: &str) -> Option<PathBuf> {
        if is_commit(revision) {
            return Some(self.snapshot_of(revision));
        }
        let commit = read_text(&self.folder.join("refs").join(revision)).ok()?;
        is_plain(commit.trim()).then(|| self.snapshot_of(commit.trim()))
    }

    /// The folder with the files of a commit.
    pub fn snapshot_of(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The file with the content that has this ETag.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Lock file for a download of this content; `huggingface_hub` uses the same one.
    pub fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    /// Lets `revision` point to `commit`. A commit needs no pointer.
    pub fn point(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        fs::create_dir_all(parent(&path)).map_err(|e| Error::io(&path, e))?;
        write_file(&path, commit.as_bytes())
    }

    /// Links the content `etag` as the file `file` of a snapshot. `new`: no other snapshot uses this content yet.
    pub fn link(&self, commit: &str, file: &str, etag: &str, new: bool) -> Result<()> {
        self.link_by(symlink, commit, file, etag, new)
    }

    fn link_by(&self, symlink: fn(&Path, &Path) -> io::Result<()>, commit: &str, file: &str, etag: &str, new: bool) -> Result<()> {
        let (path, blob) = (self.snapshot_of(commit).join(file), self.blob(etag));
        let relative = Path::new("../../blobs").join(etag);
        replace(&path, |temporary| match symlink(&relative, temporary) {
            Ok(()) => Ok(()),
            // Links are possible here, but the disk is full.
            Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Err(e),
            // No symbolic links: Windows without developer mode, and some file systems.
            Err(_) if new => fs::rename(&blob, temporary),
            Err(_) => fs::copy(&blob, temporary).map(|_| ()),
        })
    }
}

/// Whether an ETag or a commit from the network is safe to use as a file name.
pub fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.len() <= 128 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether a revision is the full hash of a commit.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a folder holds an adapter.
pub fn is_adapter(folder: &Path) -> bool {
    NEEDED_BY_ADAPTER.iter().all(|file| folder.join(file).is_file())
}

/// Whether a folder holds a model.
pub fn is_model(folder: &Path) -> bool {
    NEEDED.iter().all(|file| folder.join(file).is_file())
}

/// Whether a folder holds all of what is fetched: a model and a vocabulary, or an adapter where there is no model.
pub fn is_whole(folder: &Path) -> bool {
    let has_vocabulary = || VOCABULARIES.iter().any(|file| folder.join(file).is_file());
    if folder.join(NEEDED[0]).is_file() { is_model(folder) && has_vocabulary() } else { is_adapter(folder) }
}

/// Calls `make` with a temporary path, then moves the result to `path` in one step. The caller holds the lock of the content.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let temporary = temporary(path)?;
    remove_leftovers(path);
    let made = fs::create_dir_all(parent(path)).and_then(|()| make(&temporary)).and_then(|()| fs::rename(&temporary, path));
    made.map_err(|e| {
        // If removing fails too, the first error is the one to report.
        let _ = fs::remove_file(&temporary);
        Error::io(path, e)
    })
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    // Windows needs backslashes in a link.
    std::os::windows::fs::symlink_file(target.components().collect::<PathBuf>(), link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(root: &Path) -> Repo {
        let repo = Repo::new(root, "owner/name");
        fs::create_dir_all(repo.blob("x").parent().unwrap()).unwrap();
        fs::write(repo.blob("e1"), "content").unwrap();
        repo
    }

    #[test]
    fn without_links_the_file_itself_is_in_the_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let repo = repo(dir.path());
        let none = |_: &Path, _: &Path| Err(io::ErrorKind::PermissionDenied.into());
        repo.link_by(none, "c1", "a", "e1", false).unwrap();
        assert!(repo.blob("e1").exists(), "another snapshot may need it");
        repo.link_by(none, "c2", "a", "e1", true).unwrap();
        assert!(!repo.blob("e1").exists());
        for commit in ["c1", "c2"] {
            assert_eq!(fs::read_to_string(repo.snapshot_of(commit).join("a")).unwrap(), "content");
            assert_eq!(repo.snapshot_of(commit).read_dir().unwrap().count(), 1, "no temporary file stays");
        }
    }

    #[test]
    fn a_full_disk_does_not_mean_that_there_are_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let repo = repo(dir.path());
        let full = |_: &Path, _: &Path| Err(io::ErrorKind::StorageFull.into());
        let refused = repo.link_by(full, "c1", "a", "e1", true).unwrap_err().to_string();
        assert!(refused.contains("snapshots"), "{refused}");
        assert_eq!(fs::read_to_string(repo.blob("e1")).unwrap(), "content", "the next run links it");
        assert_eq!(repo.snapshot_of("c1").read_dir().unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_relative_and_replace_broken_ones() {
        let dir = tempfile::tempdir().unwrap();
        let repo = repo(dir.path());
        let path = dir.path().join("models--owner--name/snapshots/c1/a");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(Path::new("../../blobs/gone"), &path).unwrap();
        repo.link("c1", "a", "e1", true).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("../../blobs/e1"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    }

    #[test]
    fn main_is_read_as_others_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let repo = repo(dir.path());
        assert_eq!(repo.snapshot("main"), None);
        repo.point("main", "c1").unwrap();
        assert_eq!(fs::read(dir.path().join("models--owner--name/refs/main")).unwrap(), b"c1");
        assert_eq!(repo.snapshot("main"), Some(repo.snapshot_of("c1")));
        let commit = "12040accade4e8a0f71eabdb258fecc2e7e948be";
        repo.point(commit, commit).unwrap();
        assert_eq!((repo.snapshot(commit), repo.snapshot("v1")), (Some(repo.snapshot_of(commit)), None));
        assert_eq!(fs::read_dir(dir.path().join("models--owner--name/refs")).unwrap().count(), 1, "a commit has no pointer");
        for hostile in ["../../..", "", "/etc"] {
            fs::write(dir.path().join("models--owner--name/refs/main"), hostile).unwrap();
            assert_eq!(repo.snapshot("main"), None, "{hostile}");
        }
    }
}
