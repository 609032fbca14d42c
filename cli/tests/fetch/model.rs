//! Models: the hub's answers, its cache, and who gets the token.

use super::server::{Answer, Asked, Server};
use super::{TOKEN, Told, files, hub, no_curl, noise, sha256};
use lowrank_cli::hub::{Hub, fetch};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const COMMIT: &str = "12040accade4e8a0f71eabdb258fecc2e7e948be";
const CONFIG: &[u8] = b"{\"model_type\": \"distilbert\"}";
const VOCAB: &[u8] = b"[PAD]\n[UNK]\n";
/// ETags in the form of git hashes, for `CONFIG` and `VOCAB`.
const TAGS: [&str; 2] = ["10c66461e4c109db5a2196bff4bb59be30396ed8", "fb140275c155a9c7c5a3b3e0e77a9e839594a938"];

fn weights() -> Vec<u8> {
    noise(300_000)
}

/// The hub, and its CDN: another server with another name.
struct World {
    dir: tempfile::TempDir,
    site: Server,
    cdn: Arc<Server>,
    hub: Hub,
}

impl World {
    /// `first` may answer before the hub does.
    fn new(first: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> World {
        let dir = tempfile::tempdir().unwrap();
        let cdn =
            Arc::new(Server::start(|asked| Answer::ranged(asked, &weights()).with(format!("ETag: \"{}\"", sha256(b"the CDN's own")))));
        let to = cdn.at("localhost");
        let site = Server::start(move |asked| first(asked).unwrap_or_else(|| answer(asked, &to)));
        let hub = hub(dir.path(), site.at("127.0.0.1"), b"");
        World { dir, site, cdn, hub }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join("hub").join(name)
    }

    fn fails(&self, message: &str) {
        let error = fetch(&self.hub, "owner/name", &mut Told::default()).err().unwrap().to_string();
        assert!(error.contains(message) && !error.contains(TOKEN), "should say {message:?}: {error}");
        let main = self.folder("models--owner--name/refs/main");
        assert!(!main.exists(), "main stands for whole snapshots");
    }
}

/// Answers as the hub does: small files from git, perhaps redirected to a cache; large files from the CDN.
fn answer(asked: &Asked, cdn: &str) -> Answer {
    let not_found = || Answer::new(404).with("X-Error-Code: EntryNotFound");
    let small = |body: &[u8], tag: &str| Answer::new(200).with(format!("ETag: W/\"{tag}\"")).body(body);
    let file = asked.path.rsplit('/').next().unwrap();
    let found = match file {
        "config.json" => small(CONFIG, TAGS[0]),
        "vocab.txt" if asked.path.starts_with("/api/resolve-cache/") => small(VOCAB, TAGS[1]),
        "vocab.txt" => Answer::new(307).with(format!("Location: /api/resolve-cache/models/name/{COMMIT}/vocab.txt")),
        "model.safetensors" => {
            let (tag, size) = (format!("X-Linked-Etag: \"{}\"", sha256(&weights())), format!("X-Linked-Size: {}", weights().len()));
            let tag = Answer::new(302).with(format!("Location: {cdn}/blob?signature=secret")).with(tag).with(size);
            tag.with("ETag: \"of-the-pointer\"").body(b"Found. Redirecting")
        }
        _ => not_found(),
    };
    found.with(format!("X-Repo-Commit: {COMMIT}"))
}

#[test]
fn a_model_lies_where_huggingface_hub_keeps_it() {
    if no_curl() {
        return;
    }
    let world = World::new(|_| None);
    let name = Path::new("owner/name");
    let missing = world.hub.model_path(name).unwrap_err().to_string();
    assert!(missing.contains("run: lowrank fetch owner/name"), "{missing}");
    let mut told = Told::default();
    let fetched = fetch(&world.hub, "owner/name", &mut told).unwrap();
    let repo = world.folder("models--owner--name");
    let snapshot = repo.join("snapshots").join(COMMIT);
    assert_eq!((&fetched.path, fetched.downloaded), (&snapshot, true));
    assert_eq!(world.hub.model_path(name).unwrap(), snapshot);
    let hash = sha256(&weights());
    let in_snapshot = ["config.json", "model.safetensors", "vocab.txt"].map(|file| format!("snapshots/{COMMIT}/{file}"));
    let mut want: Vec<PathBuf> = in_snapshot.iter().map(PathBuf::from).collect();
    want.extend([TAGS[0], TAGS[1], &hash].map(|tag| PathBuf::from(format!("blobs/{tag}"))));
    want.push("refs/main".into());
    want.sort();
    assert_eq!(files(&repo), want, "nothing else stays");
    assert_eq!(fs::read(repo.join("refs/main")).unwrap(), COMMIT.as_bytes());
    for (file, tag, content) in [("config.json", TAGS[0], CONFIG), ("vocab.txt", TAGS[1], VOCAB), ("model.safetensors", &hash, &weights())]
    {
        assert!(fs::read(snapshot.join(file)).unwrap() == content, "{file}");
        if cfg!(unix) {
            assert_eq!(fs::read_link(snapshot.join(file)).unwrap(), Path::new("../../blobs").join(tag));
        }
    }
    assert_eq!(told.bytes.last().unwrap(), &("model.safetensors".to_string(), 300_000, 300_000));
    // Finished: no further request.
    let before = world.site.log().len();
    assert!(!fetch(&world.hub, "owner/name", &mut Told::default()).unwrap().downloaded);
    assert_eq!(world.site.log().len(), before);
}

#[cfg(unix)]
#[test]
fn all_names_are_fetched_though_nobody_reads_what_is_printed() {
    if no_curl() {
        return;
    }
    let world = World::new(|_| None);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.args(["fetch", "owner/name", "owner/other"]).env("HF_ENDPOINT", &world.hub.endpoint).env("HF_HUB_CACHE", &world.hub.cache);
    command.env("LOWRANK_HOME", &world.hub.home).env_remove("HF_TOKEN").env("HF_HOME", &world.hub.home);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    for name in ["owner/name", "owner/other"] {
        assert!(world.hub.model_path(Path::new(name)).unwrap().join("model.safetensors").exists(), "{name}");
    }
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    if no_curl() {
        return;
    }
    let mut world = World::new(|_| None);
    if cfg!(unix) {
        // Replaces curl and records its arguments. A shell writes it, because a file that this process had open for writing could be busy.
        let script = world.dir.path().join("curl");
        let text = "#!/bin/sh\nprintf '%s\\n' \"$*\" >> \"$0.log\"\nexec curl \"$@\"\n";
        let make = ["-c", "printf %s \"$1\" > \"$0\" && chmod +x \"$0\"", script.to_str().unwrap(), text];
        assert!(std::process::Command::new("sh").args(make).status().unwrap().success());
        world.hub.curl = script.into();
    }
    fetch(&world.hub, "owner/name", &mut Told::default()).unwrap();
    let bearer = format!("Bearer {TOKEN}");
    assert!(world.site.log().iter().all(|asked| asked.header("authorization") == Some(&bearer)), "{:?}", world.site.log());
    let cdn = world.cdn.log();
    assert!(!cdn.is_empty() && !cdn.iter().any(|asked| asked.headers.contains(TOKEN) || asked.path.contains(TOKEN)), "{cdn:?}");
    assert!(world.cdn.asked("HEAD").is_empty(), "the hub's own headers describe the file");
    if cfg!(unix) {
        let calls = fs::read_to_string(world.dir.path().join("curl.log")).unwrap();
        assert!(calls.lines().count() > 5 && calls.lines().all(|line| line == "--disable --config -"), "{calls}");
    }
    // Content is requested by commit, because main may move in the meantime.
    assert!(world.site.asked("GET").iter().all(|asked| asked.path.contains(COMMIT)));
}

#[test]
fn renamed_models_and_mirrors_are_followed() {
    if no_curl() {
        return;
    }
    let renamed = |asked: &Asked| {
        let rest = asked.path.strip_prefix("/old")?;
        Some(Answer::new(307).with(format!("Location: /owner/new{rest}")))
    };
    let world = World::new(renamed);
    let path = fetch(&world.hub, "old", &mut Told::default()).unwrap().path;
    assert_eq!(path, world.folder("models--old/snapshots").join(COMMIT), "under the name that was asked for");
    assert!(fs::read(path.join("model.safetensors")).unwrap() == weights());
    assert_eq!(world.site.log()[0].path, "/old/resolve/main/config.json");
    // An endpoint that redirects everything to the hub: the hub is another server, so it gets no token.
    let to = world.site.at("localhost");
    let mirror = World::new(move |asked| Some(Answer::new(308).with(format!("Location: {to}{}", asked.path))));
    let before = world.site.log().len();
    let path = fetch(&mirror.hub, "owner/name", &mut Told::default()).unwrap().path;
    assert!(fs::read(path.join("model.safetensors")).unwrap() == weights());
    let after = world.site.log().split_off(before);
    assert!(!after.is_empty() && after.iter().all(|asked| asked.header("authorization").is_none()));
}

#[test]
fn refusals_say_what_to_do() {
    if no_curl() {
        return;
    }
    let all = |status: u16, code: &'static str| World::new(move |_| Some(Answer::new(status).with(format!("X-Error-Code: {code}"))));
    all(401, "RepoNotFound").fails("owner/name: no such model at http://127.0.0.1");
    all(401, "RepoNotFound").fails("or HF_TOKEN may not read it (status 401)");
    let mut anonymous = all(401, "RepoNotFound");
    anonymous.hub.token = None;
    anonymous.fails("check the name, or set HF_TOKEN");
    all(403, "GatedRepo").fails("accept its terms at http://127.0.0.1");
    all(404, "RepoNotFound").fails("owner/name: no such model at");
    let without = |file: &'static str| {
        World::new(move |asked| asked.path.ends_with(file).then(|| Answer::new(404).with("X-Error-Code: EntryNotFound")))
    };
    without("model.safetensors").fails("has no model.safetensors at");
    without("config.json").fails("has no config.json at");
    without("vocab.txt").fails("has neither vocab.txt nor tokenizer.json");
    World::new(|_| Some(Answer::new(200).body(CONFIG).with("ETag: \"a\""))).fails("tells no commit; check HF_ENDPOINT");
    let hostile = format!("X-Repo-Commit: {COMMIT}");
    World::new(move |_| Some(Answer::new(200).body(CONFIG).with(&hostile).with("ETag: \"../../../x\""))).fails("tells no ETag");
    let mut absent = World::new(|_| None);
    absent.hub.curl = "/nowhere/curl".into();
    absent.fails("/owner/name/resolve/main/model.safetensors into a folder");
    let names = ["./imdb", "a/b/c", "/tmp", "..", "a--b", "-a", "", "a b", "a\n"];
    for name in names {
        let error = fetch(&absent.hub, name, &mut Told::default()).err().unwrap().to_string();
        assert!(error.contains("expected the folder of a checkpoint, or a model's name"), "{name:?}: {error}");
    }
}

