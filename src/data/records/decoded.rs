//! A file as a stream of UTF-8: unpacked, decoded, without a byte order mark.

use crate::data::decode;
use crate::data::table::{GZIP, damaged};
use crate::files::open_file;
use crate::{Error, Result};
use encoding_rs::{Decoder, DecoderResult, UTF_8};
use flate2::read::MultiGzDecoder;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

/// Bytes that are read and decoded at once.
const CHUNK: usize = 64 << 10;
/// A file as UTF-8. As an [`io::Error`], an error holds one of this crate: see [`cause`].
pub(in crate::data) struct Decoded {
    path: PathBuf,
    source: Box<dyn Read>,
    is_packed: bool,
    decoder: Decoder,
    /// Bytes that cannot be decoded are an error, and do not become U+FFFD.
    strict: bool,
    /// The file starts with a byte order mark.
    pub mark: bool,
    raw: Vec<u8>,
    text: String,
    /// Bytes of `text` that were read.
    taken: usize,
    /// Line breaks of all decoded text.
    breaks: usize,
    ended: bool,
}

impl Decoded {
    /// Opens a file. The encoding is chosen as by [`decode::text`].
    ///
    /// # Errors
    /// If it cannot be read, or there is no such encoding.
    pub fn open(path: &Path, encoding: Option<&str>) -> Result<Decoded> {
        let io = |e| Error::io(path, e);
        let (head, file) = peek(open_file(path)?, GZIP.len()).map_err(io)?;
        let is_packed = head == GZIP;
        let source: Box<dyn Read> = if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let (head, source) = peek(source, 128).map_err(|e| if is_packed { damaged(path, &e) } else { io(e) })?;
        let decoder = match encoding {
            Some(name) => decode::encoding(name)?.new_decoder(),
            None => decode::utf16(&head).map_or(UTF_8.new_decoder_with_bom_removal(), |wide| wide.new_decoder()),
        };
        Ok(Decoded {
            path: path.to_path_buf(),
            source: Box::new(source),
            is_packed,
            decoder,
            strict: encoding.is_none(),
            mark: encoding_rs::Encoding::for_bom(&head).is_some(),
            raw: Vec::new(),
            text: String::new(),
            taken: 0,
            breaks: 0,
            ended: false,
        })
    }

    /// Name of the encoding.
    pub fn encoding(&self) -> &'static str {
        self.decoder.encoding().name()
    }

    /// Decodes the next bytes.
    fn fill(&mut self) -> Result<()> {
        self.raw.clear();
        let read = self.source.by_ref().take(CHUNK as u64).read_to_end(&mut self.raw);
        let read = read.map_err(|e| if self.is_packed { damaged(&self.path, &e) } else { Error::io(&self.path, e) })?;
        self.ended = read == 0;
        (self.taken, self.text) = (0, std::mem::take(&mut self.text));
        self.text.clear();
        let most = self.decoder.max_utf8_buffer_length(self.raw.len());
        self.text.reserve(most.unwrap_or(0));
        if !self.strict {
            let _ = self.decoder.decode_to_string(&self.raw, &mut self.text, self.ended);
        } else if let (DecoderResult::Malformed(bad, after), read) =
            self.decoder.decode_to_string_without_replacement(&self.raw, &mut self.text, self.ended)
        {
            let byte = read.checked_sub(usize::from(bad) + usize::from(after)).and_then(|at| self.raw.get(at)).copied();
            return Err(self.malformed(byte));
        }
        self.breaks += self.text.bytes().filter(|&b| b == b'\n').count();
        Ok(())
    }

    /// The error for a byte that cannot be decoded.
    fn malformed(&self, byte: Option<u8>) -> Error {
        let line = 1 + self.breaks + self.text.bytes().filter(|&b| b == b'\n').count();
        decode::malformed(&self.path, line, byte, self.decoder.encoding())
    }
}

impl Read for Decoded {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.text.len() && !self.ended {
            self.fill().map_err(io::Error::other)?;
        }
        let read = (&self.text.as_bytes()[self.taken..]).read(out)?;
        self.taken += read;
        Ok(read)
    }
}

/// The first bytes of a source, and all of it.
fn peek<R: Read>(mut source: R, n: usize) -> io::Result<(Vec<u8>, impl Read + use<R>)> {
    let mut head = Vec::new();
    source.by_ref().take(n as u64).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(source)))
}

/// The error of this crate that a reader of [`Decoded`] met.
pub(super) fn cause(path: &Path, e: io::Error) -> Error {
    e.downcast::<Error>().unwrap_or_else(|e| Error::io(path, e))
}
