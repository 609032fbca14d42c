//! WordPiece as BERT uses it. Schuster & Nakajima 2012, "Japanese and Korean voice search"; Devlin et al. 2018,
//! <https://arxiv.org/abs/1810.04805>. The ids equal those of Hugging Face's fast tokenizer.

use super::added::{Added, Literals, Register};
use super::normalize::{Normalizer, split_punctuation};
use super::pieces::Pieces;
use super::special::of_bert;
use crate::cut::{Cut, Truncate};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longest word of BERT, in characters.
pub(super) const MAX_CHARS: usize = 100;

/// A vocabulary and the rules that turn text into its ids.
#[derive(Clone, Debug)]
pub struct WordPiece {
    /// File of the vocabulary. The other files are in the same folder.
    path: PathBuf,
    /// The token of each id.
    tokens: BTreeMap<u32, String>,
    pieces: Pieces,
    pub(super) added: Register,
    /// Added tokens to match in the raw text, and added tokens to match in the normalized text between those.
    raw: Literals,
    normalized: Literals,
    pub(super) normalizer: Normalizer,
    /// Longest known word, in characters. Longer ones are unknown.
    pub(super) max_chars: usize,
    pub(super) unknown: Marker,
    pub(super) classify: Marker,
    pub(super) separate: Marker,
    pub(super) keep_end: bool,
}

/// A token that encoding inserts, and its id.
#[derive(Clone, Debug)]
pub(super) struct Marker {
    pub token: String,
    pub id: u32,
}

/// The parts of a tokenizer. `settings.rs` reads them from files.
pub(super) struct Parts {
    /// The tokens that words are cut into, and their ids. Of two equal tokens the last counts.
    pub pieces: Vec<(String, u32)>,
    /// Added tokens, in the groups in which they are added.
    pub added: Vec<Vec<Added>>,
    pub normalizer: Normalizer,
    pub max_chars: usize,
    /// The tokens for unknown words, for the start and for the end of a text.
    pub unknown: String,
    pub classify: String,
    pub separate: String,
    /// Cut a text that is too long at its start, not at its end.
    pub keep_end: bool,
    /// Treat special tokens in a text as plain text.
    pub split_special: bool,
}

impl WordPiece {
    /// A lower-casing tokenizer of the vocabulary whose token `i` is the line `i`, counted from 0, without the white space at its end. Of two
    /// equal lines the last counts. Those of `[UNK] [SEP] [PAD] [CLS] [MASK]` that are missing get the ids after it, in that order.
    ///
    /// # Errors
    /// If `[UNK]` is missing.
    pub fn from_vocab(lines: impl IntoIterator<Item = String>) -> Result<WordPiece> {
        let tokens = lines.into_iter().map(|line| line.trim_end().to_string());
        WordPiece::new(of_vocab(tokens, Normalizer::UNCASED), Path::new("vocabulary"))
    }

    /// Builds the tables. `path` is the vocabulary's file, for errors.
    pub(super) fn new(parts: Parts, path: &Path) -> Result<WordPiece> {
        let Parts { pieces: tokens, added: batches, normalizer, max_chars, unknown, classify, separate, keep_end, split_special } = parts;
        let mut pieces = Pieces::default();
        tokens.iter().for_each(|(token, id)| pieces.insert(token, *id));
        let known = |token: &str| pieces.get(token);
        let Some(unknown) = known(&unknown).map(|id| Marker { token: unknown.clone(), id }) else {
            let mark = tokens.first().is_some_and(|(token, _)| token.starts_with('\u{feff}'));
            let hint = if mark { "the file starts with a byte order mark: save it without" } else { "restore it, or choose another file" };
            return Err(Error::file(path, "vocabulary", format_args!("{unknown} is missing, which stands for unknown words; {hint}")));
        };
        let size = u32::try_from(pieces.len()).map_err(|_| Error::file(path, "vocabulary", "too many tokens for 32-bit ids"))?;
        let mut added = Register::default();
        batches.iter().for_each(|batch| added.add(batch, size, known));
        let marker = |token: String| {
            let id = added.id(&token).or_else(|| known(&token));
            let missing = || Error::file(path, "vocabulary", format_args!("{token} is missing, which BERT puts around each text"));
            Ok(Marker { id: id.ok_or_else(missing)?, token })
        };
        let (classify, separate) = (marker(classify)?, marker(separate)?);
        let (raw, normalized) = added.matched(normalizer, split_special).map_err(|token| {
            let problem = "normalization leaves nothing of this added token: remove it, or give it \"normalized\": false";
            Error::file(path.with_file_name(token.from), format_args!("{:?}", token.content), problem)
        })?;
        let mut tokens: BTreeMap<u32, String> = tokens.into_iter().map(|(token, id)| (id, token)).collect();
        // Of two equal tokens, only the last has its id.
        tokens.retain(|id, token| known(token) == Some(*id));
        tokens.extend(added.by_id.iter().map(|(id, token)| (*id, token.content.clone())));
        let path = path.to_path_buf();
        Ok(WordPiece { path, tokens, pieces, added, raw, normalized, normalizer, max_chars, unknown, classify, separate, keep_end })
    }

