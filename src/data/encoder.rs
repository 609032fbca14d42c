//! WordPiece for many texts, with a cache of words: most words of a text are among a few thousand frequent ones.

use super::WordPiece;
use crate::cut::Cut;

/// Slots of the cache, a power of two: 2 MiB. Each word has one slot, which keeps the last word that was put there.
const SLOTS: usize = 1 << 16;
/// Bytes of the longest word in the cache: those of a `u128`.
const LONGEST: usize = 16;
/// Largest number of ids of a word in the cache.
const PIECES: usize = 3;

/// Encodes many texts to the same ids as [`WordPiece::encode`], and faster.
///
/// Text is cut at ASCII spaces and around each ASCII punctuation character. No step of the normalizer looks across those. So the ids of a part
/// depend on the bytes of that part alone, and can be cached by the bytes before normalization.
#[derive(Debug)]
pub struct Encoder<'w> {
    wordpiece: &'w WordPiece,
    slots: Vec<Slot>,
    /// Temporary buffer of the normalizer.
    buffer: String,
}

/// A word as in the text, and its ids. The slot is free while `length` is 0.
#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    /// The bytes of the word, then zeros.
    word: u128,
    ids: [u32; PIECES],
    length: u8,
    count: u8,
}

impl<'w> Encoder<'w> {
    /// An encoder with an empty cache.
    pub fn new(wordpiece: &'w WordPiece) -> Encoder<'w> {
        Encoder { wordpiece, slots: vec![Slot::default(); SLOTS], buffer: String::new() }
    }

    /// Whether a text that is too long loses its start instead of its end.
    pub(super) fn cuts_start(&self) -> bool {
        self.wordpiece.keep_end
    }

    /// The ids of `text`: see [`WordPiece::encode`].
    pub fn encode(&mut self, text: &str, cut: impl Into<Cut>) -> Vec<u32> {
        self.encode_and_tell(text, cut.into()).0
    }

    /// [`Encoder::encode`], and whether the text was cut.
    pub(super) fn encode_and_tell(&mut self, text: &str, cut: Cut) -> (Vec<u32>, bool) {
        self.wordpiece.encode_with(text, cut, |plain, end, ids| {
            let mut rest = plain;
            while let Some(&first) = rest.as_bytes().first().filter(|_| ids.len() < end) {
                let class = |b: u8| CLASSES[usize::from(b)];
                let length = match class(first) {
                    Class::Inner => rest.bytes().position(|b| class(b) != Class::Inner).unwrap_or(rest.len()),
                    Class::Space | Class::Punctuation => 1,
                };
                if class(first) != Class::Space {
                    self.word(rest, length, end, ids);
                }
                rest = &rest[length..];
            }
        })
    }

    /// Appends the ids of the first `length` bytes of `text`.
    #[inline]
    fn word(&mut self, text: &str, length: usize, end: usize, ids: &mut Vec<u32>) {
        if length > LONGEST {
            self.wordpiece.encode_plain(&text[..length], &mut self.buffer, end, ids);
            return;
        }
        let word = first_bytes(text.as_bytes(), length);
        let slot = &mut self.slots[place(word)];
        if slot.word == word && usize::from(slot.length) == length {
            ids.extend(slot.ids.iter().take(usize::from(slot.count)));
            return;
        }
        let start = ids.len();
        let whole = self.wordpiece.encode_plain(&text[..length], &mut self.buffer, end, ids);
        let found = &ids[start..];
        if whole && found.len() <= PIECES {
            *slot = Slot { word, ids: [0; PIECES], length: length as u8, count: found.len() as u8 };
            slot.ids[..found.len()].copy_from_slice(found);
        }
    }
}

/// The first `length` bytes, 1 to 16, then zeros.
fn first_bytes(text: &[u8], length: usize) -> u128 {
    match text.first_chunk() {
        // Not near the end of the text: one load and a mask replace a copy of variable length.
        Some(&window) => u128::from_le_bytes(window) & (u128::MAX >> (8 * (LONGEST - length))),
        None => {
            let mut padded = [0; LONGEST];
            padded[..length].copy_from_slice(&text[..length]);
            u128::from_le_bytes(padded)
        }
    }
}

/// The slot of a word. Multiplicative hashing: Knuth, "The Art of Computer Programming" 3, 6.4, with two odd constants for two halves.
fn place(word: u128) -> usize {
    let (low, high) = (word as u64, (word >> 64) as u64);
    let hash = low.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(high.wrapping_mul(0xC2B2_AE3D_27D4_EB4F));
    (hash >> (u64::BITS - SLOTS.ilog2())) as usize
}

/// The class of a byte of UTF-8, for cutting text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Punctuation,
    /// Anything else: a letter, a digit, a control character, or a byte of a character beyond ASCII. The normalizer handles it.
    Inner,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Inner; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        if byte.is_ascii_punctuation() {
            classes[b] = Class::Punctuation;
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            classes[b] = Class::Space;
        }
        b += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::added::Added;
    use crate::data::normalize::Normalizer;
    use crate::data::wordpiece::of_vocab;
    use proptest::prelude::*;
    use std::path::Path;

