//! One file: goes on where the last run stopped, tries again, checks, and appears whole or not at all.

use super::Hub;
use super::curl::{Answer, Ask, request};
use super::part::Part;
use super::trouble::{Tried, Trouble};
use lowrank::Error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

/// Further tries without a single new byte.
const TRIES: u32 = 4;

/// Is told how far a download is.
pub trait Progress {
    /// `done` of `total` bytes of the file `name` are here.
    fn bytes(&mut self, name: &str, done: u64, total: u64);
    /// Something that may take time: a further try, another process at work.
    fn note(&mut self, text: &str);
}

/// Shows nothing.
impl Progress for () {
    fn bytes(&mut self, _: &str, _: u64, _: u64) {}
    fn note(&mut self, _: &str) {}
}

/// A file to download.
pub struct Wanted<'a> {
    /// How progress calls it.
    pub name: &'a str,
    pub url: &'a str,
    pub size: u64,
    /// Its SHA-256 in hexadecimal digits, if known.
    pub sha256: Option<&'a str>,
    /// Where it belongs.
    pub path: &'a Path,
    /// Locked while one process is at it.
    pub lock: &'a Path,
}

/// Puts the file at its path; whether that took a download.
pub fn download(hub: &Hub, wanted: &Wanted, progress: &mut dyn Progress) -> Tried<bool> {
    for path in [wanted.path, wanted.lock] {
        let folder = path.parent().unwrap_or(path);
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    let _lock = lock(wanted, progress)?;
    if is_there(wanted) {
        return Ok(false);
    }
    let mut part = Part::open(wanted)?;
    fill_rightly(hub, wanted, &mut part, progress).inspect_err(|_| part.tidy())?;
    part.finish(wanted)?;
    Ok(true)
}

/// [`fill`], and once more if what an earlier run left was not of this file.
fn fill_rightly(hub: &Hub, wanted: &Wanted, part: &mut Part, progress: &mut dyn Progress) -> Tried<()> {
    let resumed = part.length > 0;
    fill(hub, wanted, part, progress)?;
    if resumed && !part.agrees(wanted) {
        progress.note(&format!("{}: what an earlier run left is not of this file; starting anew", wanted.name));
        part.restart()?;
        fill(hub, wanted, part, progress)?;
    }
    Ok(())
}

/// Whether the file is at its path. What is there was checked before it got its name.
pub fn is_there(wanted: &Wanted) -> bool {
    wanted.path.metadata().is_ok_and(|m| m.is_file() && m.len() == wanted.size)
}

fn lock(wanted: &Wanted, progress: &mut dyn Progress) -> Tried<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(wanted.lock).map_err(|e| Error::io(wanted.lock, e))?;
    let locked = match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            progress.note(&format!("{}: another process downloads it; waiting", wanted.name));
            file.lock()
        }
        Err(TryLockError::Error(e)) => Err(e),
    };
    locked.map_err(|e| Error::io(wanted.lock, e))?;
    Ok(file)
}

/// Tries again after trouble that may pass.
pub struct Patience {
    first: Duration,
    pause: Duration,
    left: u32,
    /// Whether the server could ever be reached.
    contact: bool,
}

impl Patience {
    /// As much as `hub` has.
    pub fn new(hub: &Hub) -> Patience {
        Patience { first: hub.pause, pause: hub.pause, left: TRIES, contact: false }
    }

    /// Waits, or gives the trouble back if it lasts; `advanced` if something was won since the last time.
    pub fn after(&mut self, trouble: Trouble, advanced: bool, progress: &mut dyn Progress) -> Tried<()> {
        if advanced {
            *self = Patience { pause: self.first, left: TRIES, contact: true, ..*self };
        }
        match &trouble {
            Trouble::Passing(why) if self.left > 0 => progress.note(&format!("{why}; trying again")),
            Trouble::Unreachable(why) if self.left > 0 && self.contact => progress.note(&format!("{why}; trying again")),
            _ => return Err(trouble),
        }
        std::thread::sleep(self.pause);
        self.pause *= 2;
        self.left -= 1;
        Ok(())
    }
}

/// Receives until `part` is as long as the file.
fn fill(hub: &Hub, wanted: &Wanted, part: &mut Part, progress: &mut dyn Progress) -> Tried<()> {
    let mut patience = Patience::new(hub);
    let mut furthest = part.length;
    progress.bytes(wanted.name, part.length, wanted.size);
    while part.length < wanted.size {
        if let Err(trouble) = receive(hub, wanted, part, progress) {
            patience.after(trouble, part.length > furthest, progress)?;
        }
        furthest = furthest.max(part.length);
    }
    Ok(())
}

/// Receives what one request gives.
fn receive(hub: &Hub, wanted: &Wanted, part: &mut Part, progress: &mut dyn Progress) -> Tried<()> {
    let mut answer = request(hub, wanted.url, Ask::Get(part.length))?;
    match answer.status {
        206 if range_start(&answer) == Some(part.length) => {}
        206 | 416 => {
            part.restart()?;
            return Err(Trouble::Passing(format!("{}: the server gives another part than asked for", answer.url)));
        }
        // All of it, whatever was asked for.
        _ => part.restart()?,
    }
    if let Some(length) = answer.number("content-length")
        && part.length + length != wanted.size
    {
        return Err(part.wrong_size(wanted, &answer.url, format_args!("{} bytes", part.length + length)));
    }
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = answer.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        if part.length + n as u64 > wanted.size {
            return Err(part.wrong_size(wanted, &answer.url, format_args!("more")));
        }
        part.write(&buffer[..n], wanted)?;
        progress.bytes(wanted.name, part.length, wanted.size);
    }
    if part.length < wanted.size {
        return Err(Trouble::Passing(format!("{}: the connection ended early", answer.url)));
    }
    Ok(())
}

/// First byte of a partial answer: `bytes 7-99/100`.
fn range_start(answer: &Answer) -> Option<u64> {
    answer.header("content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
