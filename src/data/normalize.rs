//! BERT's normalization of text and its split into words. The order of the steps and the Unicode tables are those of `BertNormalizer` and
//! `BertPreTokenizer` in Hugging Face tokenizers.
//!
//! A comparison of every code point found differences for 21 letters of rare scripts only, such as U+11938. They got a decomposition after
//! Unicode 9, which the reference uses. BERT's vocabulary has none of these letters, so the ids are equal.

use unicode_categories::UnicodeCategories;
use unicode_normalization::UnicodeNormalization;

/// The steps of normalization.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Normalizer {
    /// Each character becomes its lower-case form.
    pub lowercase: bool,
    /// Canonical decomposition, then nonspacing marks are dropped.
    pub strip_accents: bool,
    /// Each Chinese character becomes a word.
    pub split_ideographs: bool,
}

impl Normalizer {
    /// The steps of the uncased models.
    pub const UNCASED: Normalizer = Normalizer { lowercase: true, strip_accents: true, split_ideographs: true };

    /// Calls `f` with each normalized word of `text`, until it returns false. Returns whether all words were used. `buffer` is temporary.
    ///
    /// Text is split at white space before normalization. No step looks across white space, so the words are the same. The rest of a long text is
    /// not touched once `f` returns false.
    pub fn words(self, text: &str, buffer: &mut String, f: &mut impl FnMut(&str) -> bool) -> bool {
        text.split(is_space).filter(|piece| !piece.is_empty()).all(|piece| {
            buffer.clear();
            self.normalize(piece, buffer);
            split_punctuation(buffer, f)
        })
    }

    /// Appends the whole normalized `text`. Each white-space character becomes a blank.
    pub fn whole(self, text: &str, out: &mut String) {
        for (i, piece) in text.split(is_space).enumerate() {
            if i > 0 {
                out.push(' ');
            }
            self.normalize(piece, out);
        }
    }

    fn normalize(self, piece: &str, out: &mut String) {
        if piece.is_ascii() {
            let start = out.len();
            out.extend(piece.chars().filter(|c| !c.is_ascii_control()));
            if self.lowercase {
                out[start..].make_ascii_lowercase();
            }
            return;
        }
        let clean = piece.chars().filter(|&c| c != '\u{fffd}' && !is_control(c));
        let spaced = clean.flat_map(|c| {
            let space = (self.split_ideographs && is_ideograph(c)).then_some(' ');
            space.into_iter().chain([c]).chain(space)
        });
        let lower = |out: &mut String, c: char| if self.lowercase { out.extend(c.to_lowercase()) } else { out.push(c) };
        if self.strip_accents {
            spaced.nfd().filter(|c| !c.is_mark_nonspacing()).for_each(|c| lower(out, c));
        } else {
            spaced.for_each(|c| lower(out, c));
        }
    }
}

/// Calls `f` with the words between spaces, until it returns false. Each punctuation character is a word.
pub(super) fn split_punctuation(text: &str, f: &mut impl FnMut(&str) -> bool) -> bool {
    let mut start = 0;
    for (i, c) in text.char_indices() {
        let space = c.is_whitespace();
        if !space && !is_punctuation(c) {
            continue;
        }
        let end = i + c.len_utf8();
        if (start < i && !f(&text[start..i])) || (!space && !f(&text[i..end])) {
            return false;
        }
        start = end;
    }
    start == text.len() || f(&text[start..])
}

fn is_control(c: char) -> bool {
    !matches!(c, '\t' | '\n' | '\r') && c.is_other()
}

/// White space that separates words. U+000B, U+000C and U+0085 are control characters and are removed instead.
fn is_space(c: char) -> bool {
    match c {
        ' ' | '\t' | '\n' | '\r' => true,
        _ if c.is_ascii() => false,
        _ => c.is_whitespace() && !c.is_other(),
    }
}

fn is_punctuation(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_punctuation() } else { c.is_punctuation() }
}

/// The Unicode blocks of the reference. It has U+2B920 where BERT's own code has U+2B820; pretrained ids depend on that.
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F | 0x2B920..=0x2CEAF
        | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, lowercase: bool) -> Vec<String> {
        let normalizer = Normalizer { lowercase, strip_accents: lowercase, split_ideographs: true };
        let (mut out, mut buffer) = (Vec::new(), String::new());
        assert!(normalizer.words(text, &mut buffer, &mut |w: &str| {
            out.push(w.to_string());
            true
        }));
        out
    }

    #[test]
    fn cleans_in_the_order_of_the_reference() {
        assert_eq!(words("Don't  STOP\tme\u{a0}now", true), ["don", "'", "t", "stop", "me", "now"]);
        assert_eq!(words("Na\u{ef}ve Cafe\u{301}", true), ["naive", "cafe"]);
        assert_eq!(words("Na\u{ef}ve", false), ["Na\u{ef}ve"]);
        assert_eq!(words("a\u{0}b\u{200b}c\u{fffd}d\u{b}e\u{85}f", true), ["abcdef"]);
        assert_eq!(words("x\u{4e2d}\u{6587}y", true), ["x", "\u{4e2d}", "\u{6587}", "y"]);
        assert_eq!(words("\u{201c}so\u{201d}\u{2026}", true), ["\u{201c}", "so", "\u{201d}", "\u{2026}"]);
        assert_eq!(words("\u{130}I\u{df}", true), ["ii\u{df}"]);
        assert!(words(" \u{301}\u{2028} ", true).is_empty());
    }

    #[test]
    fn the_whole_text_has_the_same_words() {
        for text in ["Na\u{ef}ve  \u{130}X\t\u{4e2d}\u{6587}y\u{0}\u{85}\u{2028}Don't ", "", " A", "\u{301}"] {
            let (mut whole, mut out) = (String::new(), Vec::new());
            Normalizer::UNCASED.whole(text, &mut whole);
            assert!(split_punctuation(&whole, &mut |w: &str| {
                out.push(w.to_string());
                true
            }));
            assert_eq!(out, words(text, true), "{text:?}");
        }
        let mut whole = String::from("KEPT ");
        Normalizer::UNCASED.whole("A\n\u{c9}", &mut whole);
        assert_eq!(whole, "KEPT a e");
    }

    #[test]
    fn stops_when_told() {
        let normalizer = Normalizer { lowercase: true, strip_accents: true, split_ideographs: true };
        let mut seen = 0;
        assert!(!normalizer.words("a b c", &mut String::new(), &mut |_: &str| {
            seen += 1;
            seen < 2
        }));
        assert_eq!(seen, 2);
    }
}