#[test]
fn answers_that_no_hub_gives_are_refused() {
    if no_curl() {
        return;
    }
    let vocab = |header: &'static str, body: &'static [u8]| {
        World::new(move |asked| {
            let answer = || Answer::new(200).body(body).with(header).with(format!("X-Repo-Commit: {COMMIT}"));
            asked.path.ends_with("vocab.txt").then(answer)
        })
    };
    let same_tag = "ETag: \"10c66461e4c109db5a2196bff4bb59be30396ed8\"";
    vocab(same_tag, VOCAB).fails("the ETag of the other and the size");
    let moved = World::new(|asked| {
        let answer = || Answer::new(200).body(VOCAB).with(format!("ETag: \"{}\"", TAGS[1])).with("X-Repo-Commit: other");
        asked.path.ends_with("vocab.txt").then(answer)
    });
    moved.fails("has the commit");
    assert!(moved.site.asked("GET").is_empty(), "before the first byte");
    // Too many headers before a body that fills every buffer. curl must not wait for its reader while the reader waits for curl.
    let padding = format!("X-Padding: {}", "a".repeat(70_000));
    let world = World::new(move |asked| {
        let padded = || (0..4).fold(Answer::new(200).body(&noise(4 << 20)), |answer, _| answer.with(&padding));
        (asked.method == "GET" && asked.path.ends_with("config.json")).then(padded)
    });
    world.fails("has more than 256 KiB of headers");
}

