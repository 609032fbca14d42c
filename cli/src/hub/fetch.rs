//! Which files belong to a model, to an adapter and to the data, and what the user is told if a download fails.

use super::cache::{NEEDED, NEEDED_BY_ADAPTER, Repo, VOCABULARIES, is_adapter, is_plain, is_whole};
use super::curl::{Ask, request};
use super::download::{DownloadProgress, Patience, download};
use super::partial_file::RemoteFile;
use super::room::check_room;
use super::settings::{Hub, HubName, hub_name, no_model};
use super::trouble::{Refusal, Tried, Trouble};
use super::url;
use lowrank::{Error, Result};
use std::path::{Path, PathBuf};

/// All files of a model that are downloaded, the large one last.
const FILES: [&str; 7] = [
    "config.json",
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "model.safetensors",
];

/// All files of an adapter, the large one last.
const ADAPTER_FILES: [&str; 3] = ["adapter_config.json", "lowrank.json", "adapter_model.safetensors"];

/// A model, adapter or data set that is present now.
pub struct Fetched {
    /// The folder of the model or adapter, or the archive of the data.
    pub path: PathBuf,
    /// Whether it is an adapter.
    pub is_adapter: bool,
    /// Whether anything had to be downloaded.
    pub downloaded: bool,
}

/// Downloads `name`, a model or adapter on the hub or `imdb`, unless it is already present. `@revision` after the name chooses a branch, a tag or a
/// commit.
///
/// # Errors
/// There is nothing of that name, no curl, no network, no access or no disk space, or the content has another hash. What was received before
/// the error is kept, and the next call resumes.
pub fn fetch(hub: &Hub, name: &str, progress: &mut dyn DownloadProgress) -> Result<Fetched> {
    if name == "imdb" { fetch_imdb(hub, progress) } else { fetch_model(hub, name, progress) }
}

fn fetch_imdb(hub: &Hub, progress: &mut dyn DownloadProgress) -> Result<Fetched> {
    let path = hub.home.join(&hub.imdb.file);
    let lock = hub.home.join(format!("{}.lock", hub.imdb.file));
    let imdb = &hub.imdb;
    let wanted = RemoteFile { name: &imdb.file, url: &imdb.url, size: imdb.size, sha256: Some(&imdb.sha256), path: &path, lock: &lock };
    if wanted.exists() {
        return Ok(Fetched { path, is_adapter: false, downloaded: false });
    }
    let by_hand = || format!("{} to {}", url::shown(&imdb.url), path.display());
    let refused = |r: Refusal| {
        let advice = format!("set LOWRANK_IMDB_URL to a mirror, or put the archive at {}", path.display());
        Error::invalid(format!("{}: status {}; {advice}", r.url, r.status))
    };
    check_room("imdb", &url::shown(&imdb.url), &hub.home, &[(&path, imdb.size)])?;
    let downloaded = download(hub, &wanted, progress).map_err(|trouble| explain(trouble, by_hand, refused))?;
    Ok(Fetched { path, is_adapter: false, downloaded })
}

/// A file of a model or adapter, as the hub describes it.
struct HubFile {
    file: &'static str,
    commit: String,
    etag: String,
    size: u64,
}

fn fetch_model(hub: &Hub, name: &str, progress: &mut dyn DownloadProgress) -> Result<Fetched> {
    let wanted = hub_name(Path::new(name)).ok_or_else(|| no_model(Path::new(name)))?;
    let HubName { name, revision, .. } = wanted;
    let repo = Repo::new(&hub.cache, name);
    let done = |path: PathBuf, downloaded| Fetched { is_adapter: is_adapter(&path), path, downloaded };
    if let Some(path) = repo.snapshot(revision).filter(|folder| is_whole(folder)) {
        return Ok(done(path, false));
    }
    let list = || FILES.map(|file| address(hub, name, revision, file)).join(", ");
    let by_hand = || format!("{} into a folder, and name the folder instead", list());
    let fetched = entries(hub, wanted, progress).and_then(|entries| {
        let blobs: Vec<PathBuf> = entries.iter().map(|entry| repo.blob(&entry.etag)).collect();
        let files: Vec<(&Path, u64)> = blobs.iter().map(PathBuf::as_path).zip(entries.iter().map(|entry| entry.size)).collect();
        check_room(name, &url::shown(&hub.endpoint), &hub.cache, &files)?;
        let mut downloaded = false;
        for entry in &entries {
            downloaded |= fetch_entry(hub, name, &repo, entry, progress)?;
        }
        let commit = &entries[0].commit;
        // Last, so that an interrupted run leaves the revision unchanged.
        repo.point(revision, commit)?;
        Ok(done(repo.snapshot_of(commit), downloaded))
    });
    fetched.map_err(|trouble| explain(trouble, by_hand, |refusal| refused(hub, wanted, &refusal)))
}

