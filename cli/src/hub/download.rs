//! Downloads one file. It resumes an earlier download, retries, checks the SHA-256, and the file appears complete or not at all.

use super::curl::{Answer, Ask, request};
use super::partial_file::{PartialFile, RemoteFile};
use super::settings::Hub;
use super::trouble::{Tried, Trouble};
use crate::folder::if_supported;
use lowrank::Error;
use lowrank::files::check_no_pipe;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::time::Duration;

/// Retries that may pass without one new byte.
const TRIES: u32 = 4;

/// Receives the progress of a download.
pub trait DownloadProgress {
    /// `done` of `total` bytes of the file `name` have arrived.
    fn bytes(&mut self, name: &str, done: u64, total: u64);
    /// Something causes a delay: a retry, or another process that holds the lock.
    fn note(&mut self, text: &str);
}

/// Makes sure that the file is at its path. Returns whether it had to be downloaded.
pub fn download(hub: &Hub, wanted: &RemoteFile, progress: &mut dyn DownloadProgress) -> Tried<bool> {
    for path in [wanted.path, wanted.lock] {
        let folder = path.parent().unwrap_or(path);
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    let _lock = lock(wanted, progress)?;
    if wanted.exists() {
        return Ok(false);
    }
    let mut part = PartialFile::open(wanted)?;
    fill_checked(hub, wanted, &mut part, progress).inspect_err(|_| part.remove_if_empty())?;
    part.finish(wanted)?;
    Ok(true)
}

/// [`fill`]. If the part that an earlier run left belongs to another file, everything is downloaded again.
fn fill_checked(hub: &Hub, wanted: &RemoteFile, part: &mut PartialFile, progress: &mut dyn DownloadProgress) -> Tried<()> {
    let resumed = part.length > 0;
    fill(hub, wanted, part, progress)?;
    if resumed && !part.agrees(wanted) {
        progress.note(&format!("{}: what an earlier run left is not of this file; starting anew", wanted.name));
        part.restart()?;
        fill(hub, wanted, part, progress)?;
    }
    Ok(())
}

fn lock(wanted: &RemoteFile, progress: &mut dyn DownloadProgress) -> Tried<File> {
    check_no_pipe(wanted.lock)?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(wanted.lock).map_err(|e| Error::io(wanted.lock, e))?;
    let locked = match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            progress.note(&format!("{}: another process downloads it; waiting", wanted.name));
            file.lock()
        }
        Err(TryLockError::Error(e)) => Err(e),
    };
    if_supported(locked).map_err(|e| Error::io(wanted.lock, e))?;
    Ok(file)
}

/// Decides whether to retry after an error, and waits before it.
pub struct Patience {
    /// The first pause; each further one is twice as long.
    pause: Duration,
    tries: u32,
    /// Whether the server was reached at least once.
    contact: bool,
}

impl Patience {
    /// With the first pause of `hub`.
    pub fn new(hub: &Hub) -> Patience {
        Patience { pause: hub.pause, tries: 0, contact: false }
    }

    /// Waits, or returns the error if a retry will not help. `advanced`: whether new bytes came since the last error.
    pub fn after(&mut self, trouble: Trouble, advanced: bool, progress: &mut dyn DownloadProgress) -> Tried<()> {
        if advanced {
            (self.tries, self.contact) = (0, true);
        }
        match &trouble {
            Trouble::Passing(why) if self.tries < TRIES => progress.note(&format!("{why}; trying again")),
            Trouble::Unreachable(why) if self.tries < TRIES && self.contact => progress.note(&format!("{why}; trying again")),
            _ => return Err(trouble),
        }
        std::thread::sleep(self.pause * 2_u32.pow(self.tries));
        self.tries += 1;
        Ok(())
    }
}

/// Sends requests until `part` has the length of the file.
fn fill(hub: &Hub, wanted: &RemoteFile, part: &mut PartialFile, progress: &mut dyn DownloadProgress) -> Tried<()> {
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

/// Appends the body of one request to `part`.
fn receive(hub: &Hub, wanted: &RemoteFile, part: &mut PartialFile, progress: &mut dyn DownloadProgress) -> Tried<()> {
    let mut answer = request(hub, wanted.url, Ask::Get(part.length))?;
    match answer.status {
        206 if range_start(&answer) == Some(part.length) => {}
        206 | 416 => {
            part.restart()?;
            return Err(Trouble::Passing(format!("{}: the server gives another part than asked for", answer.url)));
        }
        // The server ignored the range and sends the whole file.
        _ => part.restart()?,
    }
    if let Some(length) = answer.number("content-length")
        && part.length.checked_add(length) != Some(wanted.size)
    {
        return Err(part.wrong_size(wanted, &answer.url, format_args!("{} bytes", u128::from(part.length) + u128::from(length))));
    }
    let mut buffer = vec![0; 1 << 16];
    loop {
        match answer.read(&mut buffer)? {
            0 if part.length < wanted.size => return Err(Trouble::Passing(format!("{}: the connection ended early", answer.url))),
            0 => return Ok(()),
            n if part.length + n as u64 > wanted.size => return Err(part.wrong_size(wanted, &answer.url, format_args!("more"))),
            n => part.write(&buffer[..n], wanted)?,
        }
        progress.bytes(wanted.name, part.length, wanted.size);
    }
}

/// First byte of a partial answer: 7 for `bytes 7-99/100`.
fn range_start(answer: &Answer) -> Option<u64> {
    answer.header("content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
