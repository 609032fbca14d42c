//! The order of the sequences in an epoch, and packed batches of them.
//!
//! [`Tokenized`] (`tokenized.rs`) holds a data set as the token ids that [`WordPiece`](super::WordPiece), BERT's tokenizer, made: all N
//! sequences one after another, and their labels. If the sequences are pairs of texts, `seconds` has the number of tokens of each second
//! text.

use super::Tokenized;
use crate::tensor::Sequences;
use crate::tensor::philox::Stream;
use crate::{Error, Result};
use std::cmp::Reverse;
use std::sync::Arc;

/// A packed batch: B sequences of T tokens in all, concatenated without padding.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The ids: `[T]`.
    pub ids: Vec<u32>,
    /// Sequence boundaries, and the example number of each sequence, which keys its dropout masks.
    pub sequences: Arc<Sequences>,
    /// Label of each sequence: `[B]`; for several labels or numbers, the row of `Tokenized::targets`.
    pub labels: Vec<u32>,
}

/// A shuffle of 0..`n`, determined by the seed and the epoch (from 0).
pub fn order(n: usize, epoch: usize, seed: u64) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..n).collect();
    Stream::new(seed, &format!("order of epoch {epoch}")).shuffle(&mut indices);
    indices
}

/// A shuffle in which every `step` neighbours have similar lengths; `step` is the number of sequences of an optimizer step. The shuffled
/// indices are cut into pieces of k steps, with k = N / (4 · `step`) rounded down, but at least 1 and at most 50. Each piece is sorted from
/// long to short. The longest sequence of all comes first: if memory does not suffice, the first step shows it. Source:
/// `LengthGroupedSampler` of Hugging Face transformers, `trainer_pt_utils.py`.
pub fn order_by_length(lengths: &[usize], step: usize, epoch: usize, seed: u64) -> Vec<usize> {
    let step = step.max(1);
    let piece = step.saturating_mul((lengths.len() / step.saturating_mul(4)).clamp(1, 50));
    let mut indices = order(lengths.len(), epoch, seed);
    indices.chunks_mut(piece).for_each(|piece| piece.sort_by_key(|&i| Reverse(lengths[i])));
    // The longest sequence is at the start of a piece. Of equally long ones, `Reverse` chooses the first.
    let longest = (0..indices.len()).step_by(piece).max_by_key(|&place| (lengths[indices[place]], Reverse(place)));
    if let Some(place) = longest {
        indices.swap(0, place);
    }
    indices
}

/// Packs the sequences `indices` of `data`. The sequence with index i in `data` has the example number `epoch` · N + i.
///
/// # Errors
/// If there is no index or one is not below N, a sequence is empty, or an example number is not below 2³² − 1.
pub fn batch(data: &Tokenized, indices: &[usize], epoch: usize) -> Result<Batch> {
    let n = data.len();
    if indices.is_empty() {
        return Err(Error::invalid("a batch needs at least one sequence"));
    }
    if let Some(i) = indices.iter().find(|&&i| i >= n) {
        return Err(Error::invalid(format_args!("sequence {i} is not in a data set of {n}")));
    }
    let example_number = |&i: &usize| {
        let number = epoch.checked_mul(n).and_then(|first| u32::try_from(first.checked_add(i)?).ok());
        // The largest u32 is reserved: it keys every `Stream` (initialisation, order, rank).
        number
            .filter(|&number| number != u32::MAX)
            .ok_or_else(|| Error::invalid(format_args!("epoch {epoch} of {n} sequences exceeds 32-bit example numbers")))
    };
    let examples = indices.iter().map(example_number).collect::<Result<Vec<u32>>>()?;
    let lengths: Vec<usize> = indices.iter().map(|&i| data.sequence(i).len()).collect();
    let mut sequences = Sequences::new(&lengths, examples)?;
    if data.has_pairs() {
        sequences = sequences.with_second_lengths(indices.iter().map(|&i| data.seconds[i]).collect())?;
    }
    Ok(Batch {
        ids: indices.iter().flat_map(|&i| data.sequence(i)).copied().collect(),
        sequences: Arc::new(sequences),
        labels: indices.iter().map(|&i| data.labels[i]).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(lengths: &[usize]) -> Tokenized {
        let mut offsets = vec![0];
        lengths.iter().for_each(|l| offsets.push(offsets.last().unwrap() + l));
        let ids = (0..offsets[lengths.len()] as u32).collect();
        let labels = (0..lengths.len() as u32).map(|i| i % 2).collect();
        Tokenized { ids, offsets, labels, label_names: vec!["a".into(), "b".into()], ..Tokenized::default() }
    }

    fn is_permutation(indices: &[usize], n: usize) -> bool {
        let mut sorted = indices.to_vec();
        sorted.sort();
        sorted == (0..n).collect::<Vec<_>>()
    }

    #[test]
    fn refuses_what_cannot_be_packed() {
        let data = of(&[3, 2]);
        assert!(batch(&data, &[2], 0).is_err() && batch(&data, &[], 0).is_err() && batch(&of(&[1, 0]), &[1], 0).is_err());
        assert!(batch(&data, &[1], usize::MAX).is_err() && batch(&data, &[1], 0x7FFF_FFFF).is_err());
        assert_eq!(batch(&data, &[0], 0x7FFF_FFFF).unwrap().sequences.example_ids(), [u32::MAX - 1]);
        assert!(order(0, 0, 0).is_empty() && order_by_length(&[], 4, 0, 0).is_empty());
    }

    #[test]
    fn each_epoch_and_seed_has_its_own_order() {
        assert_eq!(order(50, 1, 7), order(50, 1, 7));
        assert_ne!(order(50, 1, 7), order(50, 2, 7));
        assert_ne!(order(50, 1, 7), order(50, 1, 8));
    }

    proptest! {
        #[test]
        fn orders_hold_each_index_once(lengths in prop::collection::vec(1usize..20, 0..200), b in 1usize..9, epoch in 0usize..4, seed: u64) {
            let n = lengths.len();
            prop_assert!(is_permutation(&order(n, epoch, seed), n));
            let grouped = order_by_length(&lengths, b, epoch, seed);
            prop_assert!(is_permutation(&grouped, n));
            prop_assert!(n == 0 || lengths[grouped[0]] == *lengths.iter().max().unwrap());
            // All but the two exchanged heads descend inside a piece.
            let piece = (n / (4 * b)).clamp(1, 50) * b;
            for chunk in grouped.chunks(piece) {
                prop_assert!(chunk[1..].windows(2).all(|w| lengths[w[0]] >= lengths[w[1]]));
            }
            let data = of(&lengths);
            for indices in grouped.chunks(b) {
                let batch = batch(&data, indices, epoch).unwrap();
                prop_assert_eq!(batch.labels.len(), indices.len());
                prop_assert_eq!(batch.ids.len(), batch.sequences.tokens());
                for (k, &i) in indices.iter().enumerate() {
                    prop_assert_eq!(&batch.ids[batch.sequences.range(k)], data.sequence(i));
                    prop_assert_eq!(batch.sequences.example_ids()[k] as usize, epoch * n + i);
                    prop_assert_eq!(batch.labels[k], data.labels[i]);
                }
            }
        }
    }
}