fn address(hub: &Hub, name: &str, revision: &str, file: &str) -> String {
    format!("{}/{name}/resolve/{revision}/{file}", hub.endpoint)
}

/// The files to fetch: at least one, and all of the same commit. What lacks a file of a model may be an adapter.
fn entries(hub: &Hub, wanted: HubName, progress: &mut dyn DownloadProgress) -> Tried<Vec<HubFile>> {
    let name = wanted.name;
    let entries = match all_of(hub, wanted, &FILES, &NEEDED, progress) {
        Err(Trouble::Status(of_model))
            if of_model.status == 404 && of_model.code != "RepoNotFound" && of_model.code != "RevisionNotFound" =>
        {
            let is_config = |refusal: &Refusal| refusal.status == 404 && refusal.url.ends_with(NEEDED_BY_ADAPTER[0]);
            return match all_of(hub, wanted, &ADAPTER_FILES, &NEEDED_BY_ADAPTER, progress) {
                Err(Trouble::Status(refusal)) if is_config(&refusal) => Err(Trouble::Status(of_model)),
                found_or_failed => found_or_failed,
            };
        }
        found_or_failed => found_or_failed?,
    };
    if !entries.iter().any(|entry| VOCABULARIES.contains(&entry.file)) {
        let problem = format!("{name}: has neither {} on {}", VOCABULARIES.join(" nor "), hub.endpoint);
        return Err(Error::invalid(format!("{problem}; choose a model that brings its vocabulary")).into());
    }
    Ok(entries)
}

