//! Long texts: which of their tokens a model sees.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The smallest length that a text may be cut to: `[CLS]`, a token and `[SEP]`.
pub const SHORTEST: usize = 3;

/// The part of a long text that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Truncate {
    /// The first tokens.
    Head,
    /// The last tokens.
    Tail,
    /// The first and the last tokens, 128 to 382: of n tokens, round(n · 128 / 510) are the first. Sun et al. 2019, "How to Fine-Tune BERT for Text
    /// Classification?", <https://arxiv.org/abs/1905.05583>, section 5.3.1.
    HeadTail,
}

impl Truncate {
    /// All of them.
    pub const ALL: [Truncate; 3] = [Truncate::Head, Truncate::Tail, Truncate::HeadTail];

    /// The name: `head`, `tail` or `head-tail`.
    pub fn name(self) -> &'static str {
        match self {
            Truncate::Head => "head",
            Truncate::Tail => "tail",
            Truncate::HeadTail => "head-tail",
        }
    }

    /// Of `kept` tokens, how many are the first of the text. The others are the last.
    pub fn first(self, kept: usize) -> usize {
        match self {
            Truncate::Head => kept,
            Truncate::Tail => 0,
            // Without an overflow for any usize.
            Truncate::HeadTail => kept / 510 * 128 + (kept % 510 * 128 + 255) / 510,
        }
    }
}

/// How a long text is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cut {
    /// Largest number of ids of a sequence, `[CLS]` and `[SEP]` included.
    pub max_length: usize,
    /// The part that is kept. `None`: the side that the tokenizer's files name, which is the head unless their `truncation_side` is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncate: Option<Truncate>,
    /// Largest number of windows of a text, at least 1: see [`Windows`]. A text that is longer than all of them is truncated to their length.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub windows: usize,
}

fn one() -> usize {
    1
}

fn is_one(n: &usize) -> bool {
    *n == 1
}

impl From<usize> for Cut {
    fn from(max_length: usize) -> Cut {
        Cut { max_length, truncate: None, windows: 1 }
    }
}

impl Cut {
    /// The same with a single window. Training sees texts like this.
    pub fn one_window(self) -> Cut {
        Cut { windows: 1, ..self }
    }

    /// Length of a window in ids, if a text may have several.
    pub fn window(self) -> Option<usize> {
        (self.windows > 1).then_some(self.max_length)
    }

    /// Largest number of ids of a text that is not truncated: that of all windows together, `[CLS]` and `[SEP]` counted once.
    pub fn longest(self) -> usize {
        let (tokens, stride) = inside(self.max_length);
        match self.windows {
            0 | 1 => self.max_length,
            n => (n - 1).saturating_mul(stride).saturating_add(tokens + 2),
        }
    }

    /// In words, where texts are cut: `longer than 512 tokens, and are cut there`.
    pub fn in_words(self) -> String {
        let (longest, kept) = (self.longest(), self.longest().saturating_sub(2));
        let of = match self.windows {
            0 | 1 => format!("longer than {longest} tokens"),
            n => format!("longer than the {longest} tokens of {n} windows"),
        };
        match self.truncate {
            None | Some(Truncate::Head) => format!("{of}, and are cut there"),
            Some(Truncate::Tail) => format!("{of}, and only their last {kept} are kept"),
            Some(both) => {
                let first = both.first(kept);
                format!("{of}, and only their first {first} and last {} are kept", kept - first)
            }
        }
    }
}

/// As a key of caches: the number alone if nothing else was asked for.
impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.max_length)?;
        self.truncate.iter().try_for_each(|truncate| write!(f, " {}", truncate.name()))?;
        if self.windows > 1 { write!(f, " {} windows", self.windows) } else { Ok(()) }
    }
}

/// Tokens of a window of `length` ids between `[CLS]` and `[SEP]`, and those from the start of a window to the start of the next. Two neighbours share a quarter
/// of a window, rounded down.
fn inside(length: usize) -> (usize, usize) {
    let tokens = length.saturating_sub(2).max(1);
    (tokens, tokens - tokens / 4)
}

/// The ids of a text, or of a pair of texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sequence<'a> {
    /// All ids: `[T]`.
    pub ids: &'a [u32],
    /// Number of ids at the end that belong to the second text of a pair, its `[SEP]` included. 0: a single text.
    pub second: usize,
}

impl<'a> From<&'a [u32]> for Sequence<'a> {
    fn from(ids: &'a [u32]) -> Sequence<'a> {
        Sequence { ids, second: 0 }
    }
}

impl<'a> From<&'a Vec<u32>> for Sequence<'a> {
    fn from(ids: &'a Vec<u32>) -> Sequence<'a> {
        Sequence { ids, second: 0 }
    }
}

/// The windows of texts. A text of at most a window's length is one window. Of a longer text, each window has the full length and overlaps the one before it by a
/// quarter; the last ends with the text, so it may overlap more. Each window starts with `[CLS]` and ends with `[SEP]`.
pub struct Windows<'a> {
    /// Each with the number of ids at its end that belong to the second text of a pair.
    windows: Vec<(Cow<'a, [u32]>, usize)>,
    /// Index of the first window of each text, then the number of windows: `[N + 1]`.
    first: Vec<usize>,
}

impl<'a> Windows<'a> {
    /// Cuts the texts `sequences` `[N]`, each `[CLS]`, its tokens and `[SEP]`, into windows of `length` ids. `None`: each text is one window, and
    /// so is a pair of texts always.
    pub fn of<S: Into<Sequence<'a>> + Copy>(sequences: &[S], length: Option<usize>) -> Windows<'a> {
        let mut all = Windows { windows: Vec::with_capacity(sequences.len()), first: vec![0] };
        for &text in sequences {
            let Sequence { ids, second } = text.into();
            match (length.filter(|_| second == 0), ids) {
                (Some(length), [start, body @ .., end]) if ids.len() > length => all.add(*start, body, *end, length),
                _ => all.windows.push((ids.into(), second)),
            }
            all.first.push(all.windows.len());
        }
        all
    }

