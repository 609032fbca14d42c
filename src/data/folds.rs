//! Folds of a data set, for predictions of each text by a model that was not trained on it.

use super::Tokenized;
use crate::tensor::philox::Stream;
use crate::{Error, Result};
use std::collections::HashMap;

impl Tokenized {
    /// The fold of each sequence, from 0 to `folds` − 1: `[N]`. Equal sequences are in one fold. The different sequences of each class are shuffled
    /// by `seed` and dealt out in turn, so that each fold has the same share of each class, as far as possible.
    ///
    /// # Errors
    /// If there are fewer than two folds, or fewer different sequences than folds.
    pub fn folds(&self, folds: usize, seed: u64) -> Result<Vec<usize>> {
        // A text has the class of its first row.
        let mut rows: HashMap<&[u32], Vec<usize>> = HashMap::new();
        let mut groups = vec![Vec::new(); self.label_names.len()];
        for i in 0..self.len() {
            let same = rows.entry(self.sequence(i)).or_default();
            if same.is_empty() {
                groups[self.labels[i] as usize].push(i);
            }
            same.push(i);
        }
        if folds < 2 || rows.len() < folds {
            let problem = format!("at least 2, and at most the number of different texts, which is {}", rows.len());
            return Err(Error::invalid(format!("folds: expected {problem}; got {folds}")));
        }
        let mut stream = Stream::new(seed, "folds");
        groups.iter_mut().for_each(|group| stream.shuffle(group));
        let mut fold_of = vec![0; self.len()];
        for (turn, first) in groups.into_iter().flatten().enumerate() {
            rows[self.sequence(first)].iter().for_each(|&i| fold_of[i] = turn % folds);
        }
        Ok(fold_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Encoded};

    /// Sequences with these ids and labels.
    fn of(rows: &[(&[u32], u32)]) -> Tokenized {
        let text = |(ids, _): &(&[u32], u32)| Encoded { ids: ids.to_vec(), ..Encoded::default() };
        let labels = rows.iter().map(|(_, label)| *label).collect();
        let (label_names, names) = (vec!["a".to_string(), "b".to_string()], Vec::new());
        Tokenized::from(Dataset { texts: rows.iter().map(text).collect(), labels, label_names, names, ..Dataset::default() })
    }

    #[test]
    fn copies_stay_together_and_classes_are_spread() {
        let ids: Vec<[u32; 2]> = (0..23).map(|i| [1, i % 19]).collect();
        let rows: Vec<(&[u32], u32)> = ids.iter().enumerate().map(|(i, ids)| (&ids[..], u32::from(i % 19 >= 12))).collect();
        let data = of(&rows);
        let fold_of = data.folds(3, 7).unwrap();
        assert_eq!(fold_of, data.folds(3, 7).unwrap());
        assert_ne!(fold_of, data.folds(3, 8).unwrap());
        assert_eq!(fold_of[19..], fold_of[..4]);
        // 12 different texts of class a, 7 of class b.
        let count = |fold: usize, class: u32| (0..19).filter(|&i| fold_of[i] == fold && data.labels[i] == class).count();
        let counts: Vec<[usize; 2]> = (0..3).map(|fold| [count(fold, 0), count(fold, 1)]).collect();
        assert_eq!(counts.iter().map(|c| c[0]).collect::<Vec<_>>(), [4, 4, 4]);
        assert!(counts.iter().all(|c| c[1] == 2 || c[1] == 3), "{counts:?}");
    }

    #[test]
    fn impossible_folds_are_refused() {
        let data = of(&[(&[1, 2], 0), (&[1, 2], 1), (&[1, 3], 1)]);
        assert!(data.folds(2, 0).is_ok());
        assert!(data.folds(1, 0).is_err());
        let message = data.folds(3, 0).unwrap_err().to_string();
        assert!(message.contains("different texts, which is 2; got 3"), "{message}");
    }

    #[test]
    fn selected_sequences_keep_ids_labels_and_keys() {
        let data = of(&[(&[1, 2], 0), (&[1, 5, 2], 1), (&[1, 3], 1)]);
        let part = data.select(&[2, 1]);
        assert_eq!((part.sequences(), &part.labels[..]), ([&[1, 3][..], &[1, 5, 2]].map(crate::cut::Sequence::from).to_vec(), &[1, 1][..]));
        assert_eq!((part.label_names.len(), part.keys.len()), (2, 2));
    }
}