/// Those of `files` that there are. A file of `needed` that is missing is an error.
fn all_of(hub: &Hub, wanted: HubName, files: &[&'static str], needed: &[&str], progress: &mut dyn DownloadProgress) -> Tried<Vec<HubFile>> {
    let mut entries: Vec<HubFile> = Vec::new();
    for &file in files {
        let revision = entries.first().map_or(wanted.revision, |first| &first.commit).to_string();
        match look(hub, wanted.name, &revision, file, progress) {
            Ok(entry) => {
                entries.iter().try_for_each(|other| check_together(hub, wanted.name, other, &entry))?;
                entries.push(entry);
            }
            Err(Trouble::Status(refusal)) if refusal.status == 404 && !needed.contains(&file) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(entries)
}

/// Checks that two files are of one commit, and that only files of one size have the same ETag. Otherwise one would lie in the folder of another commit, or
/// in the place of the other.
fn check_together(hub: &Hub, name: &str, one: &HubFile, other: &HubFile) -> Result<()> {
    let apart = |what, first: &str, second: &str| {
        let problem = format!("{} has {what} {first}, and {} has {second}", one.file, other.file);
        Error::invalid(format!("{name}: {problem}: no hub answers so; check {}, or the proxy", url::shown(&hub.endpoint)))
    };
    if one.commit != other.commit {
        return Err(apart("the commit", &one.commit, &other.commit));
    }
    match one.etag == other.etag && one.size != other.size {
        true => Err(apart("the ETag of the other and the size", &one.size.to_string(), &other.size.to_string())),
        false => Ok(()),
    }
}

/// Asks the hub for the commit, the tag and the size of a file.
fn look(hub: &Hub, name: &str, revision: &str, file: &'static str, progress: &mut dyn DownloadProgress) -> Tried<HubFile> {
    let url = address(hub, name, revision, file);
    let mut patience = Patience::new(hub);
    let answer = loop {
        match request(hub, &url, Ask::Head) {
            Ok(answer) => break answer,
            Err(trouble) => patience.after(trouble, false, progress)?,
        }
    };
    let missing = |what| {
        Error::invalid(format!("{}: the answer tells no {what}; check HF_ENDPOINT: this is not the hub, or a proxy hides it", answer.url))
    };
    let commit = answer.header("x-repo-commit").filter(|commit| is_plain(commit)).ok_or_else(|| missing("commit"))?;
    // A large file: the ETag of its content. The plain ETag would be that of the redirect.
    let linked = answer.header("x-linked-etag");
    let etag = linked.or(answer.header("etag")).map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
    let etag = etag.filter(|tag| is_plain(tag)).ok_or_else(|| missing("ETag"))?;
    let size = answer.number("x-linked-size").or(answer.number("content-length").filter(|_| answer.status == 200));
    let size = size.ok_or_else(|| missing("size"))?;
    Ok(HubFile { file, commit: commit.into(), etag: etag.into(), size })
}

/// Puts a file into its snapshot. Returns whether it had to be downloaded.
fn fetch_entry(hub: &Hub, name: &str, repo: &Repo, entry: &HubFile, progress: &mut dyn DownloadProgress) -> Tried<bool> {
    let HubFile { file, commit, etag, size } = entry;
    if repo.snapshot_of(commit).join(file).metadata().is_ok_and(|m| m.len() == *size) {
        return Ok(false);
    }
    // The ETag of a large file is its SHA-256; that of a file in git is a hash of git's own.
    let sha256 = (etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit())).then_some(etag.as_str());
    // Address by commit: `main` may move in the meantime.
    let url = address(hub, name, commit, file);
    let (path, lock) = (repo.blob(etag), repo.lock(etag));
    let downloaded = download(hub, &RemoteFile { name: file, url: &url, size: *size, sha256, path: &path, lock: &lock }, progress)?;
    repo.link(commit, file, etag, downloaded)?;
    Ok(downloaded)
}

/// The error message for a request that the hub refused.
fn refused(hub: &Hub, HubName { name, revision, .. }: HubName, refusal: &Refusal) -> Error {
    let (status, url) = (refusal.status, &refusal.url);
    let page = format!("{}/{name}", hub.endpoint);
    let file = NEEDED.iter().chain(&NEEDED_BY_ADAPTER).find(|file| url.ends_with(&format!("/{file}"))).unwrap_or(&"this file");
    Error::invalid(match (status, refusal.code.as_str()) {
        (401 | 403, "GatedRepo") | (403, _) => {
            format!("{name}: access refused (status {status}); accept its terms at {page} and set HF_TOKEN to a token that may read it")
        }
        (401, _) if hub.token.is_some() => format!("{name}: no such model at {page}, or HF_TOKEN may not read it (status 401); check both"),
        (401, _) => format!("{name}: no such model at {page}, or a private one (status 401); check the name, or set HF_TOKEN"),
        (404, "EntryNotFound") => format!("{name}: has no {file} at {page}; choose a model that has: nothing else is read here"),
        (404, "RevisionNotFound") => format!("{name}: has no branch, tag or commit {revision:?} at {page}; check it"),
        (404, _) => format!("{name}: no such model at {page}; check the name"),
        _ => format!("{url}: status {status}"),
    })
}

/// The error message for a failed download. `by_hand` says what to download to which place without curl.
fn explain(trouble: Trouble, by_hand: impl Fn() -> String, refused: impl Fn(Refusal) -> Error) -> Error {
    match trouble {
        Trouble::NoCurl => {
            Error::invalid(format!("fetch needs the program curl, which is not here; install it, or download {}", by_hand()))
        }
        Trouble::Unreachable(why) => Error::invalid(why),
        Trouble::Passing(why) => Error::invalid(format!("{why}; run again to go on from there")),
        Trouble::Status(refusal) => refused(refusal),
        Trouble::Lasting(e) => e,
    }
}
