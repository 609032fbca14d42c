//! A data set as ids.

use super::{Dataset, Encoder, WordPiece, stream};

/// N labelled sequences of ids, one after another, T tokens in all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tokenized {
    /// The ids: `[T]`.
    pub ids: Vec<u32>,
    /// First id of each sequence, and T: `[N + 1]`.
    pub offsets: Vec<usize>,
    /// Label of each sequence, an index into `label_names`: `[N]`.
    pub labels: Vec<u32>,
    /// Name of each label: `[C]`.
    pub label_names: Vec<String>,
}

impl Tokenized {
    /// Encodes each text of `data` with at most `max_length` ids (at least 2), on all threads.
    pub fn new(data: &Dataset, wordpiece: &WordPiece, max_length: usize) -> Tokenized {
        let encode = || {
            let mut encoder = Encoder::new(wordpiece);
            move |text: &String| encoder.encode(text, max_length)
        };
        let texts = stream::map_chunks(data.texts.chunks(stream::CHUNK), encode);
        Tokenized::joined(&texts, data.labels.clone(), data.label_names.clone())
    }

    fn joined(texts: &[Vec<u32>], labels: Vec<u32>, label_names: Vec<String>) -> Tokenized {
        let ends = texts.iter().scan(0, |end, ids| {
            *end += ids.len();
            Some(*end)
        });
        Tokenized { ids: texts.concat(), offsets: std::iter::once(0).chain(ends).collect(), labels, label_names }
    }

    /// Number of sequences, N.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.ids[..]) + size_of_val(&self.offsets[..]) + size_of_val(&self.labels[..])
    }

    /// Number of ids in all, T.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The ids of sequence `i`, which is below N.
    pub fn sequence(&self, i: usize) -> &[u32] {
        &self.ids[self.offsets[i]..self.offsets[i + 1]]
    }

    /// Every `n`-th sequence, from the first; n is at least 1.
    pub fn every(&self, n: usize) -> Tokenized {
        let kept = (0..self.len()).step_by(n);
        let texts: Vec<Vec<u32>> = kept.clone().map(|i| self.sequence(i).to_vec()).collect();
        Tokenized::joined(&texts, kept.map(|i| self.labels[i]).collect(), self.label_names.clone())
    }

    /// Number of ids of each sequence: `[N]`.
    pub fn lengths(&self) -> Vec<usize> {
        self.offsets.windows(2).map(|w| w[1] - w[0]).collect()
    }
}

/// Texts that were encoded one by one, as by [`super::load_encoded`].
impl From<Dataset<Vec<u32>>> for Tokenized {
    fn from(data: Dataset<Vec<u32>>) -> Tokenized {
        Tokenized::joined(&data.texts, data.labels, data.label_names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_the_encodings_in_order() {
        let w = WordPiece::from_vocab(["[UNK]", "[CLS]", "[SEP]", "a", "##a"].map(String::from)).unwrap();
        let texts: Vec<String> = (0..300).map(|i| "a".repeat(i % 9)).collect();
        let labels: Vec<u32> = (0..300).map(|i| i % 2).collect();
        let names = vec![String::new(); 300];
        let data = Dataset { texts, labels, label_names: vec!["x".into(), "y".into()], lossy: 0, names };
        let t = Tokenized::new(&data, &w, 6);
        assert_eq!((t.len(), t.tokens(), *t.offsets.last().unwrap()), (300, t.lengths().iter().sum(), t.tokens()));
        for (i, text) in data.texts.iter().enumerate() {
            assert_eq!(t.sequence(i), w.encode(text, 6));
        }
        let third = t.every(3);
        assert_eq!((third.len(), third.sequence(33), third.labels[33]), (100, t.sequence(99), t.labels[99]));
        assert_eq!((t.is_empty(), t.labels), (false, data.labels));
    }

    #[cfg(feature = "data")]
    #[test]
    fn imdb_has_the_known_number_of_tokens() {
        use crate::data::{Split, TableOptions, load, load_encoded};
        let Some(archive) = crate::testing::shared("imdb/aclImdb_v1.tar.gz") else { return };
        let Some(folder) = crate::testing::shared("checkpoints/minilm-l6-distilbert") else { return };
        let w = WordPiece::open(&folder).unwrap();
        for (split, tokens) in [(Split::Train, 6_882_586), (Split::Test, 6_780_312)] {
            let data = load(&archive, split, &TableOptions::default()).unwrap();
            assert_eq!((data.len(), data.labels.iter().sum::<u32>(), data.lossy), (25_000, 12_500, 0));
            let in_memory = Tokenized::new(&data, &w, 512);
            assert_eq!(in_memory.tokens(), tokens);
            assert!(in_memory == load_encoded(&archive, split, &TableOptions::default(), None, &w, 512).unwrap().into());
        }
    }
}
