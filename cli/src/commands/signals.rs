//! The wish to stop: Ctrl-C, SIGTERM and SIGHUP, which all let a run save its state.
#![allow(unsafe_code)]

use lowrank::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by Ctrl-C, SIGTERM or SIGHUP. Asked twice, the program ends at once. A SIGHUP that is ignored, as under `nohup`, stays so.
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

/// What was done at a SIGHUP before.
#[cfg(unix)]
fn ignore_hang_up() -> Option<SigHandler> {
    // SAFETY: no handler is installed, so that none can do what a handler must not.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.ok()
}