    /// The ids of `text` between `[CLS]` and `[SEP]`: `[T]`, T <= `max_length`, or the length of all windows: [`Cut::longest`]. A longer text is cut at its
    /// end, or at its start if the files' `truncation_side` is left, or as `cut` says. A `max_length` below 2 counts as 2.
    pub fn encode(&self, text: &str, cut: impl Into<Cut>) -> Vec<u32> {
        self.encode_and_tell(text, cut).0
    }

    /// [`WordPiece::encode`], and whether the text was cut.
    pub fn encode_and_tell(&self, text: &str, cut: impl Into<Cut>) -> (Vec<u32>, bool) {
        let mut buffer = String::new();
        self.encode_with(text, cut.into(), |plain, end, ids| {
            self.encode_plain(plain, &mut buffer, end, ids);
        })
    }

    /// [`WordPiece::encode_and_tell`]. `plain` appends the ids of the text between added tokens. It may stop when there are `end` ids.
    pub(super) fn encode_with(&self, text: &str, cut: Cut, mut plain: impl FnMut(&str, usize, &mut Vec<u32>)) -> (Vec<u32>, bool) {
        let most = cut.longest().max(2) - 1;
        let part = cut.truncate.unwrap_or(if self.keep_end { Truncate::Tail } else { Truncate::Head });
        // One further id shows whether the text is longer.
        let end = if part == Truncate::Head { most + 1 } else { usize::MAX };
        let mut ids = Vec::with_capacity(end.min(text.len() / 4 + 2));
        ids.push(self.classify.id);
        let mut between = |piece: &str, ids: &mut Vec<u32>| {
            if self.normalized.is_empty() { plain(piece, end, ids) } else { self.encode_normalized(piece, end, ids) }
        };
        for (piece, token) in self.raw.cut(text) {
            if ids.len() >= end {
                break;
            }
            between(piece, &mut ids);
            ids.extend(token);
        }
        let is_longer = ids.len() > most;
        if is_longer {
            let first = part.first(most - 1);
            ids.drain(1 + first..ids.len() - (most - 1 - first));
        }
        ids.push(self.separate.id);
        (ids, is_longer)
    }

    /// Appends the ids of the words of `text` until there are `end`. Returns false if it stopped. `buffer` is temporary.
    pub(super) fn encode_plain(&self, text: &str, buffer: &mut String, end: usize, ids: &mut Vec<u32>) -> bool {
        self.normalizer.words(text, buffer, &mut |word: &str| {
            self.word(word, ids);
            ids.len() < end
        })
    }

    /// [`WordPiece::encode_plain`] with added tokens that are matched in the normalized text.
    fn encode_normalized(&self, text: &str, end: usize, ids: &mut Vec<u32>) {
        let mut normal = String::new();
        self.normalizer.whole(text, &mut normal);
        for (piece, token) in self.normalized.cut(&normal) {
            let whole = split_punctuation(piece, &mut |word: &str| {
                self.word(word, ids);
                ids.len() < end
            });
            if !whole {
                return;
            }
            ids.extend(token);
        }
    }

    /// Appends the ids of the pieces of a word. If it is too long or no piece fits somewhere, the whole word is unknown.
    fn word(&self, word: &str, ids: &mut Vec<u32>) {
        let known = ids.len();
        let too_long = word.len() > self.max_chars && word.chars().count() > self.max_chars;
        if too_long || !self.pieces.cut(word, ids) {
            ids.truncate(known);
            ids.push(self.unknown.id);
        }
    }

