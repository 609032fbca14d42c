//! WordPiece as BERT uses it. Schuster & Nakajima 2012, "Japanese and Korean voice search"; Devlin et al. 2018,
//! <https://arxiv.org/abs/1810.04805>. Equal, id by id, to the fast tokenizer of Hugging Face.

use super::normalize::Normalizer;
use super::settings;
use crate::{Error, Result};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;

/// What starts each piece of a word but its first.
pub(super) const CONTINUED: &str = "##";
/// The tokens that are matched literally in the text, before anything else is done to it.
pub(super) const SPECIAL: [&str; 5] = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"];

/// A vocabulary and the rules that turn text into its ids.
#[derive(Clone, Debug)]
pub struct WordPiece {
    /// Token of each id: `[V]`.
    tokens: Vec<String>,
    /// Ids of the pieces that start a word, and of those that continue one (without `##`).
    starts: Pieces,
    continued: Pieces,
    /// Tokens matched literally in the text, and their ids.
    special: Vec<(String, u32)>,
    normalizer: Normalizer,
    /// A word of more characters is unknown.
    max_chars: usize,
    unknown: u32,
    classify: u32,
    separate: u32,
}

/// What a tokenizer is made of; `settings` reads it from files.
pub(super) struct Parts {
    /// Token of each id.
    pub tokens: Vec<String>,
    /// Ids of the tokens that words are cut into: those below it. The others are only matched literally.
    pub pieces: usize,
    /// Ids of the tokens that are matched literally.
    pub special: Vec<u32>,
    pub normalizer: Normalizer,
    pub max_chars: usize,
}

impl WordPiece {
    /// Reads a tokenizer: a folder with `tokenizer.json` or else `vocab.txt`, or one of those files. Beside a `vocab.txt`,
    /// `tokenizer_config.json` may set `do_lower_case` (true by default), `strip_accents` and `tokenize_chinese_chars`.
    ///
    /// # Errors
    /// If no such file is there, or it is malformed, or it asks for something that BERT's tokenizer does not do.
    pub fn open(path: &Path) -> Result<WordPiece> {
        settings::open(path)
    }

    /// A lower-casing tokenizer of the vocabulary whose token `i` is the line `i`, counted from 0.
    ///
    /// # Errors
    /// If a token is empty or occurs twice, or `[UNK]`, `[CLS]` or `[SEP]` is missing.
    pub fn from_vocab(lines: impl IntoIterator<Item = String>) -> Result<WordPiece> {
        let tokens = lines.into_iter().map(|line| line.trim_end_matches(['\r', '\n']).to_string()).collect();
        WordPiece::new(settings::of_vocab(tokens, Normalizer::UNCASED), Path::new("vocabulary"), "line", 1)
    }

    /// Builds the tables. `path` names the source of the parts, and the token with id i stands at `place` i + `first` in it: for errors.
    pub(super) fn new(parts: Parts, path: &Path, place: &str, first: usize) -> Result<WordPiece> {
        let Parts { tokens, pieces, special, normalizer, max_chars } = parts;
        let (mut starts, mut continued) = (Pieces::default(), Pieces::default());
        for (i, token) in tokens.iter().enumerate() {
            let fail = |problem: String| Err(Error::file(path, format_args!("{place} {}", i + first), problem));
            if token.is_empty() {
                return fail("the token is empty; remove the blank or restore the token".into());
            }
            if i >= pieces {
                continue;
            }
            let id = u32::try_from(i).map_err(|_| Error::file(path, place, "too many tokens for 32-bit ids"))?;
            let earlier = match token.strip_prefix(CONTINUED) {
                Some(rest) => continued.insert(rest, id),
                None => starts.insert(token, id),
            };
            if let Some(earlier) = earlier {
                return fail(format!("the token {token:?} occurs twice, first at {place} {}", earlier as usize + first));
            }
        }
        let special: Vec<(String, u32)> =
            special.into_iter().filter_map(|id| tokens.get(id as usize).map(|token| (token.clone(), id))).collect();
        let needed = |token: &str| {
            let literal = special.iter().find(|(t, _)| t == token).map(|(_, id)| *id);
            literal.or_else(|| starts.get(token)).ok_or_else(|| {
                Error::file(path, "vocabulary", format_args!("{token} is missing; BERT's WordPiece needs [UNK], [CLS] and [SEP]"))
            })
        };
        let (unknown, classify, separate) = (needed("[UNK]")?, needed("[CLS]")?, needed("[SEP]")?);
        Ok(WordPiece { tokens, starts, continued, special, normalizer, max_chars, unknown, classify, separate })
    }

