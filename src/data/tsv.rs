//! Tells the two kinds of TSV files apart. In GLUE's files a quotation mark is a plain character. In those of pandas and spreadsheets, a field
//! with a tab, a line break or a quotation mark is quoted, and quotation marks inside it are doubled.

/// Reads a TSV file byte by byte. It is of the second kind if unquoted fields have no quotation mark, every quote is closed at the end of its field, and
/// either a field needs its quotes or all fields are quoted.
#[derive(Default)]
pub(super) struct Quotes {
    place: Place,
    /// A field needs its quotes.
    needed: bool,
    /// A field has quotes.
    any: bool,
    /// A field has none, and is not empty.
    plain: bool,
    /// A quotation mark cannot be one of the second kind.
    broken: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Start,
    Plain,
    Quoted,
    /// After a mark inside quotes, which ends them or is doubled.
    Mark,
    /// After the carriage return behind a quoted field.
    Return,
}

impl Quotes {
    /// The next bytes of the file.
    pub fn read(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.place = self.next(byte));
    }

    fn next(&mut self, byte: u8) -> Place {
        match (self.place, byte) {
            (Place::Start, b'"') => {
                self.any = true;
                Place::Quoted
            }
            (Place::Start | Place::Plain | Place::Mark, b'\t' | b'\n') | (Place::Return, b'\n') => Place::Start,
            (Place::Quoted, b'"') => Place::Mark,
            (Place::Mark, b'\r') => Place::Return,
            (Place::Quoted, b'\t' | b'\n' | b'\r') | (Place::Mark, b'"') => {
                self.needed = true;
                Place::Quoted
            }
            (Place::Quoted, _) => Place::Quoted,
            (Place::Start | Place::Plain, _) => {
                self.broken |= byte == b'"';
                self.plain = true;
                Place::Plain
            }
            (Place::Mark | Place::Return, _) => {
                self.broken = true;
                Place::Plain
            }
        }
    }

    /// Whether what was read is a file of the second kind.
    pub fn are_quotes(&self) -> bool {
        let is_open = matches!(self.place, Place::Quoted | Place::Return);
        !self.broken && !is_open && (self.needed || (self.any && !self.plain))
    }
}

#[cfg(test)]
mod tests {
    use super::Quotes;

    fn is_quoted(text: &str) -> bool {
        let mut quotes = Quotes::default();
        quotes.read(text.as_bytes());
        quotes.are_quotes()
    }

    #[test]
    fn the_two_kinds_are_told_apart() {
        for quoted in [
            "text\tlabel\n\"He said \"\"no\"\"\"\t1\nplain\t0\n",
            "text\tlabel\r\n\"a\tb\"\t1\r\n",
            "text\tlabel\n\"two\nlines\"\t1\n",
            "text\tlabel\n\"two\rlines\"\t1\n",
            "\"text\"\t\"label\"\n\"a\"\t\"1\"\n",
        ] {
            assert!(is_quoted(quoted), "{quoted}");
        }
        for literal in [
            "text\tlabel\n\"Hex County\" is\t1\n",
            "text\tlabel\n\"open\t1\n",
            "text\tlabel\nsay \"no\"\t1\n\"He said \"\"no\"\"\"\t1\n",
            "text\tlabel\n\"whole\"\t1\n",
            "text\tlabel\nplain\t1\n",
            "",
        ] {
            assert!(!is_quoted(literal), "{literal}");
        }
    }
}
