//! A data set as token ids.

use super::dataset::{Dataset, text_key};
use super::encoder::Encoder;
use super::numbered::numbered;
use super::stream;
use super::wordpiece::WordPiece;
use crate::cut::{Cut, Sequence, Windows};
use crate::outputs::Outputs;
use std::collections::{HashMap, HashSet};

/// The ids of a text, and facts about the text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Encoded {
    /// The ids: `[CLS]`, the pieces, `[SEP]`.
    pub ids: Vec<u32>,
    /// Number of ids at the end that belong to the second text of a pair, its `[SEP]` included. 0: a single text.
    pub second: usize,
    /// [`text_key`] of the text.
    pub key: u64,
    /// Whether the text was longer than the largest length, and was cut.
    pub cut: bool,
    /// Whether the text is empty or white space.
    pub empty: bool,
}

impl Encoded {
    /// Encodes `text`, as long as `cut` says.
    pub fn new(encoder: &mut Encoder, text: &str, cut: impl Into<Cut>) -> Encoded {
        let (ids, cut) = encoder.encode_and_tell(text, cut.into());
        Encoded { ids, second: 0, key: text_key(text), cut, empty: text.trim().is_empty() }
    }
}

impl<'a> From<&'a Encoded> for Sequence<'a> {
    fn from(text: &'a Encoded) -> Sequence<'a> {
        Sequence { ids: &text.ids, second: text.second }
    }
}

/// What a model should answer for each label of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct Targets {
    /// [`Outputs::Labels`]: zeros and ones. [`Outputs::Numbers`]: numbers.
    pub outputs: Outputs,
    /// `[L][C]`, for L different labels.
    pub rows: Vec<Vec<f64>>,
}

/// Numbers of unusual texts in a data set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Oddities {
    /// Texts with bytes that could not be decoded. These became U+FFFD.
    pub lossy: usize,
    /// Texts that are empty or white space.
    pub empty: usize,
    /// Texts that were cut to the largest length.
    pub cut: usize,
}

/// N labelled sequences of token ids, concatenated, T tokens in all.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tokenized {
    /// The ids: `[T]`.
    pub ids: Vec<u32>,
    /// Index of the first id of each sequence, then T: `[N + 1]`.
    pub offsets: Vec<usize>,
    /// Ids of the second text at the end of each sequence, see [`Encoded::second`]: `[N]`, or empty if no sequence is a pair.
    pub seconds: Vec<usize>,
    /// Label of each sequence, an index into `label_names`, or into the rows of `targets`: `[N]`.
    pub labels: Vec<u32>,
    /// Name of each class or output: `[C]`.
    pub label_names: Vec<String>,
    /// [`text_key`] of each text: `[N]`, or empty if the texts are not known.
    pub keys: Vec<u64>,
    /// Numbers of unusual texts.
    pub oddities: Oddities,
    /// Length of a window in ids, if longer sequences are measured in windows: [`Tokenized::windows`]. Training needs `None`.
    pub window: Option<usize>,
    /// What the labels mean if they are no classes: see [`Tokenized::with_targets`].
    pub targets: Option<Targets>,
}

impl Tokenized {
    /// Encodes each text of `data` on all threads. `cut`: at most so many ids (at least 2).
    pub fn new(data: &Dataset, wordpiece: &WordPiece, cut: impl Into<Cut>) -> Tokenized {
        let cut = cut.into();
        let encode = || {
            let mut encoder = Encoder::new(wordpiece);
            move |i: usize| match data.seconds.get(i) {
                None => Encoded::new(&mut encoder, &data.texts[i], cut),
                Some(second) => Encoded::pair(&mut encoder, [&data.texts[i], second], cut.max_length),
            }
        };
        let chunks = (0..data.len()).step_by(stream::CHUNK).map(|from| from..data.len().min(from + stream::CHUNK));
        let texts = stream::map_chunks(chunks, encode);
        let (labels, label_names, names) = (data.labels.clone(), data.label_names.clone(), Vec::new());
        let data = Dataset { texts, labels, label_names, lossy: data.lossy, names, ..Dataset::default() };
        Tokenized { window: cut.window(), ..Tokenized::from(data) }
    }