    /// Every letter case and accent setting, over pieces that make many words known, some in several pieces.
    fn tokenizers() -> Vec<WordPiece> {
        let pieces = "[PAD] [UNK] [CLS] [SEP] [MASK] a b c e un ##a ##b ##c ##e ##able good , . ' [ ] < / > ! \u{e9} ##\u{e9} A ##A \
                      \u{4e2d} \u{6587} \u{201c} \u{3b1} ##\u{3b1} 1 ##1 \u{301} ##\u{301}";
        let tokens: Vec<String> = pieces.split_whitespace().map(String::from).collect();
        let normalizers =
            (0..8).map(|bits| Normalizer { lowercase: bits & 1 == 0, strip_accents: bits & 2 == 0, split_ideographs: bits & 4 == 0 });
        let parts = normalizers.map(|n| of_vocab(tokens.clone(), n));
        // Without added tokens, with some that are matched in the raw text, and with some in the normalized text, too.
        let special = ["un", " b", "\u{e9}", "[SEP"].map(|t| Added::plain(t, true, ""));
        let other = ["Able", "b c", "\u{c9}a", "\u{4e2d}", "<"].map(|t| Added::plain(t, false, ""));
        let all = parts.enumerate().map(|(i, mut parts)| {
            parts.added.extend([special.to_vec(), other.to_vec()].into_iter().take(i % 3));
            WordPiece::new(parts, Path::new("test")).unwrap()
        });
        all.collect()
    }

    /// Texts of what the two paths treat differently.
    fn texts() -> impl Strategy<Value = Vec<String>> {
        let part = prop_oneof![
            4 => "[abcAB1]{1,9}",
            2 => "[ ,.'<>/!\\[\\]]{1,2}",
            1 => "\\[SEP\\]|\\[MASK\\]|\\[sep\\]|\\[UNK|good|unable",
            1 => "[\u{e9}\u{c9}\u{3b1}\u{391}\u{130}\u{df}\u{1e9e}\u{fb01}\u{1f82}]{1,3}",
            1 => "[\u{301}\u{316}\u{345}\u{5b0}\u{200d}]{1,3}",
            1 => "[\u{4e2d}\u{6587}\u{ac00}\u{3042}\u{2f800}]{1,3}",
            1 => "[\u{0}\t\n\r\u{b}\u{c}\u{7f}\u{85}\u{a0}\u{2028}\u{3000}\u{fffd}\u{feff}]{1,2}",
            1 => "[\u{201c}\u{2026}\u{1f600}]",
            1 => "[ab]{90,110}",
            1 => any::<String>(),
        ];
        prop::collection::vec(prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat()), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn equals_the_simple_path(texts in texts(), max in prop_oneof![0usize..20, Just(usize::MAX)]) {
            for wordpiece in tokenizers() {
                let mut encoder = Encoder::new(&wordpiece);
                // Twice: what the first pass has left behind must be right, too.
                for text in texts.iter().chain(&texts) {
                    prop_assert_eq!(encoder.encode(text, max), wordpiece.encode(text, max), "{:?}", text);
                }
            }
        }
    }

    #[test]
    fn words_that_share_bytes_or_a_place_stay_apart() {
        let wordpiece = &tokenizers()[0];
        let mut encoder = Encoder::new(wordpiece);
        // Zeros at the end look like padding.
        for text in ["a", "a\0", "a\0\0", "\0", "\0\0", "a\0b", "ab", "abcabcabcabcabca", "abcabcabcabcabcab"] {
            assert_eq!(encoder.encode(text, 99), wordpiece.encode(text, 99), "{text:?}");
        }
        let words: Vec<String> = (0..3 * SLOTS).map(|i| format!("{i:b}").replace('0', "a")).collect();
        let text = words.join(" ");
        assert_eq!(encoder.encode(&text, usize::MAX), wordpiece.encode(&text, usize::MAX));
        assert_eq!((encoder.slots.len(), size_of::<Slot>()), (SLOTS, 32));
    }

    #[test]
    fn two_words_of_equal_length_may_share_a_place() {
        assert_eq!(place(first_bytes(b"adb", 3)), place(first_bytes(b"ian", 3)));
        let wordpiece = WordPiece::from_vocab("[UNK] [CLS] [SEP] adb ian".split(' ').map(String::from)).unwrap();
        assert_eq!(Encoder::new(&wordpiece).encode("adb ian adb", 9), [1, 3, 4, 3, 2]);
    }
}