    /// The ids of `text` between `[CLS]` and `[SEP]`: `[T]`, T <= `max_length`. What is too long loses its end. A `max_length` below 2
    /// counts as 2.
    pub fn encode(&self, text: &str, max_length: usize) -> Vec<u32> {
        let mut buffer = String::new();
        self.encode_with(text, max_length, |plain, end, ids| {
            self.encode_plain(plain, &mut buffer, end, ids);
        })
    }

    /// [`WordPiece::encode`], where `plain` appends the ids of the text between literal tokens, and may stop when there are `end`.
    pub(super) fn encode_with(&self, text: &str, max_length: usize, mut plain: impl FnMut(&str, usize, &mut Vec<u32>)) -> Vec<u32> {
        let end = max_length.max(2) - 1;
        let mut ids = Vec::with_capacity(end.min(text.len() / 4 + 2));
        ids.push(self.classify);
        let mut rest = text;
        while ids.len() < end && !rest.is_empty() {
            let special = self.next_special(rest);
            plain(special.map_or(rest, |(start, _, _)| &rest[..start]), end, &mut ids);
            let Some((start, length, id)) = special else { break };
            ids.push(id);
            rest = &rest[start + length..];
        }
        ids.truncate(end);
        ids.push(self.separate);
        ids
    }

    /// Appends the ids of the words of `text` until there are `end`; false if it got that far. `buffer` is scratch.
    pub(super) fn encode_plain(&self, text: &str, buffer: &mut String, end: usize, ids: &mut Vec<u32>) -> bool {
        self.normalizer.words(text, buffer, &mut |word: &str| {
            self.pieces(word, ids);
            ids.len() < end
        })
    }

    /// Start, length and id of the first token of `text` that is matched literally, the longest where several start.
    fn next_special(&self, text: &str) -> Option<(usize, usize, u32)> {
        // One pass where every such token starts with a bracket, as BERT's do.
        if self.special.iter().all(|(token, _)| token.starts_with('[')) {
            let longest = |start: usize| self.special.iter().filter(move |(token, _)| text[start..].starts_with(token.as_str()));
            let mut found = text.match_indices('[').filter_map(|(i, _)| Some((i, longest(i).max_by_key(|(token, _)| token.len())?)));
            return found.next().map(|(i, (token, id))| (i, token.len(), *id));
        }
        let all = self.special.iter().filter_map(|(token, id)| Some((text.find(token.as_str())?, token.len(), *id)));
        all.min_by_key(|&(start, length, _)| (start, std::cmp::Reverse(length)))
    }

    /// Cuts a word greedily into the longest pieces that exist; one that cannot be cut up is unknown as a whole.
    fn pieces(&self, word: &str, ids: &mut Vec<u32>) {
        let known = ids.len();
        if word.len() > self.max_chars && word.chars().count() > self.max_chars {
            return ids.push(self.unknown);
        }
        let (mut rest, mut table) = (word, &self.starts);
        while !rest.is_empty() {
            let Some((length, id)) = table.longest(rest) else {
                ids.truncate(known);
                return ids.push(self.unknown);
            };
            ids.push(id);
            rest = &rest[length..];
            table = &self.continued;
        }
    }

    /// The token of `id`.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// The id of `token`, which may be a piece such as `##ing`.
    pub fn id(&self, token: &str) -> Option<u32> {
        let piece = token.strip_prefix(CONTINUED).map_or_else(|| self.starts.get(token), |rest| self.continued.get(rest));
        piece.or_else(|| self.special.iter().find(|(t, _)| t == token).map(|(_, id)| *id))
    }

    /// Number of ids, V.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// The token of each id: `[V]`.
    pub fn vocabulary(&self) -> &[String] {
        &self.tokens
    }

    /// The rules in words: with [`WordPiece::vocabulary`] it determines every encoding, and so may key a cache.
    pub fn rules(&self) -> String {
        let pieces = self.starts.ids.len() + self.continued.ids.len();
        format!("{:?}, {pieces} pieces, literal {:?}, at most {} characters a word", self.normalizer, self.special, self.max_chars)
    }
}

/// Pieces and their ids, found by hash, the longest first.
#[derive(Clone, Default, Debug)]
struct Pieces {
    ids: HashMap<Box<str>, u32, BuildHasherDefault<Fnv>>,
    /// Bytes of the longest piece.
    longest: usize,
}

impl Pieces {
    /// Adds a piece; returns the id it already had.
    fn insert(&mut self, piece: &str, id: u32) -> Option<u32> {
        self.longest = self.longest.max(piece.len());
        match self.ids.get(piece) {
            Some(&earlier) => Some(earlier),
            None => self.ids.insert(piece.into(), id),
        }
    }

