//! Added tokens, which are found in the text before it is split into words. The matches equal those of `AddedVocabulary` in Hugging Face
//! tokenizers.

use super::normalize::Normalizer;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use unicode_categories::UnicodeCategories;

/// A token that is matched in the text, with the rules of matching.
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Added {
    pub content: String,
    /// The token matches only if no letter or digit is next to it.
    #[serde(default)]
    pub single_word: bool,
    /// The match includes the white space to its left.
    #[serde(default)]
    pub lstrip: bool,
    /// The match includes the white space to its right.
    #[serde(default)]
    pub rstrip: bool,
    /// The token is normalized and then matched in the normalized text. Default: true for tokens that are not special.
    #[serde(default)]
    pub normalized: Option<bool>,
    #[serde(default)]
    pub special: bool,
    /// Name of the file that adds the token. Empty if none does.
    #[serde(skip)]
    pub from: &'static str,
}

impl Added {
    /// A token with the default rules.
    pub fn plain(content: &str, special: bool, from: &'static str) -> Added {
        let content = content.to_string();
        Added { content, single_word: false, lstrip: false, rstrip: false, normalized: None, special, from }
    }

    pub fn is_normalized(&self) -> bool {
        self.normalized.unwrap_or(!self.special)
    }

    /// The text and the rules. Two tokens with the same are the same token.
    pub fn rules(&self) -> (String, [bool; 5]) {
        (self.content.clone(), [self.single_word, self.lstrip, self.rstrip, self.is_normalized(), self.special])
    }
}

/// Added tokens and their ids.
#[derive(Clone, Default, Debug)]
pub(super) struct Register {
    ids: HashMap<String, u32>,
    /// The last token that got each id. Only this one is matched.
    pub by_id: BTreeMap<u32, Added>,
}

impl Register {
    /// Adds tokens to a vocabulary of `size` different tokens; `known` looks up its ids. A token of the vocabulary keeps its id, and a new one
    /// gets the next id. The ids in the files matter only for the order.
    pub fn add(&mut self, tokens: &[Added], size: u32, known: impl Fn(&str) -> Option<u32>) {
        let last = self.by_id.last_key_value().map(|(&id, _)| id);
        let mut next = last.filter(|&last| last >= size).map_or(size, |last| last + 1);
        for token in tokens.iter().filter(|t| !t.content.is_empty()) {
            let id = self.id(&token.content);
            if id.and_then(|id| self.by_id.get(&id)).is_some_and(|earlier| earlier.rules() == token.rules()) {
                continue;
            }
            let id = id.or_else(|| known(&token.content)).unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            self.ids.insert(token.content.clone(), id);
            self.by_id.insert(id, token.clone());
        }
    }

    /// The id of an added token.
    pub fn id(&self, content: &str) -> Option<u32> {
        self.ids.get(content).copied()
    }

    /// The tokens to match in the raw text, and those to match in the normalized text. With `split_special`, special tokens are treated as text.
    ///
    /// # Errors
    /// The token that is empty after normalization.
    pub fn matched(&self, normalizer: Normalizer, split_special: bool) -> std::result::Result<(Literals, Literals), Added> {
        let (mut raw, mut normalized) = (Vec::new(), Vec::new());
        for (&id, token) in &self.by_id {
            let Added { single_word, lstrip, rstrip, .. } = *token;
            let mut literal =
                Literal { text: token.content.clone(), id, single_word, lstrip, rstrip, ignored: split_special && token.special };
            if !token.is_normalized() {
                raw.push(literal);
                continue;
            }
            literal.text.clear();
            normalizer.whole(&token.content, &mut literal.text);
            if literal.text.is_empty() {
                return Err(token.clone());
            }
            normalized.push(literal);
        }
        Ok((Literals::new(raw), Literals::new(normalized)))
    }
}

/// A token to look for.
#[derive(Clone, Debug)]
pub(super) struct Literal {
    text: String,
    id: u32,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    /// A match is treated as text, but tokens that overlap it are not found.
    ignored: bool,
}

/// The tokens to find in a text. The leftmost match wins, and of those with the same start the longest.
#[derive(Clone, Default, Debug)]
pub(super) struct Literals {
    /// From long to short. Everything that matches depend on.
    pub tokens: Vec<Literal>,
    /// Lengths of the tokens that begin with each byte, from long to short.
    lengths: Vec<Vec<usize>>,
    /// Indices of the tokens by their texts.
    index: HashMap<String, usize>,
    /// The first character of all tokens, if it is the same, like `[` of BERT's.
    only: Option<char>,
}

