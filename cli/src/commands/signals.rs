//! Ctrl-C, SIGTERM and SIGHUP stop a run after it has saved its state.
#![allow(unsafe_code)]

use lowrank::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that Ctrl-C, SIGTERM or SIGHUP sets. The second signal ends the program at once. If SIGHUP is ignored, as under `nohup`, it stays ignored.
pub fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    #[cfg(unix)]
    let ignored = ignore_hang_up().is_some_and(|before| matches!(before, SigHandler::SigIgn));
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|e| Error::invalid(format!("ctrl-c: {e}")))?;
    #[cfg(unix)]
    if ignored {
        ignore_hang_up();
    }
    Ok(flag)
}

#[cfg(unix)]
use nix::sys::signal::{SigHandler, Signal, signal};

/// Ignores SIGHUP, and returns the handler that was set before.
#[cfg(unix)]
fn ignore_hang_up() -> Option<SigHandler> {
    // SAFETY: SIG_IGN installs no handler function, so no code can run in a signal context.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.ok()
}
