//! Messages on standard error. A failed write never stops a run. Texts of others cannot control the terminal.

use std::fmt::{Arguments, Display};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

static QUIET: AtomicBool = AtomicBool::new(false);
static SILENT: AtomicBool = AtomicBool::new(false);

/// Silences [`note!`].
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Silences notes, warnings and results: another rank prints them.
#[cfg(feature = "mpi")]
pub fn be_silent() {
    be_quiet();
    SILENT.store(true, Ordering::Relaxed);
}

/// Whether this process prints nothing.
pub fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// Whether [`note!`] is silent.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes a line, unless this process prints nothing.
pub fn write(line: Arguments) {
    if !is_silent() {
        write_always(line);
    }
}

/// Writes a line. An error is ignored, because a closed terminal must not end a run.
pub fn write_always(line: Arguments) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(line));
}

/// The text with its control characters escaped, except for line feeds and tabs. Labels, file names and texts of others could otherwise change
/// the terminal, or hide and turn around what it shows (Unicode's marks for the direction of text).
pub fn printable(text: impl Display) -> String {
    escaped(&text.to_string(), |c| c.escape_unicode().to_string())
}

/// [`printable`] in one line: a label or a name cannot add lines or columns of its own.
pub fn in_line(text: impl Display) -> String {
    printable(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// [`printable`] for JSON on one line, in which control characters stand in strings alone: the escapes are those of JSON.
pub fn printable_json(text: &str) -> String {
    escaped(text, |c| format!("\\u{:04x}", u32::from(c)))
}

/// The text with `escape` of each character that controls the terminal or the direction of text.
fn escaped(text: &str, escape: impl Fn(char) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if controls(c) { out.push_str(&escape(c)) } else { out.push(c) }
    }
    out
}

/// Whether a character controls the terminal or the direction of text.
fn controls(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() && !matches!(c, '\n' | '\t')
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

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(super::printable("a\tb\n\u{e9}\u{1f600}"), "a\tb\n\u{e9}\u{1f600}");
        let text = "fine\u{200e} \u{85}\u{7f}\u{61c}\u{1b}";
        let json = super::printable_json(&serde_json::to_string(text).unwrap());
        assert_eq!(json, "\"fine\\u200e \\u0085\\u007f\\u061c\\u001b\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        assert_eq!(super::printable("\u{1b}[2J\r\u{7}\u{9b}\u{202e}x"), "\\u{1b}[2J\\u{d}\\u{7}\\u{9b}\\u{202e}x");
    }
}
