//! Mapped files that become shorter while they are read.
//!
//! Weights are mapped, not copied. When another program truncates such a file (`cp new model.safetensors` does), the system sends SIGBUS at the
//! next access, which ends a process without a word. [`watch`] installs a handler that puts a page of zeros there and remembers it, so that the
//! computation goes on to its next check. The engine then finds that the file was changed, names it, and nothing of that step is used.
//! [`check`] is the last guard: no command that read a lost page ends with success.
#![allow(unsafe_code)]

use lowrank::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static LOST: AtomicBool = AtomicBool::new(false);

/// Refuses to go on if a page of a mapped file was lost since the start of the process.
///
/// # Errors
/// If one was lost.
pub fn check() -> Result<()> {
    match LOST.load(Ordering::Relaxed) {
        true => Err(Error::invalid("a file became shorter while it was read: another program changed the model or the data; run again")),
        false => Ok(()),
    }
}

/// Installs the handler.
#[cfg(target_os = "linux")]
pub fn watch() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let action = SigAction::new(SigHandler::SigAction(on_bus_error), SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: `on_bus_error` calls only functions that a handler may call: an atomic store and system calls. Without it, the signal ends the
    // process, so an error here changes nothing.
    let _ = unsafe { sigaction(Signal::SIGBUS, &action) };
}

/// Installs nothing: other systems end the process with their own message.
#[cfg(not(target_os = "linux"))]
pub fn watch() {}

#[cfg(target_os = "linux")]
extern "C" fn on_bus_error(_: nix::libc::c_int, info: *mut nix::libc::siginfo_t, _: *mut nix::libc::c_void) {
    use nix::libc;
    /// Smallest size of a page. Where pages are larger, the system refuses an address that is not the start of one.
    const PAGE: usize = 4096;
    LOST.store(true, Ordering::Relaxed);
    // SAFETY: the system passes a valid `info`. The new page replaces one that has no content any more, and that nobody can write: it belongs to
    // a read-only map of a file (BUS_ADRERR is sent for nothing else here). Where it cannot be replaced, the default action ends the process.
    unsafe {
        let page = (*info).si_addr().map_addr(|address| address & !(PAGE - 1));
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        if (*info).si_code != libc::BUS_ADRERR || libc::mmap(page, PAGE, libc::PROT_READ, flags, -1, 0) == libc::MAP_FAILED {
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
        }
    }
}
