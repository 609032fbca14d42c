//! The answer without a word. Li, Monroe & Jurafsky 2016, "Understanding neural networks through representation erasure",
//! <https://arxiv.org/abs/1612.08220>. Here the word's tokens are left out, so that the text becomes shorter.

use crate::data::WordPiece;
use crate::nn::DistilBert;
use crate::{Error, Result, train};
use std::ops::Range;

/// Texts that are computed together.
const BATCH: usize = 16;

/// The words of `ids`: a token, and the tokens after it that begin with `##`. The first and the last token, `[CLS]` and `[SEP]`, belong to none.
pub fn words(wordpiece: &WordPiece, ids: &[u32]) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    for (i, &id) in ids.iter().enumerate().take(ids.len().saturating_sub(1)).skip(1) {
        let goes_on = wordpiece.token(id).is_some_and(|token| token.starts_with("##"));
        match words.last_mut().filter(|_| goes_on) {
            Some(word) => word.end = i + 1,
            None => words.push(i..i + 1),
        }
    }
    words
}

/// The logits `[C]` of `ids` without the tokens of each range: `[W][C]` for W ranges.
///
/// # Errors
/// If a range is not inside of the text or leaves nothing, and those of the model.
pub fn deletions(model: &DistilBert, ids: &[u32], ranges: &[Range<usize>]) -> Result<Vec<Vec<f64>>> {
    let without = |range: &Range<usize>| {
        let problem = || Error::invalid(format!("deletion: no tokens {} to {} in a text of {} tokens", range.start, range.end, ids.len()));
        let (before, after) = (ids.get(..range.start).ok_or_else(problem)?, ids.get(range.end..).ok_or_else(problem)?);
        if range.is_empty() || before.is_empty() && after.is_empty() { Err(problem()) } else { Ok([before, after].concat()) }
    };
    let texts = ranges.iter().map(without).collect::<Result<Vec<_>>>()?;
    train::logits(model, &texts.iter().map(Vec::as_slice).collect::<Vec<_>>(), BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Config;
    use crate::tensor::DType;

    #[test]
    fn words_are_deleted_whole() {
        let tokens = "[PAD] [UNK] [CLS] [SEP] un ##able to ##ken . ##s".split(' ').map(String::from);
        let wordpiece = WordPiece::from_vocab(tokens).unwrap();
        let ids = wordpiece.encode("unable tokens. to", 99);
        let found = words(&wordpiece, &ids);
        assert_eq!(found, [1..3, 3..6, 6..7, 7..8]);
        let mut config = Config::distilbert_base();
        (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (8, 2, 16, 1, 10);
        let model = DistilBert::random(&config, 2, DType::F64, 1).unwrap();
        let rows = deletions(&model, &ids, &found).unwrap();
        for (word, row) in ["tokens. to", "unable. to", "unable tokens to", "unable tokens."].iter().zip(&rows) {
            let shorter = wordpiece.encode(word, 99);
            assert_eq!(*row, train::logits(&model, &[&shorter], 1).unwrap()[0], "{word}");
        }
        assert!(rows[0] != rows[1]);
        for bad in [0..9, 9..10, 2..2, 5..40] {
            assert!(deletions(&model, &ids, &[bad]).unwrap_err().to_string().contains("9 tokens"));
        }
        assert!(words(&wordpiece, &[2, 3]).is_empty());
    }
}