    fn joined<'a>(texts: impl Iterator<Item = Sequence<'a>> + Clone, labels: Vec<u32>, label_names: Vec<String>) -> Tokenized {
        let (mut ids, mut offsets) = (Vec::with_capacity(texts.clone().map(|text| text.ids.len()).sum()), vec![0]);
        for text in texts.clone() {
            ids.extend_from_slice(text.ids);
            offsets.push(ids.len());
        }
        let seconds = if texts.clone().any(|text| text.second > 0) { texts.map(|text| text.second).collect() } else { Vec::new() };
        Tokenized { ids, offsets, seconds, labels, label_names, ..Tokenized::default() }
    }

    /// Number of these texts that are also in `other`.
    pub fn shared_with(&self, other: &Tokenized) -> usize {
        let known: HashSet<u64> = other.keys.iter().copied().collect();
        self.keys.iter().filter(|key| known.contains(key)).count()
    }

    /// Number of texts that also stand there with another label. Texts without tokens but `[CLS]` and `[SEP]` do not count.
    pub fn contradictory(&self) -> usize {
        let meanings = self.targets.as_ref().map(|targets| numbered(targets.rows.iter().cloned().map(Some)).0);
        let mut labels: HashMap<u64, (usize, HashSet<Option<usize>>)> = HashMap::new();
        for i in (0..self.keys.len()).filter(|&i| self.sequence(i).len() > 2) {
            let (key, label) = (self.keys[i], self.labels[i] as usize);
            let label = meanings.as_ref().map_or(Some(label), |meanings| meanings[label]);
            let (count, labels) = labels.entry(key).or_default();
            *count += 1;
            labels.insert(label);
        }
        labels.values().filter(|(_, labels)| labels.len() > 1).map(|(count, _)| count).sum()
    }

    /// Number of texts of each class, or with each label: `[C]`.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.label_names.len()];
        if let Some(Targets { rows, .. }) = &self.targets {
            let each = |&label: &u32| counts.iter_mut().zip(&rows[label as usize]).for_each(|(n, y)| *n += usize::from(*y >= 0.5));
            self.labels.iter().for_each(each);
            return counts;
        }
        self.labels.iter().for_each(|&label| counts[label as usize] += 1);
        counts
    }

    /// Number of sequences, N.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of the ids, offsets and labels.
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

    /// The windows of all sequences.
    pub fn windows(&self) -> Windows<'_> {
        Windows::of(&self.sequences(), self.window)
    }

    /// Whether the sequences are pairs of texts.
    pub fn has_pairs(&self) -> bool {
        !self.seconds.is_empty()
    }

    fn text(&self, i: usize) -> Sequence<'_> {
        Sequence { ids: self.sequence(i), second: self.seconds.get(i).copied().unwrap_or(0) }
    }

    /// All sequences: `[N]`.
    pub fn sequences(&self) -> Vec<Sequence<'_>> {
        (0..self.len()).map(|i| self.text(i)).collect()
    }

    /// Every `n`-th sequence, from the first; n is at least 1.
    pub fn every(&self, n: usize) -> Tokenized {
        self.select(&(0..self.len()).step_by(n).collect::<Vec<_>>())
    }

    /// The sequences `indices`, each below N. Their oddities are not known.
    pub fn select(&self, indices: &[usize]) -> Tokenized {
        let labels = indices.iter().map(|&i| self.labels[i]).collect();
        let keys = indices.iter().filter_map(|&i| self.keys.get(i).copied()).collect();
        Tokenized {
            keys,
            window: self.window,
            targets: self.targets.clone(),
            ..Tokenized::joined(indices.iter().map(|&i| self.text(i)), labels, self.label_names.clone())
        }
    }

    /// Number of ids of each sequence: `[N]`.
    pub fn lengths(&self) -> Vec<usize> {
        self.offsets.windows(2).map(|w| w[1] - w[0]).collect()
    }
}