impl Literals {
    fn new(mut tokens: Vec<Literal>) -> Literals {
        // A stable sort: of two tokens that are equal after normalization, the one with the smaller id wins.
        tokens.sort_by_key(|token| std::cmp::Reverse(token.text.len()));
        let (mut lengths, mut index) = (vec![Vec::new(); 256], HashMap::new());
        for (i, token) in tokens.iter().enumerate() {
            let lengths: &mut Vec<usize> = &mut lengths[usize::from(token.text.as_bytes()[0])];
            if lengths.last() != Some(&token.text.len()) {
                lengths.push(token.text.len());
            }
            index.entry(token.text.clone()).or_insert(i);
        }
        let first = tokens.first().and_then(|token| token.text.chars().next());
        let only = first.filter(|&c| tokens.iter().all(|token| token.text.starts_with(c)));
        Literals { tokens, lengths, index, only }
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Cuts `text` at its matches: each match's id and the text before it, from left to right, and at the end the rest without an id.
    pub fn cut<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (&'a str, Option<u32>)> + 'a {
        // `at`: position of the search, `None` at the end. `taken`: end of the last match, its white space included.
        let (mut at, mut taken) = (Some(0), 0);
        std::iter::from_fn(move || {
            while let Some((found, token)) = self.first(text, at?) {
                let end = found + token.text.len();
                at = Some(end);
                let touched = || text[..found].ends_with(is_word) || text[end..].starts_with(is_word);
                if token.ignored || (token.single_word && touched()) {
                    continue;
                }
                let start = if token.lstrip { text[..found].trim_end().len() } else { found };
                let before = &text[taken..start.max(taken)];
                taken = if token.rstrip { text.len() - text[end..].trim_start().len() } else { end };
                return Some((before, Some(token.id)));
            }
            at = None;
            Some((&text[taken..], None))
        })
    }

    /// The first match at or after `at`: its position and token.
    fn first(&self, text: &str, at: usize) -> Option<(usize, &Literal)> {
        let rest = &text[at..];
        let longest = |i: usize| {
            let lengths = self.lengths.get(usize::from(rest.as_bytes()[i]))?;
            let found = lengths.iter().find_map(|length| self.index.get(rest.get(i..i + length)?))?;
            Some((at + i, &self.tokens[*found]))
        };
        match self.only {
            Some(c) => rest.match_indices(c).find_map(|(i, _)| longest(i)),
            // A token starts at the first byte of a character.
            None if !self.is_empty() => (0..rest.len()).filter(|&i| rest.is_char_boundary(i)).find_map(longest),
            None => None,
        }
    }
}

/// `\w` of regular expressions. Unicode Technical Standard 18, annex C, <https://www.unicode.org/reports/tr18/#word>.
fn is_word(c: char) -> bool {
    let joins = matches!(c, '\u{200c}' | '\u{200d}');
    c.is_alphabetic() || c.is_mark() || c.is_number_decimal_digit() || c.is_punctuation_connector() || joins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tokens: &[Added], text: &str) -> Vec<(String, u32)> {
        let mut register = Register::default();
        register.add(tokens, 0, |_| None);
        let (raw, normalized) = register.matched(Normalizer::UNCASED, false).unwrap();
        let all = |l: &Literals| {
            let parts: Vec<_> = l.cut(text).collect();
            let start = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
            let matched = |w: &[(&str, Option<u32>)]| (text[start(w[0].0) + w[0].0.len()..start(w[1].0)].to_string(), w[0].1.unwrap());
            parts.windows(2).map(matched).collect::<Vec<_>>()
        };
        [all(&raw), all(&normalized)].concat()
    }

    #[test]
    fn the_leftmost_and_longest_match_counts() {
        let tokens = ["ab", "abc", "bcd", "[x]"].map(|t| Added::plain(t, true, ""));
        let pairs = |list: &[(&str, u32)]| list.iter().map(|&(t, id)| (t.to_string(), id)).collect::<Vec<_>>();
        assert_eq!(found(&tokens, "abcd ab[x]"), pairs(&[("abc", 1), ("ab", 0), ("[x]", 3)]));
        assert_eq!(found(&tokens, "\u{e9}bcd\u{e9}"), pairs(&[("bcd", 2)]));
        assert!(found(&tokens, "a b [y]").is_empty() && found(&[], "ab").is_empty() && found(&tokens, "").is_empty());
    }

    #[test]
    fn flags_decide_about_neighbours_and_white_space() {
        let mut token = Added::plain("<m>", true, "");
        token.single_word = true;
        let texts = |token: &Added, text: &str| found(std::slice::from_ref(token), text).into_iter().map(|(t, _)| t).collect::<Vec<_>>();
        assert_eq!(texts(&token, "a<m> <m>1 _<m> \u{301}<m> (<m>) <m>").len(), 2);
        (token.single_word, token.lstrip, token.rstrip) = (false, true, true);
        assert_eq!(texts(&token, "a \t<m> \u{2003}<m>\n"), [" \t<m> \u{2003}", "<m>\n"]);
    }

    #[test]
    fn new_tokens_get_the_next_ids() {
        let mut register = Register::default();
        let known = |t: &str| (t == "old").then_some(2);
        let tokens = ["new", "old", "newer", "new", ""].map(|t| Added::plain(t, false, ""));
        register.add(&tokens, 9, known);
        register.add(&[Added::plain("last", true, "")], 9, known);
        let ids = ["new", "old", "newer", "last"].map(|t| register.id(t));
        assert_eq!(ids, [Some(9), Some(2), Some(10), Some(11)]);
        let accent = Added::plain("\u{301}", false, "");
        register.add(&[accent], 9, known);
        assert_eq!(register.matched(Normalizer::UNCASED, false).unwrap_err().content, "\u{301}");
    }
}
