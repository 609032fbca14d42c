//! Ctrl-C, SIGTERM and SIGHUP stop a run after it has saved its state.
#![allow(unsafe_code)]

use lowrank::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// Whether a signal asked the program to stop.
pub fn asked_to_stop() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Lets Ctrl-C, SIGTERM and SIGHUP ask the program to stop. The second signal ends it at once. If SIGHUP is ignored, as under `nohup`, it stays
/// ignored.
pub fn catch_signals() -> Result<()> {
    #[cfg(unix)]
    let ignored = ignore_hang_up().is_some_and(|before| matches!(before, SigHandler::SigIgn));
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|e| Error::invalid(format!("ctrl-c: {e}")))?;
    #[cfg(unix)]
    if ignored {
        ignore_hang_up();
    }
    Ok(())
}

#[cfg(unix)]
use nix::sys::signal::{SigHandler, Signal, signal};

/// Ignores SIGHUP, and returns the handler that was set before.
#[cfg(unix)]
fn ignore_hang_up() -> Option<SigHandler> {
    // SAFETY: SIG_IGN installs no handler function, so no code can run in a signal context.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.ok()
}
