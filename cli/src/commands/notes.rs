//! Messages on standard error. A failed write never stops a run.

use std::fmt::Arguments;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Silences [`note!`].
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether [`note!`] is silent.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes a line. An error is ignored, because a closed terminal must not end a run.
pub fn write(line: Arguments) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints a line about the progress of a run; silent with `--quiet`.
macro_rules! note {
    ($($text:tt)*) => {
        if !$crate::commands::notes::is_quiet() {
            $crate::commands::notes::write(format_args!($($text)*))
        }
    };
}

/// Prints a warning, also with `--quiet`.
macro_rules! warning {
    ($($text:tt)*) => {
        $crate::commands::notes::write(format_args!($($text)*))
    };
}

pub(super) use {note, warning};
