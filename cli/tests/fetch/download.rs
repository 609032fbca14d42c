//! Downloads of one file, with all kinds of failures.

use super::server::{Answer, Asked, Server};
use super::{TOKEN, Told, files, hub, no_curl, noise};
use lowrank_cli::hub::{Hub, fetch};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Longer than the buffers of curl and of the pipes.
const LENGTH: usize = 700_000;

struct Case {
    dir: tempfile::TempDir,
    server: Server,
    hub: Hub,
    told: Told,
}

impl Case {
    /// A server that answers request n, counted from 0.
    fn new(answer: impl Fn(usize, &Asked, &[u8]) -> Answer + Send + Sync + 'static) -> Case {
        let dir = tempfile::tempdir().unwrap();
        let (content, count) = (noise(LENGTH), AtomicUsize::new(0));
        let server = Server::start(move |asked| answer(count.fetch_add(1, Ordering::SeqCst), asked, &content));
        let hub = hub(dir.path(), server.at("127.0.0.1"), &noise(LENGTH));
        Case { dir, server, hub, told: Told::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("home").join(name)
    }

    /// The part that an earlier run left.
    fn left(&self, bytes: &[u8]) {
        std::fs::create_dir_all(self.path("")).unwrap();
        std::fs::write(self.path("reviews.tgz.incomplete"), bytes).unwrap();
    }

    fn succeeds(&mut self) {
        let fetched = fetch(&self.hub, "imdb", &mut self.told).unwrap();
        assert_eq!((fetched.path, fetched.downloaded), (self.path("reviews.tgz"), true));
        assert!(std::fs::read(self.path("reviews.tgz")).unwrap() == noise(LENGTH), "content");
        assert_eq!(files(&self.path("")), [Path::new("reviews.tgz")]);
        let last = self.told.bytes.last().unwrap();
        assert_eq!(last, &("reviews.tgz".to_string(), LENGTH as u64, LENGTH as u64));
    }

    /// Fails with this message, and leaves these files.
    fn fails(&mut self, message: &str, left: &[&str]) {
        let error = fetch(&self.hub, "imdb", &mut self.told).err().unwrap().to_string();
        assert!(error.contains(message) && !error.contains(TOKEN), "should say {message:?}: {error}");
        assert_eq!(files(&self.path("")), left.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    /// First byte of each request's range.
    fn ranges(&self) -> Vec<Option<usize>> {
        self.server.log().iter().map(Asked::from).collect()
    }
}

#[test]
fn what_is_here_is_not_downloaded_again() {
    if no_curl() {
        return;
    }
    let mut case = Case::new(|_, asked, content| Answer::ranged(asked, content));
    let data = case.hub.data_path(Path::new("imdb")).unwrap_err().to_string();
    assert!(data.contains("run: lowrank fetch imdb"), "{data}");
    case.succeeds();
    let done: Vec<u64> = case.told.bytes.iter().map(|(_, done, _)| *done).collect();
    assert!(done[0] == 0 && done.len() > 2 && done.is_sorted(), "{done:?}");
    assert!(!fetch(&case.hub, "imdb", &mut case.told).unwrap().downloaded);
    assert_eq!(case.server.log().len(), 1);
    assert_eq!(case.hub.data_path(Path::new("imdb")).unwrap(), case.path("reviews.tgz"));
    // A file of another length is another file.
    std::fs::write(case.path("reviews.tgz"), "half").unwrap();
    case.succeeds();
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    if no_curl() {
        return;
    }
    for reset in [false, true] {
        let mut case = Case::new(move |n, asked, content| {
            let answer = Answer::ranged(asked, content);
            if n < 6 { answer.cut(100_000, reset) } else { answer }
        });
        case.succeeds();
        let want: Vec<_> = (0..7).map(|n| (n > 0).then_some(n * 100_000)).collect();
        assert_eq!(case.ranges(), want, "reset {reset}: six cuts are more than the tries without a new byte");
        assert!(case.told.notes.len() == 6 && case.told.notes[0].contains("trying again"), "{:?}", case.told.notes);
    }
}

#[test]
fn another_process_goes_on_where_the_first_was_stopped() {
    if no_curl() {
        return;
    }
    let mut case = Case::new(|_, asked, content| Answer::ranged(asked, content));
    case.left(&noise(LENGTH)[..300_001]);
    case.succeeds();
    assert_eq!(case.ranges(), [Some(300_001)]);
    assert_eq!(case.told.bytes[0].1, 300_001);
    // Killed after the last byte and before the renaming.
    let mut case = Case::new(|_, _, _| Answer::new(500));
    case.left(&noise(LENGTH));
    case.succeeds();
    assert_eq!(case.server.log().len(), 0);
}

#[test]
fn useless_rests_are_given_up() {
    if no_curl() {
        return;
    }
    let good = |_: usize, asked: &Asked, content: &[u8]| Answer::ranged(asked, content);
    let mut longer = Case::new(good);
    longer.left(&noise(LENGTH + 1));
    longer.succeeds();
    assert_eq!(longer.ranges(), [None]);
    let mut other = Case::new(good);
    other.left(&[7; 5]);
    other.succeeds();
    assert_eq!(other.ranges(), [Some(5), None], "only the hash told that the first bytes were wrong");
}

#[test]
fn servers_that_know_no_ranges_start_anew() {
    if no_curl() {
        return;
    }
    let mut ignores = Case::new(|_, _, content| Answer::new(200).body(content));
    ignores.left(&noise(LENGTH)[..300_000]);
    ignores.succeeds();
    assert_eq!(ignores.ranges(), [Some(300_000)]);
    let mut refuses = Case::new(|_, asked, content| if asked.from().is_some() { Answer::new(416) } else { Answer::new(200).body(content) });
    refuses.left(&noise(LENGTH)[..300_000]);
    refuses.succeeds();
    assert_eq!(refuses.ranges(), [Some(300_000), None]);
    let mut errs = Case::new(|n, asked, content| {
        if n > 0 { Answer::ranged(asked, content) } else { Answer::new(206).with("Content-Range: bytes 0-699999/700000").body(content) }
    });
    errs.left(&noise(LENGTH)[..300_000]);
    errs.succeeds();
    assert_eq!(errs.ranges(), [Some(300_000), None]);
}

#[test]
fn wrong_content_is_refused_and_deleted() {
    if no_curl() {
        return;
    }
    let mut flipped = Case::new(|_, _, content| {
        let mut content = content.to_vec();
        content[LENGTH - 1] ^= 1;
        Answer::new(200).body(&content)
    });
    flipped.fails("expected the SHA-256", &[]);
    assert_eq!(flipped.server.log().len(), 1);
    let mut page = Case::new(|_, _, _| Answer::new(200).body(b"<html>log in to this network</html>"));
    page.fails("expected 700000 bytes, got 35 bytes", &[]);
    // What is there and what is promised are more than 64 bits hold.
    let mut huge = Case::new(|_, _, _| {
        let answer = Answer::new(206).unmeasured().with(format!("Content-Length: {}", i64::MAX));
        answer.with("Content-Range: bytes 5-9/10")
    });
    huge.left(&noise(LENGTH)[..5]);
    huge.fails("expected 700000 bytes, got 9223372036854775812 bytes", &[]);
    let mut longer = Case::new(|_, _, content| Answer::new(200).body(&[content, b"x"].concat()).unmeasured());
    longer.fails("expected 700000 bytes, got more", &[]);
}

#[test]
fn patience_ends_and_keeps_what_came() {
    if no_curl() {
        return;
    }
    // The first answer has some bytes, the others have none.
    let mut case = Case::new(|n, asked, content| Answer::ranged(asked, content).cut(if n == 0 { 1000 } else { 0 }, false));
    case.fails("run again", &["reviews.tgz.incomplete"]);
    assert!(std::fs::read(case.path("reviews.tgz.incomplete")).unwrap() == noise(LENGTH)[..1000]);
    let (tries, got) = (case.ranges(), Some(1000));
    assert_eq!(tries, [None, got, got, got, got], "four further tries bring no new byte");
    let mut busy = Case::new(|n, asked, content| if n < 2 { Answer::new(503) } else { Answer::ranged(asked, content) });
    busy.succeeds();
    let mut early = Case::new(|n, asked, content| {
        let answer = Answer::ranged(asked, content).unmeasured();
        if n == 0 { answer.cut(5000, false) } else { answer }
    });
    early.succeeds();
    assert_eq!(early.ranges(), [None, Some(5000)]);
}

#[test]
fn two_at_once_download_once() {
    if no_curl() {
        return;
    }
    let case = Case::new(|_, asked, content| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        Answer::ranged(asked, content)
    });
    let go = || {
        let mut told = Told::default();
        let fetched = fetch(&case.hub, "imdb", &mut told).unwrap();
        (fetched.downloaded, told.notes)
    };
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(go);
        (go(), other.join().unwrap())
    });
    assert!(a.0 != b.0, "one of them waits: {a:?} {b:?}");
    let waited = if a.0 { &b.1 } else { &a.1 };
    assert!(waited.is_empty() || waited[0].contains("waiting"), "{waited:?}");
    assert_eq!(case.server.log().len(), 1);
    assert!(std::fs::read(case.path("reviews.tgz")).unwrap() == noise(LENGTH));
}

