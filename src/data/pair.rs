//! Pairs of texts: `[CLS]` a `[SEP]` b `[SEP]`.

use super::dataset::{pair_key, text_key};
use super::encoder::Encoder;
use super::tokenized::Encoded;
use crate::cut::Cut;

/// Ids that every pair has: `[CLS]` and two `[SEP]`.
const MARKERS: usize = 3;

impl Encoded {
    /// Encodes a text as long as `cut` says, or a pair of texts if there is a second one.
    pub fn of(encoder: &mut Encoder, text: &str, second: Option<&str>, cut: Cut) -> Encoded {
        match second {
            None => Encoded::new(encoder, text, cut),
            Some(second) => Encoded::pair(encoder, [text, second], cut.max_length),
        }
    }

    /// Encodes a pair of texts with at most `max_length` ids, at least 3. If the pair is longer, the longer text is cut first: the function `kept` says how.
    pub fn pair(encoder: &mut Encoder, texts: [&str; 2], max_length: usize) -> Encoded {
        let [mut first, second] = texts.map(|text| encoder.encode(text, usize::MAX));
        let lengths = [first.len() - 2, second.len() - 2];
        let most = max_length.saturating_sub(MARKERS);
        let keep = kept(lengths, most);
        // Where the kept part of each text begins: its other end is cut.
        let [from, other_from] = [0, 1].map(|i| if encoder.cuts_start() { lengths[i] - keep[i] } else { 0 });
        first.truncate(1 + from + keep[0]);
        first.drain(1..1 + from);
        let separator = second[second.len() - 1];
        first.push(separator);
        first.extend_from_slice(&second[1 + other_from..][..keep[1]]);
        first.push(separator);
        Encoded {
            ids: first,
            second: keep[1] + 1,
            key: pair_key(texts.map(text_key)),
            cut: keep != lengths,
            empty: texts.iter().any(|text| text.trim().is_empty()),
        }
    }
}

/// How many ids are kept of two texts of `lengths` ids, `most` in all: the longer text is cut first, until both are equally long. If `most` is odd,
/// the longer text keeps one more; of equally long ones, the second. As `truncation="longest_first"` of Hugging Face tokenizers (`truncate_encodings` in
/// `tokenizers/src/utils/truncation.rs`).
fn kept(lengths: [usize; 2], most: usize) -> [usize; 2] {
    let [a, b] = lengths;
    if a + b <= most {
        return lengths;
    }
    let short = a.min(b);
    let (short, long) = if 2 * short >= most { (most / 2, most - most / 2) } else { (short, most - short) };
    if a > b { [long, short] } else { [short, long] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::WordPiece;

    #[test]
    fn the_longer_text_is_cut_first() {
        for (lengths, most, wanted) in [
            ([3, 4], 7, [3, 4]),
            ([3, 9], 7, [3, 4]),
            ([9, 3], 7, [4, 3]),
            ([9, 8], 7, [4, 3]),
            ([8, 9], 7, [3, 4]),
            ([9, 9], 7, [3, 4]),
            ([4, 9], 7, [3, 4]),
            ([9, 9], 0, [0, 0]),
            ([0, 9], 4, [0, 4]),
            ([1, 1], 1, [0, 1]),
        ] {
            assert_eq!(kept(lengths, most), wanted, "{lengths:?} {most}");
        }
    }

    #[test]
    fn a_pair_is_two_texts_with_their_markers() {
        let w = WordPiece::from_vocab(["[UNK]", "[CLS]", "[SEP]", "a", "b", "c"].map(String::from)).unwrap();
        let mut encoder = Encoder::new(&w);
        let mut of = |texts, most| {
            let pair = Encoded::pair(&mut encoder, texts, most);
            (pair.ids, pair.second, pair.cut, pair.empty)
        };
        assert_eq!(of(["a b", "c"], 9), (vec![1, 3, 4, 2, 5, 2], 2, false, false));
        assert_eq!(of(["a b c", "c a b c"], 7), (vec![1, 3, 4, 2, 5, 3, 2], 3, true, false));
        assert_eq!(of(["", "c"], 9), (vec![1, 2, 5, 2], 2, false, true));
        assert_eq!(of(["a", "b"], 0), (vec![1, 2, 2], 1, true, false));
        let key = |texts| Encoded::pair(&mut Encoder::new(&w), texts, 9).key;
        assert!(key(["a", "b"]) != key(["b", "a"]) && key(["a b", ""]) != key(["a", "b"]));
    }
}