/// From texts that were encoded one by one, as by [`super::load_encoded`].
impl From<Dataset<Encoded>> for Tokenized {
    fn from(data: Dataset<Encoded>) -> Tokenized {
        let count = |of: fn(&Encoded) -> bool| data.texts.iter().filter(|text| of(text)).count();
        let oddities = Oddities { lossy: data.lossy, empty: count(|text| text.empty), cut: count(|text| text.cut) };
        let keys = data.texts.iter().map(|text| text.key).collect();
        let ids = data.texts.iter().map(Sequence::from);
        Tokenized { keys, oddities, ..Tokenized::joined(ids, data.labels, data.label_names) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::Truncate;
    use crate::data::normalize::Normalizer;
    use crate::data::wordpiece::of_vocab;

    #[test]
    fn sequences_are_the_encodings_in_order() {
        let w = WordPiece::from_vocab(["[UNK]", "[CLS]", "[SEP]", "a", "##a"].map(String::from)).unwrap();
        let texts: Vec<String> = (0..300).map(|i| "a".repeat(i % 9)).collect();
        let labels: Vec<u32> = (0..300).map(|i| i % 2).collect();
        let names = ["x", "y"];
        let data = Dataset::from_pairs(texts.into_iter().zip(labels.iter().map(|&label| names[label as usize]))).unwrap();
        let t = Tokenized::new(&data, &w, 6);
        assert_eq!((t.len(), t.tokens(), *t.offsets.last().unwrap()), (300, t.lengths().iter().sum(), t.tokens()));
        for (i, text) in data.texts.iter().enumerate() {
            assert_eq!(t.sequence(i), w.encode(text, 6));
        }
        assert_eq!(t.oddities, Oddities { lossy: 0, empty: 34, cut: 132 });
        let third = t.every(3);
        assert_eq!((third.len(), third.sequence(33), third.labels[33]), (100, t.sequence(99), t.labels[99]));
        assert_eq!((t.is_empty(), t.labels), (false, data.labels));
    }

    #[test]
    fn a_cut_text_has_the_ids_of_its_start() {
        let w = WordPiece::from_vocab(["[UNK]", "[CLS]", "[SEP]", "a", "##a"].map(String::from)).unwrap();
        let mut encoder = Encoder::new(&w);
        for length in 0..9 {
            let text = "a ".repeat(length);
            for most in 0..9 {
                let encoded = Encoded::new(&mut encoder, &text, most);
                assert_eq!((&encoded.ids, encoded.cut), (&w.encode(&text, most), length + 2 > most.max(2)), "{length} {most}");
            }
        }
    }

    #[test]
    fn each_part_of_a_long_text_has_its_ids() {
        let letters = (b'a'..=b'z').map(|letter| (letter as char).to_string());
        let tokens = ["[UNK]", "[CLS]", "[SEP]"].map(String::from).into_iter().chain(letters);
        let mut parts = of_vocab(tokens, Normalizer::UNCASED);
        let from_the_head =
            WordPiece::new(of_vocab(parts.pieces.iter().map(|(t, _)| t.clone()), Normalizer::UNCASED), "v".as_ref()).unwrap();
        parts.keep_end = true;
        let from_the_tail = WordPiece::new(parts, "v".as_ref()).unwrap();
        let text = "a b c d e f g h i j";
        let plain = Cut::from(8);
        let of = |truncate| Cut { truncate: Some(truncate), ..plain };
        for (wordpiece, cut, letters) in [
            (&from_the_head, plain, "abcdef"),
            (&from_the_tail, plain, "efghij"),
            (&from_the_head, of(Truncate::Head), "abcdef"),
            (&from_the_tail, of(Truncate::Head), "abcdef"),
            (&from_the_head, of(Truncate::Tail), "efghij"),
            (&from_the_tail, of(Truncate::Tail), "efghij"),
            // round(6 · 128 / 510) = 2.
            (&from_the_head, of(Truncate::HeadTail), "abghij"),
            (&from_the_tail, of(Truncate::HeadTail), "abghij"),
            // Two windows of six tokens, which share one: eleven tokens. Nothing is cut.
            (&from_the_head, Cut { windows: 2, ..of(Truncate::Tail) }, "abcdefghij"),
            // Two windows of four tokens hold seven. round(7 · 128 / 510) = 2 of them are the first of the text.
            (&from_the_head, Cut { windows: 2, max_length: 6, ..of(Truncate::HeadTail) }, "abfghij"),
        ] {
            let expected: Vec<u32> = [1].into_iter().chain(letters.bytes().map(|l| u32::from(l - b'a') + 3)).chain([2]).collect();
            let encoded = Encoded::new(&mut Encoder::new(wordpiece), text, cut);
            assert_eq!((&encoded.ids, encoded.cut), (&expected, letters.len() < 10), "{cut}");
            assert_eq!(wordpiece.encode(text, cut), expected, "{cut}");
            let whole = wordpiece.encode_and_tell(text, Cut { max_length: 12, ..cut });
            assert_eq!((whole.0.len(), whole.1), (12, false), "a text that fits is never cut");
        }
        let windows = Cut { windows: 2, ..Cut::from(6) };
        let data = Dataset::from_pairs([(text.to_string(), "x"), ("a b".into(), "y")]).unwrap();
        let tokens = Tokenized::new(&data, &from_the_head, windows);
        assert_eq!(tokens.windows().sequences(), [&[1, 3, 4, 5, 6, 2][..], &[1, 6, 7, 8, 9, 2], &[1, 3, 4, 2]].map(Sequence::from));
        assert_eq!((tokens.oddities.cut, tokens.every(2).windows().sequences().len()), (1, 2));
    }

    #[test]
    fn equal_texts_have_equal_keys() {
        let texts = ["", "a", "a\0", "good film", "good films", "a longer text than eight bytes", "a longer text than eight bytez"];
        let keys: HashSet<u64> = texts.iter().map(|text| text_key(text)).collect();
        assert_eq!(keys.len(), texts.len());
        assert_eq!(text_key("good film"), text_key(&["good", "film"].join(" ")));
        let many: HashSet<u64> = (0..100_000).map(|i| text_key(&format!("text {i}"))).collect();
        assert_eq!(many.len(), 100_000);
        let of = |texts: &[&str]| Tokenized { keys: texts.iter().map(|t| text_key(t)).collect(), ..Tokenized::default() };
        assert_eq!(of(&["a", "b", "b", "c"]).shared_with(&of(&["b", "d"])), 2);
    }

    #[cfg(feature = "data")]
    #[test]
    fn imdb_has_the_known_number_of_tokens() {
        use crate::data::{Labels, Split, TableOptions, load, load_encoded};
        let Some(archive) = crate::testing::shared("imdb/aclImdb_v1.tar.gz") else { return };
        let Some(folder) = crate::testing::shared("checkpoints/minilm-l6-distilbert") else { return };
        let w = WordPiece::open(&folder).unwrap();
        for (split, tokens) in [(Split::Train, 6_882_586), (Split::Test, 6_780_312)] {
            let data = load(&archive, split, &TableOptions::default()).unwrap();
            assert_eq!((data.len(), data.labels.iter().sum::<u32>(), data.lossy), (25_000, 12_500, 0));
            let in_memory = Tokenized::new(&data, &w, 512);
            assert_eq!(in_memory.tokens(), tokens);
            assert!(in_memory == load_encoded(&archive, split, &TableOptions::default(), &Labels::default(), &w, 512).unwrap().into());
        }
    }
}