    fn add(&mut self, start: u32, body: &[u32], end: u32, length: usize) {
        let (tokens, stride) = inside(length);
        let last = body.len() - tokens;
        let starts = (0..last).step_by(stride).chain([last]);
        self.windows.extend(starts.map(|from| (Cow::from([&[start], &body[from..from + tokens], &[end]].concat()), 0)));
    }

    /// Number of texts, N.
    pub fn texts(&self) -> usize {
        self.first.len() - 1
    }

    /// All windows, those of a text one after another: `[W]`, W >= N.
    pub fn sequences(&self) -> Vec<Sequence<'_>> {
        self.windows.iter().map(|(ids, second)| Sequence { ids, second: *second }).collect()
    }

    /// The mean of each text's rows: `[N][C]`. `rows`, such as logits, are those of the windows: `[W][C]`.
    pub fn mean(&self, rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
        if rows.len() + 1 == self.first.len() {
            return rows;
        }
        let texts = self.first.windows(2).filter_map(|w| rows.get(w[0]..w[1]));
        texts.map(|rows| (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c]).sum::<f64>() / rows.len() as f64).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn head_tail_keeps_the_proportion_of_the_paper() {
        let firsts: Vec<usize> = [510, 254, 126, 62, 14, 4, 2, 1, 0].iter().map(|&kept| Truncate::HeadTail.first(kept)).collect();
        assert_eq!(firsts, [128, 64, 32, 16, 4, 1, 1, 0, 0]);
        assert_eq!((Truncate::Head.first(9), Truncate::Tail.first(9)), (9, 0));
        assert!(Truncate::HeadTail.first(usize::MAX) < usize::MAX / 3);
    }

    #[test]
    fn a_cut_has_a_length_a_key_and_words() {
        let plain = Cut::from(512);
        let both = Cut { truncate: Some(Truncate::HeadTail), windows: 3, ..plain };
        // 510 tokens; the next window starts 510 - 127 further on.
        assert_eq!((plain.longest(), both.longest(), both.one_window().longest()), (512, 512 + 2 * 383, 512));
        assert_eq!((plain.to_string(), both.to_string()), ("512".to_string(), "512 head-tail 3 windows".into()));
        assert_eq!((plain.window(), both.window()), (None, Some(512)));
        assert_eq!(plain.in_words(), "longer than 512 tokens, and are cut there");
        assert_eq!(both.in_words(), "longer than the 1278 tokens of 3 windows, and only their first 320 and last 956 are kept");
        let tail = Cut { truncate: Some(Truncate::Tail), ..plain };
        assert_eq!(tail.in_words(), "longer than 512 tokens, and only their last 510 are kept");
        assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"max_length":512}"#);
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(
            (text.as_str(), serde_json::from_str::<Cut>(&text).unwrap()),
            (r#"{"max_length":512,"truncate":"head-tail","windows":3}"#, both)
        );
        assert_eq!(Cut { windows: usize::MAX, ..plain }.longest(), usize::MAX);
    }

    #[test]
    fn windows_overlap_and_the_last_ends_with_the_text() {
        let (short, long): (Vec<u32>, Vec<u32>) = ((0..6).collect(), (0..13).collect());
        let windows = Windows::of(&[&short, &long, &short], Some(6));
        let pair = Sequence { ids: &long, second: 5 };
        assert_eq!(Windows::of(&[pair], Some(6)).sequences(), [pair], "a pair is not cut");
        // Four tokens each, one of them shared with the window before. 1 to 11 lie between the first and the last id.
        let expected: [&[u32]; 6] =
            [&short, &[0, 1, 2, 3, 4, 12], &[0, 4, 5, 6, 7, 12], &[0, 7, 8, 9, 10, 12], &[0, 8, 9, 10, 11, 12], &short];
        assert_eq!(windows.sequences(), expected.map(Sequence::from));
        let rows = [[1.0, 4.0], [2.0, 1.0], [4.0, 1.0], [6.0, 1.0], [8.0, 5.0], [7.0, 7.0]].map(Vec::from).to_vec();
        assert_eq!(windows.mean(rows), [[1.0, 4.0], [5.0, 2.0], [7.0, 7.0]]);
        let one = Windows::of(&[&long], None);
        assert_eq!((one.sequences(), one.mean(vec![vec![0.1]])), (vec![Sequence::from(&long[..])], vec![vec![0.1]]));
    }

    proptest! {
        #[test]
        fn windows_cover_all_tokens(tokens in 0u32..200, length in 3usize..40, n in 1usize..12) {
            let text: Vec<u32> = (0..tokens + 2).collect();
            let cut = Cut { windows: n, ..Cut::from(length) };
            let windows = Windows::of(&[&text], Some(length));
            let all: Vec<&[u32]> = windows.sequences().into_iter().map(|window| window.ids).collect();
            prop_assert!(all.iter().all(|w| w.len() <= length && w[0] == 0 && w[w.len() - 1] == tokens + 1));
            let seen: std::collections::BTreeSet<u32> = all.concat().into_iter().collect();
            prop_assert_eq!(seen.into_iter().collect::<Vec<_>>(), text.clone());
            prop_assert_eq!(text.len() <= cut.longest(), all.len() <= n);
            // Neighbours overlap by a quarter at least.
            prop_assert!(all.windows(2).all(|w| w[1][1] > w[0][1] && w[0][length - 2] as usize + 1 - w[1][1] as usize >= (length - 2) / 4));
        }
    }
}
