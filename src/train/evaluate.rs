//! Evaluation: logits, probabilities, accuracy with its interval, loss and the confusion matrix.

use super::ranks::{all_agree, told};
use super::{OneRank, Ranks};
use crate::autograd::Tape;
use crate::cut::Windows;
use crate::data::{Sequence, Tokenized};
use crate::metrics::{argmax, softmax, wilson};
use crate::nn::{DistilBert, Pass};
use crate::tensor::{Sequences, Tensor, on_device};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// Figures of a model on labelled texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Number of examples.
    pub examples: usize,
    /// Share of examples whose answer is their label, in [0, 1].
    pub accuracy: f64,
    /// 95 % interval of the accuracy: see [`wilson`].
    pub interval: (f64, f64),
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Number of examples by `[label][answer]`: `[C][C]`.
    pub confusion: Vec<Vec<usize>>,
}

/// Logits `[N][C]` of each sequence, in the order given. A sequence is the ids `&[u32]` of a text, or a [`Sequence`]. Sequences of similar length are computed together, the longest first and `batch` at a time. On a GPU,
/// a later batch has as many sequences as fit into the number of tokens of the first. The logits stay there, and are read once, at the end.
///
/// # Errors
/// Those of the model, and if a logit is not finite.
pub fn logits<'a, S: Into<Sequence<'a>> + Copy>(model: &DistilBert, sequences: &[S], batch: usize) -> Result<Vec<Vec<f64>>> {
    Ok(logits_while(&OneRank, model, sequences, batch, &mut |_| true)?.unwrap_or_default())
}

/// [`logits`] by several ranks: each computes some of the batches, and every rank gets all rows. Model and sequences must be the same on every rank. `None` if
/// `go_on` of any rank stops it. Before each of its batches, a rank's `go_on` gets the number of sequences that are done.
///
/// # Errors
/// Those of [`logits`], and if another rank failed.
pub fn logits_while<'a, S: Into<Sequence<'a>> + Copy>(
    ranks: &dyn Ranks,
    model: &DistilBert,
    sequences: &[S],
    batch: usize,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Vec<Vec<f64>>>> {
    let sequences: &[Sequence] = &sequences.iter().map(|&sequence| sequence.into()).collect::<Vec<_>>();
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].ids.len()));
    // Several ranks must cut the same batches, whatever each computes on.
    let on_gpu = ranks.size() == 1 && !model.classifier.weight.value()?.on_host();
    let chunks = batches(&order, |i| sequences[i].ids.len(), batch.max(1), on_gpu);
    let mut own = Some(Vec::new());
    let (mut done, mut waiting) = (0, Vec::new());
    for (i, chunk) in chunks.iter().enumerate() {
        if i % ranks.size() == ranks.rank() {
            if !go_on(done) {
                own = None;
                break;
            }
            let logits = chunk_logits(model, sequences, chunk);
            if on_gpu {
                waiting.push(logits?);
            } else {
                let rows = told(ranks, logits.and_then(|logits| finite(model, logits.to_f64()?, chunk)))?;
                own.iter_mut().for_each(|own| own.extend_from_slice(&rows));
            }
        }
        done += chunk.len();
    }
    if own.is_some() && !waiting.is_empty() {
        own = Some(finite(model, read_together(&waiting)?, &order)?);
    }
    if !all_agree(ranks, own.is_some())? {
        return Ok(None);
    }
    let own = own.unwrap_or_default();
    let all = if ranks.size() == 1 { vec![own] } else { ranks.gather(own.as_bytes())?.iter().map(|bytes| numbers(bytes)).collect() };
    let mut result = vec![Vec::new(); sequences.len()];
    for (rank, rows) in all.iter().enumerate() {
        let indices = chunks.iter().skip(rank).step_by(ranks.size()).flat_map(|chunk| chunk.iter());
        let classes = model.classifier.dims().0.max(1);
        indices.zip(rows.chunks_exact(classes)).for_each(|(&i, row)| result[i] = row.to_vec());
    }
    Ok(Some(result))
}