#[cfg(unix)]
#[test]
fn named_pipes_in_the_cache_do_not_hang() {
    if no_curl() {
        return;
    }
    let world = World::new(|_| None);
    let pipe = |path: &str| {
        let path = world.folder(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    };
    let main = pipe("models--owner--name/refs/main");
    for hidden in [format!("models--owner--name/blobs/{}.incomplete", TAGS[0]), format!(".locks/models--owner--name/{}.lock", TAGS[1])] {
        let pipe = pipe(&hidden);
        let error = fetch(&world.hub, "owner/name", &mut Told::default()).err().unwrap().to_string();
        assert!(error.contains("is a named pipe") && error.contains(pipe.to_str().unwrap()), "{error}");
        fs::remove_file(pipe).unwrap();
    }
    fetch(&world.hub, "owner/name", &mut Told::default()).unwrap();
    assert_eq!(fs::read(main).unwrap(), COMMIT.as_bytes());
}

#[cfg(unix)]
#[test]
fn a_size_beyond_the_disk_is_refused_before_the_first_byte() {
    if no_curl() {
        return;
    }
    // Some petabytes in a header of the hub, and the most that a length can say.
    for (promise, size) in [("X-Linked-Size", 1_u64 << 52), ("Content-Length", u64::MAX)] {
        let world = World::new(move |asked| {
            let tag = format!("X-Linked-Etag: \"{}\"", sha256(&weights()));
            let answer =
                || Answer::new(200).unmeasured().with(format!("{promise}: {size}")).with(format!("X-Repo-Commit: {COMMIT}")).with(&tag);
            asked.path.ends_with("model.safetensors").then(answer)
        });
        // The small files come on top, and the sum does not wrap around.
        let sum = size.saturating_add((CONFIG.len() + VOCAB.len()) as u64);
        world.fails(&format!("owner/name: {} promises {sum} bytes", world.hub.endpoint));
        world.fails("set HF_HOME");
        assert_eq!(world.site.asked("GET").len(), 0, "{promise}");
        assert_eq!(files(&world.folder("")), [] as [&Path; 0], "{promise}");
    }
}

/// Answers for owner/adapter, which has no model; without the file `lacks`.
fn answer_adapter(asked: &Asked, lacks: &str) -> Option<Answer> {
    let rest = asked.path.strip_prefix("/owner/adapter/resolve/")?;
    let (revision, file) = rest.split_once('/')?;
    let known = ["v1", COMMIT].contains(&revision);
    let found = match file {
        _ if !known => Answer::new(404).with("X-Error-Code: RevisionNotFound"),
        "adapter_config.json" if file != lacks => Answer::new(200).with(format!("ETag: \"{}\"", TAGS[0])).body(CONFIG),
        "adapter_model.safetensors" if file != lacks => {
            Answer::new(200).with(format!("X-Linked-Etag: \"{}\"", sha256(&weights()))).body(&weights())
        }
        _ => Answer::new(404).with("X-Error-Code: EntryNotFound"),
    };
    Some(found.with(format!("X-Repo-Commit: {COMMIT}")))
}

#[test]
fn an_adapter_is_fetched_by_name_and_revision() {
    if no_curl() {
        return;
    }
    let world = World::new(|asked| answer_adapter(asked, ""));
    let name = Path::new("owner/adapter@v1");
    let missing = world.hub.adapter_path(name).unwrap_err().to_string();
    assert!(missing.contains("owner/adapter@v1: no such folder") && missing.contains("run: lowrank fetch owner/adapter@v1"), "{missing}");
    let fetched = fetch(&world.hub, "owner/adapter@v1", &mut Told::default()).unwrap();
    let snapshot = world.folder("models--owner--adapter/snapshots").join(COMMIT);
    assert_eq!((&fetched.path, fetched.is_adapter, fetched.downloaded), (&snapshot, true, true));
    assert_eq!(files(&snapshot), ["adapter_config.json", "adapter_model.safetensors"].map(PathBuf::from));
    assert!(fs::read(snapshot.join("adapter_model.safetensors")).unwrap() == weights());
    assert_eq!(files(&world.folder("models--owner--adapter/refs")), [PathBuf::from("v1")]);
    assert_eq!(world.hub.adapter_path(name).unwrap(), snapshot);
    let by_commit = format!("owner/adapter@{COMMIT}");
    assert_eq!(world.hub.adapter_path(Path::new(&by_commit)).unwrap(), snapshot);
    assert!(!fetch(&world.hub, &by_commit, &mut Told::default()).unwrap().downloaded);
    assert!(world.hub.adapter_path(Path::new("owner/adapter")).unwrap_err().to_string().contains("run: lowrank fetch owner/adapter"));
    assert!(world.hub.model_path(name).is_err(), "an adapter is no model");
    // A folder, and what can be no name on the hub, stay as they are.
    for local in [world.dir.path(), Path::new("./adapter"), Path::new("adapter"), Path::new("a/b/c")] {
        assert_eq!(world.hub.adapter_path(local).unwrap(), local);
    }
    let fails = |world: &World, name: &str, message: &str| {
        let error = fetch(&world.hub, name, &mut Told::default()).err().unwrap().to_string();
        assert!(error.contains(message), "{name:?} should say {message:?}: {error}");
    };
    fails(&world, "owner/adapter@v2", "has no branch, tag or commit \"v2\"");
    for name in ["owner/adapter@", "owner/adapter@../x", "owner/adapter@a@b", "owner/adapter@-x", "owner/adapter@a/b"] {
        fails(&world, name, "expected the folder of a checkpoint, or a model's name");
    }
    let lacking = World::new(|asked| answer_adapter(asked, "adapter_model.safetensors"));
    fails(&lacking, "owner/adapter@v1", "owner/adapter: has no adapter_model.safetensors at");
    assert!(files(&lacking.folder("")).is_empty(), "nothing was downloaded");
    fails(&World::new(|asked| answer_adapter(asked, "adapter_config.json")), "owner/adapter@v1", "has no config.json at");
}

#[test]
fn a_wrong_hash_leaves_the_rest_of_the_model() {
    if no_curl() {
        return;
    }
    let lies = World::new(|asked| {
        let get = asked.method == "GET" && asked.path.ends_with("model.safetensors");
        get.then(|| Answer::new(200).body(&noise(300_001)[1..]))
    });
    lies.fails("expected the SHA-256");
    let blobs = files(&lies.folder("models--owner--name/blobs"));
    assert_eq!(blobs, TAGS.map(PathBuf::from), "neither the file nor a part of it");
    assert!(lies.hub.model_path(Path::new("owner/name")).is_err());
    // Bytes that were received are not requested again.
    let world = World::new(|_| None);
    fs::rename(lies.folder(""), world.folder("")).unwrap();
    fetch(&world.hub, "owner/name", &mut Told::default()).unwrap();
    let asked: Vec<String> = world.site.asked("GET").into_iter().map(|asked| asked.path).collect();
    assert_eq!(asked, [format!("/owner/name/resolve/{COMMIT}/model.safetensors")]);
}

#[test]
fn names_lead_to_folders() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), "http://127.0.0.1:9".into(), b"");
    assert_eq!(hub.model_path(dir.path()).unwrap(), dir.path());
    let missing = hub.model_path(&dir.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("none: no such folder; expected") && !missing.contains("run: "), "{missing}");
    // A snapshot by transformers, without a vocabulary yet.
    let snapshot = dir.path().join("hub/models--distilbert-base-uncased/snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(dir.path().join("hub/models--distilbert-base-uncased/refs")).unwrap();
    fs::write(dir.path().join("hub/models--distilbert-base-uncased/refs/main"), COMMIT).unwrap();
    fs::write(snapshot.join("config.json"), CONFIG).unwrap();
    let name = Path::new("distilbert-base-uncased");
    assert!(hub.model_path(name).unwrap_err().to_string().contains("run: lowrank fetch distilbert-base-uncased"));
    fs::write(snapshot.join("model.safetensors"), weights()).unwrap();
    assert_eq!(hub.model_path(name).unwrap(), snapshot);
    assert_eq!(hub.data_path(Path::new("reviews.csv")).unwrap(), Path::new("reviews.csv"));
}
