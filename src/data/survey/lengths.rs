//! How long texts are.

use super::super::encoder::Encoder;
use super::super::rows::Row;
use super::super::stream::{self, CHUNK};
use super::super::wordpiece::WordPiece;
use serde::Serialize;

/// Quantiles of lengths: the smallest length that at least this share of the texts does not exceed. All are 0 if there are no texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// Length of the shortest text.
    pub shortest: usize,
    /// Half of the texts are not longer.
    pub median: usize,
    /// 90 % of the texts are not longer.
    pub p90: usize,
    /// 99 % of the texts are not longer.
    pub p99: usize,
    /// Length of the longest text.
    pub longest: usize,
}

impl Lengths {
    /// Quantiles of these lengths.
    pub fn of(mut lengths: Vec<usize>) -> Lengths {
        lengths.sort_unstable();
        let n = lengths.len();
        let rank = |percent: usize| lengths.get((percent * n).div_ceil(100).max(1) - 1).copied().unwrap_or(0);
        Lengths { shortest: rank(0), median: rank(50), p90: rank(90), p99: rank(99), longest: rank(100) }
    }
}

/// Number of ids of each text or pair, `[CLS]` and `[SEP]` included, without any limit: `[N]`.
pub fn token_lengths(rows: &[Row], wordpiece: &WordPiece) -> Vec<usize> {
    let count = || {
        let mut encoder = Encoder::new(wordpiece);
        move |row: &Row| {
            let mut length = |text: &str| encoder.encode(text, usize::MAX).len();
            // [CLS] a [SEP] b [SEP]
            length(&row.text) + row.second.as_deref().map_or(0, |second| length(second) - 1)
        }
    };
    stream::map_chunks(rows.chunks(CHUNK), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_one_cls_and_two_seps() {
        let wordpiece = WordPiece::from_vocab("[UNK] [CLS] [SEP] a".split(' ').map(String::from)).unwrap();
        let row = |second: Option<&str>| Row {
            name: String::new(),
            text: "a a".into(),
            second: second.map(String::from),
            label: String::new(),
            lossy: false,
        };
        assert_eq!(token_lengths(&[row(None), row(Some("a a a")), row(Some(""))], &wordpiece), [4, 8, 5]);
    }

    #[test]
    fn quantiles_are_lengths_that_occur() {
        let of = |lengths: Vec<usize>| {
            let l = Lengths::of(lengths);
            [l.shortest, l.median, l.p90, l.p99, l.longest]
        };
        assert_eq!(of((1..=100).rev().collect()), [1, 50, 90, 99, 100]);
        assert_eq!(of(vec![3, 1, 2]), [1, 2, 3, 3, 3]);
        assert_eq!(of(vec![7]), [7; 5]);
        assert_eq!(of(vec![]), [0; 5]);
    }
}