#[test]
fn refusals_say_what_to_do() {
    if no_curl() {
        return;
    }
    Case::new(|_, _, _| Answer::new(404)).fails("set LOWRANK_IMDB_URL to a mirror", &[]);
    Case::new(|_, _, _| Answer::new(302).with("Location: /reviews?again")).fails("redirects", &[]);
    for elsewhere in ["ftp://127.0.0.1/x", "file:///etc/passwd"] {
        let case =
            || Case::new(move |n, _, _| if n == 0 { Answer::new(302).with(format!("Location: {elsewhere}")) } else { Answer::new(404) });
        case().fails("status 404", &[]);
    }
    let mut gone = Case::new(|_, _, _| Answer::new(200));
    // A port on which nothing listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    gone.hub.imdb.url = format!("http://127.0.0.1:{free}/reviews");
    gone.fails("no connection", &[]);
    gone.hub.imdb.url = "file:///etc/passwd".into();
    gone.fails("begins with https:// or http://", &[]);
    gone.hub.curl = "/nowhere/curl".into();
    gone.hub.imdb.url = gone.server.at("127.0.0.1") + "/reviews";
    gone.fails(&format!("download {}/reviews to {}", gone.hub.endpoint, gone.path("reviews.tgz").display()), &[]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    if no_curl() {
        return;
    }
    let mut case = Case::new(|_, asked, content| Answer::ranged(asked, content));
    std::fs::create_dir_all(case.path("")).unwrap();
    std::os::unix::fs::symlink("/dev/full", case.path("reviews.tgz.incomplete")).unwrap();
    case.fails("make room for 700000 bytes", &[]);
}
