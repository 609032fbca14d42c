//! Labelled texts in memory.

use crate::tensor::philox::Stream;
use crate::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;

/// N labelled texts. `T` is a text, or something made from it, such as its ids ([`super::Encoded`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dataset<T = String> {
    /// The texts: `[N]`.
    pub texts: Vec<T>,
    /// The second text of each pair: `[N]`, or empty if each text stands alone, and in a `T` that holds both texts.
    pub seconds: Vec<T>,
    /// Label of each text, an index into `label_names`: `[N]`.
    pub labels: Vec<u32>,
    /// Name of each label: `[C]`.
    pub label_names: Vec<String>,
    /// Whether the labels are no classes, but several names or a number for a text, as in the file: see [`super::Tokenized::with_targets`]. Then a sample and
    /// a split do not keep the share of each label.
    pub no_classes: bool,
    /// Number of texts in the source with bytes that could not be decoded. These became U+FFFD. A sample keeps the number of the whole.
    pub lossy: usize,
    /// Origin of each text, for messages: a file name or a line: `[N]`.
    pub names: Vec<String>,
}

/// A 64-bit hash of a text, which tells equal texts: folded multiplication of eight bytes at a time, as in wyhash,
/// <https://github.com/wangyi-fudan/wyhash>.
pub fn text_key(text: &str) -> u64 {
    let mix = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * u128::from(hash.rotate_left(32) ^ 0xA076_1D64_78BD_642F);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let start = mix(0xE703_7ED1_A0B4_28DB, text.len() as u64);
    let hash = words.iter().fold(start, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    mix(mix(hash, u64::from_le_bytes(last)), 0x8EBC_6AF0_9C88_C6E3)
}

/// The key of a pair of texts with these keys.
pub(super) fn pair_key(keys: [u64; 2]) -> u64 {
    text_key(&format!("{:016x}{:016x}", keys[0], keys[1]))
}

/// A text, or both texts of a pair with an empty line between them.
pub(super) fn whole<'a>(text: &'a str, second: Option<&str>) -> Cow<'a, str> {
    second.map_or(text.into(), |second| format!("{text}\n\n{second}").into())
}

/// The two parts of [`Dataset::split`].
pub struct TrainTest {
    /// Texts to train on.
    pub train: Dataset,
    /// Texts that were held out.
    pub test: Dataset,
}

impl Dataset {
    /// The key of each text or pair, as in [`Tokenized::keys`](super::Tokenized::keys): `[N]`.
    pub fn keys(&self) -> Vec<u64> {
        let key = |(i, text): (usize, &String)| match self.seconds.get(i) {
            None => text_key(text),
            Some(second) => pair_key([text_key(text), text_key(second)]),
        };
        self.texts.iter().enumerate().map(key).collect()
    }

    /// The text at `i`, below N, or both texts of a pair with an empty line between them.
    pub fn whole_text(&self, i: usize) -> Cow<'_, str> {
        whole(&self.texts[i], self.seconds.get(i).map(String::as_str))
    }

    /// Holds out a share of the different texts of each label for a test. Equal texts stay on one side. With the same seed, it is the same part
    /// every time.
    ///
    /// # Errors
    /// If `test_share` is not between 0 and 1, exclusive, or one part would be empty.
    pub fn split(self, test_share: f64, seed: u64) -> Result<TrainTest> {
        let (train, test) = self.split_off("test part", test_share, seed, |text| text_key(text))?;
        Ok(TrainTest { train, test })
    }
}

impl<T: Default> Dataset<T> {
    /// Number of texts, N.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// A seeded sample of `n` texts, in their original order. Each label has the same number of texts, as far as it has that many; a remainder
    /// goes to the first labels. A larger sample with the same seed contains the smaller one. If there are at most `n` texts, all are kept.
    ///
    /// # Errors
    /// If `n` is 0.
    pub fn limited(mut self, n: usize, seed: u64) -> Result<Dataset<T>> {
        if n == 0 {
            return Err(Error::invalid("a sample of 0 texts is empty; ask for at least 1"));
        }
        if n >= self.len() {
            return Ok(self);
        }
        let mut groups = vec![Vec::new(); self.label_names.len()];
        (0..self.len()).for_each(|i| groups[self.group(i)].push(i));
        let mut stream = Stream::new(seed, "limited data set");
        groups.iter_mut().for_each(|group| stream.shuffle(group));
        // In each turn, one text of each label that has texts left.
        let turns = (0..n).flat_map(|turn| groups.iter().filter_map(move |group| group.get(turn).copied()));
        let mut kept: Vec<usize> = turns.take(n).collect();
        kept.sort_unstable();
        Ok(self.select(&kept))
    }