/// Logits `[N][C]` of texts: of each, the mean of its windows. Else as [`logits_while`]: `go_on` gets the number of texts that are done, about.
///
/// # Errors
/// Those of [`logits_while`].
pub fn mean_logits(
    ranks: &dyn Ranks,
    model: &DistilBert,
    windows: &Windows,
    batch: usize,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Vec<Vec<f64>>>> {
    let sequences = windows.sequences();
    let mut go_on = |done| go_on(done * windows.texts() / sequences.len());
    Ok(logits_while(ranks, model, &sequences, batch, &mut go_on)?.map(|rows| windows.mean(rows)))
}

/// The numbers that another rank sent as bytes.
fn numbers(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(8).filter_map(|bytes| f64::read_from_bytes(bytes).ok()).collect()
}

/// The elements of tensors on a GPU, in one transfer.
fn read_together(tensors: &[Tensor]) -> Result<Vec<f64>> {
    let _ = tensors; // Without the feature "cuda", `on_device!` ignores its first argument.
    on_device!(tensors[0], |_device| Tensor::joined_on_device(tensors)?.to_f64(), Err(Error::invalid("there are no logits on a GPU")))
}

/// Cuts the sequences `order`, which are sorted from long to short, into batches of `batch` each. With `by_tokens`, the first batch has `batch`
/// sequences, and each later one as many as have no more tokens together than the first.
fn batches(order: &[usize], length: impl Fn(usize) -> usize, batch: usize, by_tokens: bool) -> Vec<&[usize]> {
    /// A GPU's grid has a block for each sequence, and its limit is 65,535.
    const MOST: usize = 1 << 15;
    if !by_tokens {
        return order.chunks(batch).collect();
    }
    let most: usize = order.iter().take(batch).map(|&i| length(i)).sum();
    let (mut rest, mut all) = (order, Vec::new());
    while !rest.is_empty() {
        let mut tokens = 0;
        let fit = rest.iter().take(MOST.max(batch)).take_while(|&&i| {
            tokens += length(i);
            tokens <= most
        });
        let (own, after) = rest.split_at(fit.count().max(1));
        all.push(own);
        rest = after;
    }
    all
}

/// The logits `[n, C]` of the n sequences with the indices `chunk`.
fn chunk_logits(model: &DistilBert, sequences: &[Sequence], chunk: &[usize]) -> Result<Tensor> {
    let lengths: Vec<usize> = chunk.iter().map(|&i| sequences[i].ids.len()).collect();
    let packed =
        Sequences::new(&lengths, vec![0; chunk.len()])?.with_second_lengths(chunk.iter().map(|&i| sequences[i].second).collect())?;
    let ids: Vec<u32> = chunk.iter().flat_map(|&i| sequences[i].ids.iter().copied()).collect();
    let logits = model.forward(&mut Tape::inference(), &ids, &Pass::evaluation(Arc::new(packed)))?;
    model.check_unchanged()?;
    Ok(logits.value().clone())
}

/// `rows` `[n][C]`, the logits of the sequences with the indices `chunk`, if all are finite.
fn finite(model: &DistilBert, rows: Vec<f64>, chunk: &[usize]) -> Result<Vec<f64>> {
    if let Some(at) = rows.iter().position(|z| !z.is_finite()) {
        let (text, bad) = (chunk[at / model.classifier.dims().0.max(1)] + 1, rows[at]);
        let advice = "take another checkpoint or adapter, or train it again with a lower learning rate";
        return Err(Error::invalid(format!("text {text}: the model answers {bad}: {}: {advice}", cause(model.not_finite()?))));
    }
    Ok(rows)
}

/// The cause of a value that is not finite, for a message. `found` is the result of [`DistilBert::not_finite`].
pub(super) fn cause(found: Option<String>) -> String {
    found.unwrap_or_else(|| "every weight is finite, so a sum of them is too large".to_string())
}

/// Class probabilities `[N][C]` of each sequence: the softmax of [`logits`].
///
/// # Errors
/// Those of the model.
pub fn predict<'a, S: Into<Sequence<'a>> + Copy>(model: &DistilBert, sequences: &[S], batch: usize) -> Result<Vec<Vec<f64>>> {
    Ok(logits(model, sequences, batch)?.iter().map(|row| softmax(row)).collect())
}

/// Evaluates `model` on `data`, `batch` sequences at a time. The logits of a text with several windows are the mean of theirs.
///
/// # Errors
/// If a label is not a class of the model, and those of the model.
pub fn evaluate(model: &DistilBert, data: &Tokenized, batch: usize) -> Result<Evaluation> {
    evaluate_across(&OneRank, model, data, batch)
}

/// [`evaluate`] by several ranks, which share the work. Every rank gets the same figures.
///
/// # Errors
/// Those of [`evaluate`], and if another rank failed.
pub fn evaluate_across(ranks: &dyn Ranks, model: &DistilBert, data: &Tokenized, batch: usize) -> Result<Evaluation> {
    let classes = model.classifier.dims().0;
    if data.targets.is_some() {
        return Err(Error::invalid("evaluate: the labels are no classes; measure `logits` with `labels_found` or `number_errors`"));
    }
    // Checked first: predicting takes long.
    if let Some(bad) = data.labels.iter().find(|&&l| l as usize >= classes) {
        return Err(Error::invalid(format!("label {bad} is not one of the model's {classes} classes")));
    }
    let logits = mean_logits(ranks, model, &data.windows(), batch, &mut |_| true)?.unwrap_or_default();
    let predicted: Vec<Vec<f64>> = logits.iter().map(|row| softmax(row)).collect();
    Ok(measure(&predicted, &data.labels)?.0)
}

/// The figures of class probabilities `[N][C]`, and the answers `[N]`: the most probable class of each row.
///
/// # Errors
/// If a label is not a class, or a probability is not finite.
pub fn measure(probabilities: &[Vec<f64>], labels: &[u32]) -> Result<(Evaluation, Vec<u32>)> {
    let classes = probabilities.first().map_or(0, Vec::len);
    let mut confusion = vec![vec![0; classes]; classes];
    let (mut loss, mut answers) = (0.0, Vec::new());
    for (i, (p, &label)) in probabilities.iter().zip(labels).enumerate() {
        if p.iter().any(|p| !p.is_finite()) {
            return Err(Error::invalid(format!("text {}: its probabilities are {p:?}, which is no answer", i + 1)));
        }
        let Some(&chance) = p.get(label as usize) else {
            return Err(Error::invalid(format!("label {label} is not one of the model's {classes} classes")));
        };
        let answer = argmax(p);
        confusion[label as usize][answer] += 1;
        // A probability may underflow to 0. The loss stays finite.
        loss -= chance.max(f64::MIN_POSITIVE).ln();
        answers.push(answer as u32);
    }
    let right: usize = (0..classes).map(|c| confusion[c][c]).sum();
    let n = labels.len();
    let (accuracy, loss) = (right as f64 / n.max(1) as f64, loss / n.max(1) as f64);
    Ok((Evaluation { examples: n, accuracy, interval: wilson(right, n), loss, confusion }, answers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::testing::small_model;

    #[test]
    fn batches_by_tokens_are_full_and_no_larger_than_the_first() {
        let lengths = [9, 8, 8, 5, 4, 4, 3, 3, 2, 2, 2, 1, 1, 1, 1];
        let order: Vec<usize> = (0..lengths.len()).collect();
        let cut = |batch, by_tokens| {
            let all = batches(&order, |i| lengths[i], batch, by_tokens);
            assert_eq!(all.concat(), order);
            all.iter().map(|batch| batch.len()).collect::<Vec<_>>()
        };
        assert_eq!(cut(4, false), [4, 4, 4, 3]);
        assert_eq!(cut(2, true), [2, 3, 7, 3]);
        assert_eq!(cut(1, true), [1, 1, 1, 2, 2, 4, 4]);
        assert_eq!(cut(20, true), [15]);
        assert!(batches(&[], |_| 1, 3, true).is_empty());
    }

    #[test]
    fn a_text_of_several_windows_has_their_mean_logits() {
        let model = small_model(DType::F64);
        // Windows of four tokens, three of which are new: 3 to 6, 6 to 9, 7 to 10.
        let ids: Vec<u32> = vec![1, 3, 4, 5, 6, 7, 8, 9, 10, 2, 1, 5, 2];
        let data = Tokenized { ids, offsets: vec![0, 10, 13], labels: vec![1, 0], window: Some(6), ..Tokenized::default() };
        let of = |ids: &[u32]| logits(&model, &[ids], 1).unwrap().remove(0);
        let parts = [of(&[1, 3, 4, 5, 6, 2]), of(&[1, 6, 7, 8, 9, 2]), of(&[1, 7, 8, 9, 10, 2])];
        let mean: Vec<f64> = (0..2).map(|c| (parts[0][c] + parts[1][c] + parts[2][c]) / 3.0).collect();
        let windows = data.windows();
        let mut told = Vec::new();
        let mut go_on = |done| {
            told.push(done);
            true
        };
        let found = mean_logits(&OneRank, &model, &windows, 1, &mut go_on).unwrap().unwrap();
        assert_eq!(told, [0, 0, 1, 1], "texts that are done after windows");
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-13);
        assert!(close(&found[0], &mean) && close(&found[1], &of(&[1, 5, 2])), "{found:?} {mean:?}");
        assert!(!close(&found[0], &of(data.sequence(0))) && !close(&found[0], &parts[0]), "the windows matter");
        let rows: Vec<Vec<f64>> = found.iter().map(|row| softmax(row)).collect();
        assert_eq!(evaluate(&model, &data, 3).unwrap(), measure(&rows, &data.labels).unwrap().0);
    }

    #[test]
    fn a_test_can_be_stopped() {
        let model = small_model(DType::F64);
        let sequences: [&[u32]; 3] = [&[1, 2], &[3], &[4, 5, 6]];
        let mut told = Vec::new();
        let all = logits_while(&OneRank, &model, &sequences, 2, &mut |done| {
            told.push(done);
            true
        });
        assert_eq!((all.unwrap().unwrap(), told), (logits(&model, &sequences, 2).unwrap(), vec![0, 2]));
        assert!(logits_while(&OneRank, &model, &sequences, 2, &mut |done| done < 2).unwrap().is_none());
    }
}