    /// The token of `id`.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(&id).map(String::as_str)
    }

    /// The id of `token`, such as `##ing`.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.pieces.get(token))
    }

    /// Number of ids, V: one more than the largest.
    pub fn vocab_size(&self) -> usize {
        self.tokens.last_key_value().map_or(0, |(&id, _)| id as usize + 1)
    }

    /// Checks that a model with `embeddings` embeddings has one for every token of the tokenizer.
    ///
    /// `[PAD]` and `[MASK]` need none if no file and no vocabulary has them: texts rarely contain them.
    ///
    /// # Errors
    /// If a token has none. The message names the token and its file.
    pub fn check_fits(&self, embeddings: usize) -> Result<()> {
        for (&id, token) in self.tokens.range(u32::try_from(embeddings).unwrap_or(u32::MAX)..) {
            let marker = [&self.classify, &self.separate].iter().any(|marker| marker.id == id);
            let added = self.added.by_id.get(&id).filter(|_| self.pieces.get(token) != Some(id));
            let (path, advice) = match added {
                Some(added) if !added.from.is_empty() => {
                    let advice = "use the checkpoint whose embeddings were trained with this token, or remove it from the file";
                    (self.path.with_file_name(added.from), advice)
                }
                Some(_) if marker => (self.path.clone(), "the vocabulary lacks this token, and so it got the next id; restore it"),
                Some(_) => continue,
                // A blank line.
                None if token.is_empty() => continue,
                None => {
                    let (size, remedy) = (self.vocab_size(), "copy the vocabulary of this model");
                    let problem = format_args!("{size} tokens, but the model has embeddings for {embeddings}; {remedy}");
                    return Err(Error::file(&self.path, "vocabulary", problem));
                }
            };
            let there = format!("embeddings for {embeddings} tokens, 0 to {}", embeddings.saturating_sub(1));
            return Err(Error::file(path, format_args!("{token:?}"), format_args!("has the id {id}, but the model has {there}; {advice}")));
        }
        Ok(())
    }

    /// The tokens that words are cut into, by id.
    pub fn vocabulary(&self) -> Vec<(String, u32)> {
        self.pieces.all()
    }

    /// The rules as a string. Together with [`WordPiece::vocabulary`] they determine every encoding: the key of a cache.
    pub fn rules(&self) -> String {
        let Self { normalizer, raw, normalized, max_chars, unknown, classify, separate, keep_end, .. } = self;
        let ids = [unknown.id, classify.id, separate.id];
        let (raw, normalized) = (&raw.tokens, &normalized.tokens);
        format!("{normalizer:?}, added {raw:?}, normalized {normalized:?}, at most {max_chars} characters a word, {ids:?}, end {keep_end}")
    }
}

/// The parts of a tokenizer with a plain vocabulary and BERT's special tokens.
pub(super) fn of_vocab(tokens: impl IntoIterator<Item = String>, normalizer: Normalizer) -> Parts {
    Parts {
        pieces: tokens.into_iter().zip(0..).collect(),
        added: vec![of_bert()],
        normalizer,
        max_chars: MAX_CHARS,
        unknown: "[UNK]".to_string(),
        classify: "[CLS]".to_string(),
        separate: "[SEP]".to_string(),
        keep_end: false,
        split_special: false,
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
    fn odd_vocabularies_keep_their_lines() {
        let open = |lines: &[&str]| WordPiece::from_vocab(lines.iter().map(|s| s.to_string()));
        assert!(open(&["[CLS]", "[SEP]"]).unwrap_err().to_string().contains("vocabulary: [UNK] is missing"));
        let w = open(&["[UNK]\r\n", "", "[CLS]", "a", "b \t", "a", "[SEP]"]).unwrap();
        assert_eq!((w.encode("a b", 9), w.token(3)), (vec![2, 5, 4, 6], None), "the last of two equal tokens counts");
        assert_eq!(open(&["[UNK]", "[CLS]", "a"]).unwrap().encode("a", 9), [1, 2, 3], "[SEP] is new");
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
