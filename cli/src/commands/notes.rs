//! What the program says beside its results: on standard error, where a failed write never stops a run.

use std::fmt::Arguments;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on [`note!`] says nothing.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether [`note!`] says nothing.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes a line. Nobody may be reading it: that is no reason to lose a run.
pub fn write(line: Arguments) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Says how a run goes on; silent with `--quiet`.
macro_rules! note {
    ($($text:tt)*) => {
        if !$crate::commands::notes::is_quiet() {
            $crate::commands::notes::write(format_args!($($text)*))
        }
    };
}

/// Says what may be wrong, with `--quiet` too.
macro_rules! warning {
    ($($text:tt)*) => {
        $crate::commands::notes::write(format_args!($($text)*))
    };
}

pub(super) use {note, warning};
