//! Ctrl-C, SIGTERM and SIGHUP stop a run after it has saved its state.
#![allow(unsafe_code)]

use lowrank::{Error, Result};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// Whether a signal asked the program to stop.
pub fn asked_to_stop() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Lets Ctrl-C, SIGTERM and SIGHUP ask the program to stop. The second signal ends it at once. If SIGHUP is ignored, as under `nohup`, it stays
/// ignored. A further call changes nothing: `demo --serve` runs a study, and then a server.
pub fn catch_signals() -> Result<()> {
    static CAUGHT: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    CAUGHT.get_or_init(|| install().map_err(|e| format!("ctrl-c: {e}"))).clone().map_err(Error::invalid)
}

/// Installs the handlers.
fn install() -> std::result::Result<(), ctrlc::Error> {
    #[cfg(unix)]
    let ignored = ignore_hang_up().is_some_and(|before| matches!(before, SigHandler::SigIgn));
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
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

#[cfg(test)]
mod tests {
    #[test]
    fn signals_can_be_caught_twice() {
        super::catch_signals().unwrap();
        super::catch_signals().unwrap();
        assert!(!super::asked_to_stop());
    }
}