    /// Splits off a seeded part with round(`fraction` · count) of the different texts of each label. Returns the rest and the part, both in
    /// their original order. Rows with equal texts, by `key`, stay together. `what` names the part: in messages, and for the random numbers.
    ///
    /// # Errors
    /// If `fraction` is not between 0 and 1, exclusive, or one of the two would be empty.
    pub fn split_off(mut self, what: &str, fraction: f64, seed: u64, key: impl Fn(&T) -> u64) -> Result<(Dataset<T>, Dataset<T>)> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::invalid(format_args!("the fraction of the {what} must lie between 0 and 1, got {fraction}")));
        }
        // The rows of each different text, and for each label the first rows of its texts. A text has the label of its first row.
        let mut rows: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut groups = vec![Vec::new(); self.label_names.len()];
        let key = |i: usize| match self.seconds.get(i) {
            None => key(&self.texts[i]),
            Some(second) => pair_key([key(&self.texts[i]), key(second)]),
        };
        for i in 0..self.len() {
            let same = rows.entry(key(i)).or_default();
            if same.is_empty() {
                groups[self.group(i)].push(i);
            }
            same.push(i);
        }
        let mut stream = Stream::new(seed, what);
        let (mut rest, mut part) = (Vec::new(), Vec::new());
        for group in &mut groups {
            stream.shuffle(group);
            let count = (fraction * group.len() as f64).round() as usize;
            for (place, &first) in group.iter().enumerate() {
                let to = if place < count { &mut part } else { &mut rest };
                to.extend(rows.remove(&key(first)).into_iter().flatten());
            }
        }
        if rest.is_empty() || part.is_empty() {
            let n = groups.iter().map(Vec::len).sum::<usize>();
            return Err(Error::invalid(format_args!("{fraction} of {n} different texts leaves nothing for the {what}, or nothing else")));
        }
        rest.sort_unstable();
        part.sort_unstable();
        Ok((self.select(&rest), self.select(&part)))
    }

    /// The group of text i: its class. Samples and splits keep the share of each group.
    fn group(&self, i: usize) -> usize {
        if self.no_classes { 0 } else { self.labels[i] as usize }
    }

    /// Moves the texts `indices` out.
    fn select(&mut self, indices: &[usize]) -> Dataset<T> {
        Dataset {
            texts: indices.iter().map(|&i| std::mem::take(&mut self.texts[i])).collect(),
            seconds: indices.iter().filter_map(|&i| self.seconds.get_mut(i).map(std::mem::take)).collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
            label_names: self.label_names.clone(),
            no_classes: self.no_classes,
            lossy: self.lossy,
            names: indices.iter().map(|&i| std::mem::take(&mut self.names[i])).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(labels: &[u32]) -> Dataset {
        Dataset {
            texts: (0..labels.len()).map(|i| format!("text {i}")).collect(),
            seconds: Vec::new(),
            no_classes: false,
            labels: labels.to_vec(),
            label_names: ["a", "b", "c"].map(String::from).to_vec(),
            lossy: 0,
            names: (0..labels.len()).map(|i| i.to_string()).collect(),
        }
    }

    fn counts(data: &Dataset) -> [usize; 3] {
        [0, 1, 2].map(|c| data.labels.iter().filter(|&&l| l == c).count())
    }

    fn positions(data: &Dataset) -> Vec<usize> {
        data.names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn samples_are_balanced_and_seeded() {
        let data = of(&[0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 2]);
        assert!(data.clone().limited(0, 1).unwrap_err().to_string().contains("at least 1"));
        assert_eq!(counts(&data.clone().limited(7, 1).unwrap()), [3, 2, 2]);
        assert_eq!(counts(&data.clone().limited(10, 1).unwrap()), [5, 2, 3]);
        assert_eq!(data.clone().limited(12, 1).unwrap(), data);
        assert_ne!(data.clone().limited(5, 1).unwrap(), data.clone().limited(5, 2).unwrap());
        for fraction in [1.0, f64::NAN, 0.01] {
            assert!(split(&data, fraction, 1).is_err(), "{fraction}");
        }
    }

    /// Splits off a part. Rows with the same text stay together.
    fn split(data: &Dataset, fraction: f64, seed: u64) -> Result<(Dataset, Dataset)> {
        data.clone().split_off("held-out part", fraction, seed, |text| crate::data::text_key(text))
    }

    #[test]
    fn a_whole_text_is_one_text_or_both_of_a_pair() {
        let mut data = of(&[0, 1]);
        assert_eq!(data.whole_text(1), "text 1");
        data.seconds = vec!["a".into(), "b".into()];
        assert_eq!(data.whole_text(1), "text 1\n\nb");
    }

    #[test]
    fn equal_texts_stay_on_one_side() {
        let mut data = of(&[0; 40]);
        data.labels = (0..40).map(|i| i % 2).collect();
        data.texts.iter_mut().enumerate().for_each(|(i, text)| *text = format!("text {}", i / 3));
        for seed in 0..20 {
            let (rest, part) = split(&data, 0.3, seed).unwrap();
            assert!(part.texts.iter().all(|text| !rest.texts.contains(text)), "seed {seed}");
            assert_eq!(rest.len() + part.len(), 40);
        }
        data.texts.iter_mut().for_each(|text| *text = "the same".into());
        assert!(split(&data, 0.3, 0).unwrap_err().to_string().contains("1 different texts"));
    }

    /// Which texts are held out, and which rows of a saved state are the same, depends on these numbers. They are from another program.
    #[test]
    fn the_key_of_a_text_stays() {
        let known = [("", 0x289a_5255_12c0_3937), ("good film", 0xa2bf_182b_a7e9_660a), ("eight by", 0x583e_be17_462f_73cb)];
        for (text, key) in known {
            assert_eq!(crate::data::text_key(text), key, "{text:?}");
        }
    }

    #[test]
    fn labels_that_are_no_classes_are_one_group() {
        let mut data = of(&(0..40).map(|i| i % 3).collect::<Vec<_>>());
        (data.label_names, data.labels, data.no_classes) = ((0..40).map(|i| i.to_string()).collect(), (0..40).collect(), true);
        let (rest, part) = split(&data, 0.2, 1).unwrap();
        assert_eq!((rest.len(), part.len()), (32, 8));
        assert_ne!(positions(&data.clone().limited(5, 1).unwrap()), [0, 1, 2, 3, 4]);
        data.no_classes = false;
        assert!(split(&data, 0.2, 1).is_err());
    }

    proptest! {
        #[test]
        fn samples_and_splits_partition(labels in prop::collection::vec(0u32..3, 1..60), n in 1usize..70, f in 0.05f64..0.95, seed: u64) {
            let data = of(&labels);
            let small = data.clone().limited(n, seed).unwrap();
            let kept = positions(&small);
            prop_assert_eq!(kept.len(), n.min(labels.len()));
            prop_assert!(kept.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(kept.iter().zip(&small.labels).zip(&small.texts).all(|((&i, l), t)| labels[i] == *l && data.texts[i] == *t));
            let all = counts(&data);
            let (low, got) = (*counts(&small).iter().max().unwrap(), counts(&small));
            prop_assert!((0..3).all(|c| got[c] + 1 >= low || got[c] == all[c]));
            let larger = positions(&data.clone().limited(n + 1, seed).unwrap());
            prop_assert!(kept.iter().all(|i| larger.contains(i)));
            if let Ok((rest, dev)) = split(&data, f, seed) {
                let mut both = [positions(&rest), positions(&dev)].concat();
                both.sort();
                prop_assert_eq!(both, (0..labels.len()).collect::<Vec<_>>());
                let share = counts(&dev);
                prop_assert!((0..3).all(|c| share[c] == (f * all[c] as f64).round() as usize));
            }
        }
    }
}
