//! Decodes the bytes of a file.

use crate::{Error, Result};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use std::path::Path;

/// The encoding with this name, unless it is one that the standard does not decode, such as iso-2022-kr. WHATWG Encoding Standard,
/// <https://encoding.spec.whatwg.org/#names-and-labels>.
///
/// # Errors
/// If no encoding has this name.
pub(super) fn encoding(name: &str) -> Result<&'static Encoding> {
    Encoding::for_label_no_replacement(name.as_bytes()).ok_or_else(|| {
        Error::invalid(format_args!("--encoding {name}: no such encoding; known are utf-8, utf-16le, windows-1252, latin1, gb18030, …"))
    })
}

/// The text of the file `path`, without a byte order mark. With the name of an encoding, bytes that cannot be decoded become U+FFFD. Without a
/// name the file is UTF-8; or UTF-16, if it starts with that mark, or if in its first bytes about every other byte is zero.
///
/// # Errors
/// If there is no such encoding; or, without a name, if the file is not UTF-8: the message has the line and the remedy.
pub(super) fn text(path: &Path, bytes: Vec<u8>, name: Option<&str>) -> Result<String> {
    if let Some(name) = name {
        return Ok(lossily(bytes, Some(encoding(name)?)).0);
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let problem = "is compressed with gzip; decompress it, or, if it is a table, call it .csv.gz, .tsv.gz or .jsonl.gz";
        return Err(Error::file(path, "file", problem));
    }
    if let Some(wide) = utf16(&bytes) {
        let (text, _, bad) = wide.decode(&bytes);
        return if bad { Err(malformed(path, 0, None, wide)) } else { Ok(text.into_owned()) };
    }
    let bytes = if bytes.starts_with(b"\xef\xbb\xbf") { bytes[3..].to_vec() } else { bytes };
    String::from_utf8(bytes).map_err(|e| {
        let (bad, all) = (e.utf8_error().valid_up_to(), e.as_bytes());
        malformed(path, 1 + all[..bad].iter().filter(|&&b| b == b'\n').count(), Some(all[bad]), UTF_8)
    })
}

/// The error for a byte that cannot be decoded.
pub(super) fn malformed(path: &Path, line: usize, byte: Option<u8>, encoding: &'static Encoding) -> Error {
    if encoding != UTF_8 {
        return Error::file(path, "encoding", "not valid UTF-16; name the encoding with --encoding");
    }
    let byte = byte.map_or("a byte".to_string(), |byte| format!("the byte {byte:#04x}"));
    let remedy = "name the file's encoding, such as --encoding windows-1252, or replace such bytes with --encoding utf-8";
    Error::file(path, format_args!("line {line}"), format_args!("{byte} is not UTF-8; {remedy}"))
}

/// UTF-16, if the bytes of a file start with its byte order mark, or look like Latin characters in UTF-16.
pub(super) fn utf16(bytes: &[u8]) -> Option<&'static Encoding> {
    match Encoding::for_bom(bytes) {
        Some((found, _)) if found != UTF_8 => return Some(found),
        Some(_) => return None,
        None => {}
    }
    let (pairs, _) = bytes[..bytes.len().min(128)].as_chunks::<2>();
    let zeros = |half: usize| pairs.iter().filter(|pair| pair[half] == 0).count();
    let most = |half: usize| 8 * zeros(1 - half) < pairs.len() && 4 * zeros(half) >= 3 * pairs.len().max(2);
    if most(1) { Some(UTF_16LE) } else { most(0).then_some(UTF_16BE) }
}

/// Decodes with U+FFFD for bytes that are invalid, and tells whether there were any. Without `encoding`: UTF-8.
pub(super) fn lossily(bytes: Vec<u8>, encoding: Option<&'static Encoding>) -> (String, bool) {
    let (text, bad) = match encoding {
        Some(encoding) => {
            let (text, _, bad) = encoding.decode(&bytes);
            (text, bad)
        }
        None => UTF_8.decode_without_bom_handling(&bytes),
    };
    (text.into_owned(), bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], name: Option<&str>) -> Result<String> {
        text(Path::new("a.csv"), bytes.to_vec(), name)
    }

    fn wide(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn encodings_are_found_or_named() {
        let line = "text,label\nsch\u{f6}n \u{2019} \u{1f600},1\n";
        assert_eq!(read(line.as_bytes(), None).unwrap(), line);
        assert_eq!(read(format!("\u{feff}{line}").as_bytes(), None).unwrap(), line);
        for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
            assert_eq!(read(&wide(&format!("\u{feff}{line}"), bytes), None).unwrap(), line);
            assert_eq!(read(&wide(line, bytes), None).unwrap(), line, "without a mark");
        }
        assert_eq!(read(b"sch\xf6n \x92", Some("windows-1252")).unwrap(), "sch\u{f6}n \u{2019}");
        assert_eq!(read(b"a\nb\xffc", Some("utf-8")).unwrap(), "a\nb\u{fffd}c");
        let message = read(b"a\nb\xffc", None).unwrap_err().to_string();
        assert!(
            message.starts_with("a.csv: line 2: the byte 0xff is not UTF-8") && message.contains("--encoding windows-1252"),
            "{message}"
        );
        assert!(read(b"a", Some("klingon")).unwrap_err().to_string().contains("--encoding klingon"));
        let half = "ab\u{4e2d}\u{6587}".repeat(8);
        assert!(utf16(&wide(&half, u16::to_le_bytes)).is_none(), "too few zeros for Latin characters");
        let odd = [wide("\u{feff}ab", u16::to_le_bytes), vec![b'x']].concat();
        assert!(read(&odd, None).unwrap_err().to_string().contains("not valid UTF-16"));
    }
}