    fn get(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// Length in bytes and id of the longest piece that `text` starts with.
    fn longest(&self, text: &str) -> Option<(usize, u32)> {
        let ends = (1..=text.len().min(self.longest)).rev().filter(|&end| text.is_char_boundary(end));
        ends.into_iter().find_map(|end| Some((end, self.get(&text[..end])?)))
    }
}

/// FNV-1a: the keys are a few bytes long and come from a trusted vocabulary. <https://www.rfc-editor.org/rfc/rfc9923>.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xCBF2_9CE4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::shared;
    use proptest::prelude::*;

    fn tiny() -> WordPiece {
        let tokens = "[PAD] [UNK] [CLS] [SEP] [MASK] un ##aff ##able a ##a good , < / > br ! movie ##s [ ]";
        WordPiece::from_vocab(tokens.split(' ').map(String::from)).unwrap()
    }

    fn tokens(w: &WordPiece, text: &str) -> String {
        let ids = w.encode(text, 512);
        ids[1..ids.len() - 1].iter().map(|&id| w.token(id).unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn cuts_words_greedily() {
        let w = tiny();
        assert_eq!(tokens(&w, "Unaffable movies, aaa!"), "un ##aff ##able movie ##s , a ##a ##a !");
        assert_eq!(tokens(&w, "unaffordable good<br />"), "[UNK] good < br / >");
        assert_eq!(tokens(&w, "good[MASK]good [mask]"), "good [MASK] good [ [UNK] ]");
        assert_eq!(tokens(&w, "[[SEP][CLS"), "[ [SEP] [ [UNK]");
        assert_eq!(tokens(&w, &"a".repeat(100)), format!("a{}", " ##a".repeat(99)));
        assert_eq!(tokens(&w, &"a".repeat(101)), "[UNK]");
        assert_eq!((w.id("##able"), w.id("good"), w.id("bad"), w.token(99)), (Some(7), Some(10), None, None));
    }

    #[test]
    fn keeps_the_first_ids() {
        let w = tiny();
        let full = w.encode("unaffable [SEP] movies", 512);
        assert_eq!(full.len(), 8);
        for max in 0..10 {
            let cut = w.encode("unaffable [SEP] movies", max);
            assert_eq!(cut.len(), max.clamp(2, 8));
            assert_eq!(cut[..cut.len() - 1], full[..cut.len() - 1]);
            assert_eq!(cut.last(), full.last());
        }
    }

    #[test]
    fn refuses_bad_vocabularies() {
        let fails = |lines: &[&str]| WordPiece::from_vocab(lines.iter().map(|s| s.to_string())).unwrap_err().to_string();
        assert!(fails(&["[UNK]", "[CLS]", "[SEP]", "a", "a"]).contains("line 5: the token \"a\" occurs twice, first at line 4"));
        assert!(fails(&["[UNK]", "", "[CLS]", "[SEP]"]).contains("line 2: the token is empty"));
        assert!(fails(&["[UNK]", "[CLS]"]).contains("[SEP] is missing"));
        assert!(WordPiece::from_vocab(["[UNK]\r", "[CLS]\r\n", "[SEP]"].map(String::from)).is_ok());
    }

    #[test]
    fn equals_the_reference() {
        let Some(folder) = shared("checkpoints/minilm-l6-distilbert") else { return };
        for tokenizer in ["", "vocab.txt", "tokenizer.json"] {
            let w = WordPiece::open(&folder.join(tokenizer)).unwrap();
            for golden in ["lora", "dora"] {
                let Some(path) = shared(&format!("golden/{golden}/wordpiece.jsonl")) else { return };
                for line in std::fs::read_to_string(path).unwrap().lines() {
                    let case: serde_json::Value = serde_json::from_str(line).unwrap();
                    let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
                    let text = case["text"].as_str().unwrap();
                    assert_eq!(w.encode(text, usize::MAX), ids, "{text:?}");
                    assert_eq!(w.encode(text, 7).len(), ids.len().min(7));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_has_valid_ids(text in any::<String>(), words in "([a-z<>\\[\\]/, ]|\\[MASK\\]|\u{e9}|\u{4e2d}){0,60}", max in 0usize..40) {
            let w = tiny();
            for text in [text, words] {
                let ids = w.encode(&text, max);
                prop_assert!(ids.len() >= 2 && ids.len() <= max.max(2));
                prop_assert!(ids.iter().all(|&id| (id as usize) < w.vocab_size()));
                prop_assert!(ids[..ids.len() - 1] == w.encode(&text, usize::MAX)[..ids.len() - 1]);
            }
        }
    }
}
