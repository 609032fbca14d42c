//! How the bytes of a table become lines of text.

use super::super::records::{Decoded, each_part};
use super::super::table::{self, TableOptions};
use crate::Result;
use serde::Serialize;
use std::path::Path;

/// The encoding of a table, and how its lines end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileForm {
    /// Name of the encoding, such as UTF-8.
    pub encoding: String,
    /// Whether the file starts with a byte order mark. The reader leaves it out.
    pub byte_order_mark: bool,
    /// Line breaks of a line feed alone, as on Linux.
    pub lf: usize,
    /// Line breaks of a carriage return and a line feed, as on Windows.
    pub crlf: usize,
    /// Carriage returns without a line feed. Such a line break ends no row.
    pub cr: usize,
}

impl FileForm {
    /// The line breaks that occur, with their numbers.
    pub fn line_ends(&self) -> Vec<(&'static str, usize)> {
        [("LF", self.lf), ("CRLF", self.crlf), ("CR", self.cr)].into_iter().filter(|(_, n)| *n > 0).collect()
    }
}

/// The form of the file at `path`. `None` if it is no table of text.
///
/// # Errors
/// If it cannot be read or decoded.
pub fn file_form(path: &Path, options: &TableOptions) -> Result<Option<FileForm>> {
    if path.is_dir() || table::Kind::of(path).is_none() {
        return Ok(None);
    }
    let encoding = options.encoding.as_deref();
    let source = Decoded::open(path, encoding)?;
    let mut form = FileForm { encoding: source.encoding().to_string(), byte_order_mark: source.mark, ..FileForm::default() };
    let mut before = 0;
    each_part(path, encoding, |part| {
        for &byte in part {
            match (before, byte) {
                (b'\r', b'\n') => (form.cr, form.crlf) = (form.cr - 1, form.crlf + 1),
                (_, b'\n') => form.lf += 1,
                (_, b'\r') => form.cr += 1,
                _ => {}
            }
            before = byte;
        }
        true
    })?;
    Ok(Some(form))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_and_line_ends_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let form = |name: &str, bytes: &[u8]| {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            file_form(&dir.path().join(name), &TableOptions::default()).unwrap()
        };
        let told = |name: &str, bytes: &[u8]| {
            let f = form(name, bytes).unwrap();
            (f.encoding, f.byte_order_mark, [f.lf, f.crlf, f.cr])
        };
        assert_eq!(told("a.csv", b"text,label\r\na,1\nb\rc,0\r\n"), ("UTF-8".into(), false, [1, 2, 1]));
        assert_eq!(told("a.csv", b"\xef\xbb\xbftext,label\n"), ("UTF-8".into(), true, [1, 0, 0]));
        let wide: Vec<u8> = "\u{feff}text\tlabel\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(told("a.tsv", &wide), ("UTF-16LE".into(), true, [0, 1, 0]));
        assert_eq!(form("a.txt", b"a\n"), None);
        assert_eq!(form("b.csv", b"a\r\nb\n").unwrap().line_ends(), [("LF", 1), ("CRLF", 1)]);
    }
}
