//! The output of the frozen lowest layers, computed once instead of in every epoch. Dropout in those layers is off: with it, the output would
//! differ from epoch to epoch.

use super::ranks::told;
use super::{OneRank, Ranks};
use crate::data::{Tokenized, batch};
use crate::dispatch;
use crate::nn::DistilBert;
use crate::tensor::scratch::Scratch;
use crate::tensor::{DType, Tensor, alloc};
use crate::{Error, Result};
use zerocopy::IntoBytes;

/// Largest size of the features in memory, in bytes. Larger ones are written to a temporary file.
const IN_MEMORY: usize = 1 << 30;

/// Input of the layers above the frozen ones, for every sequence of a data set.
pub struct FrozenFeatures {
    /// Each `[rows, D]`, of `sequences` sequences: a row for each token, or for each sequence's first token if every layer is frozen.
    parts: Vec<Tensor>,
    sequences: usize,
    /// First row of each sequence, and the number of all rows: `[N + 1]`.
    offsets: Vec<usize>,
}

impl FrozenFeatures {
    /// Computes the features, `size` sequences at a time.
    ///
    /// # Errors
    /// If no layer is frozen, and those of the model and of the temporary file.
    pub fn new(model: &DistilBert, data: &Tokenized, size: usize) -> Result<FrozenFeatures> {
        FrozenFeatures::across(&OneRank, model, data, size)
    }

    /// [`FrozenFeatures::new`] for a run of several ranks: each computes a part, and all get all of it.
    ///
    /// # Errors
    /// Those of [`FrozenFeatures::new`], and if another rank failed.
    pub fn across(ranks: &dyn Ranks, model: &DistilBert, data: &Tokenized, size: usize) -> Result<FrozenFeatures> {
        told(ranks, FrozenFeatures::keeping(ranks, model, data, size, IN_MEMORY))
    }

    /// [`FrozenFeatures::new`], in a file if they have more bytes than `in_memory`.
    fn keeping(ranks: &dyn Ranks, model: &DistilBert, data: &Tokenized, size: usize, in_memory: usize) -> Result<FrozenFeatures> {
        let (frozen, d, size) = (model.frozen_layers(), model.config.dim, size.max(1));
        if frozen == 0 {
            return Err(Error::invalid("a cached trunk: something trains in the lowest layer or below it, so nothing stays the same"));
        }
        let offsets: Vec<usize> = if frozen == model.blocks.len() { (0..=data.len()).collect() } else { data.offsets.clone() };
        let rows = offsets[data.len()];
        let mut file = if rows * d * model.dtype.size() > in_memory { Some(Scratch::new()?) } else { None };
        let mut parts = Vec::new();
        let all: Vec<usize> = (0..data.len()).collect();
        let batches: Vec<&[usize]> = all.chunks(size).collect();
        for round in batches.chunks(ranks.size()) {
            let own = round.get(ranks.rank()).map(|indices| part_of(model, data, indices)).transpose()?;
            let rows = |indices: &&[usize]| offsets[indices[0] + indices.len()] - offsets[indices[0]];
            for part in gathered(ranks, own, model.dtype, round.iter().map(|indices| [rows(indices), d]))? {
                match &mut file {
                    Some(file) => file.append(&part)?,
                    None => parts.push(part),
                }
            }
        }
        match file {
            Some(file) => Ok(FrozenFeatures { parts: vec![file.finish(model.dtype, [rows, d])?], sequences: data.len(), offsets }),
            None => Ok(FrozenFeatures { parts, sequences: size, offsets }),
        }
    }

    /// The rows of the sequences `indices`, concatenated: `[rows, D]`.
    ///
    /// # Errors
    /// Never for indices below N.
    pub fn rows(&self, indices: &[usize]) -> Result<Tensor> {
        let Some(first) = self.parts.first() else { return Err(Error::invalid("a cached trunk of no sequences")) };
        let (d, rows) = (first.shape().cols(), indices.iter().map(|&i| self.offsets[i + 1] - self.offsets[i]).sum::<usize>());
        dispatch!("trunk", first.dtype(), T => {
            let mut some = alloc::<T>(rows * d);
            let mut to = &mut some[..];
            for &i in indices {
                let part = i / self.sequences;
                let start = self.offsets[part * self.sequences];
                let from = &self.parts[part].host::<T>()?[(self.offsets[i] - start) * d..(self.offsets[i + 1] - start) * d];
                let (here, rest) = to.split_at_mut(from.len());
                here.copy_from_slice(from);
                to = rest;
            }
            Tensor::new(some, [rows, d])
        })
    }
}

/// The features of the sequences `indices`: `[rows, D]`.
fn part_of(model: &DistilBert, data: &Tokenized, indices: &[usize]) -> Result<Tensor> {
    let batch = batch(data, indices, 0)?;
    let part = model.frozen_features(&batch.ids, &batch.sequences)?.to_host()?;
    model.check_unchanged()?;
    Ok(part)
}

/// The parts of the first ranks, one for each of `shapes`, from this rank's `own`.
fn gathered(ranks: &dyn Ranks, own: Option<Tensor>, dtype: DType, shapes: impl Iterator<Item = [usize; 2]>) -> Result<Vec<Tensor>> {
    if ranks.size() == 1 {
        return Ok(own.into_iter().collect());
    }
    dispatch!("trunk", dtype, T => {
        let all = ranks.gather(own.as_ref().map_or(Ok(&[][..]), |own| own.host::<T>()).map(IntoBytes::as_bytes)?)?;
        let tensor = |(bytes, shape): (&Vec<u8>, [usize; 2])| {
            let mut part = alloc::<T>(bytes.len() / size_of::<T>());
            part.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
            Tensor::new(part, shape)
        };
        all.iter().zip(shapes).map(tensor).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::Method;
    use crate::nn::Config;

    #[test]
    fn a_trunk_in_a_file_is_the_one_in_memory() {
        let mut config = Config::distilbert_base();
        (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (8, 2, 16, 2, 40);
        let data = Tokenized { ids: (0..12).collect(), offsets: vec![0, 5, 8, 12], labels: vec![0, 1, 0], ..Tokenized::default() };
        for (dtype, frozen_layers) in [(DType::F32, 1), (DType::BF16, 1), (DType::F64, 2)] {
            let mut model = DistilBert::random(&config, 2, dtype, 1).unwrap();
            Method::Selective { frozen_layers }.apply(&mut model, 0).unwrap();
            // Of each text, one row goes on if every layer is frozen.
            let bytes = if frozen_layers == 2 { 3 } else { 12 } * 8 * dtype.size();
            let rows = |in_memory| {
                let trunk = FrozenFeatures::keeping(&OneRank, &model, &data, 2, in_memory).unwrap();
                assert_eq!(trunk.parts.len(), if in_memory < bytes { 1 } else { 2 });
                [&[2, 0][..], &[1]].map(|indices| trunk.rows(indices).unwrap().to_f64().unwrap())
            };
            assert_eq!(rows(0), rows(IN_MEMORY));
            assert_eq!(rows(bytes - 1), rows(bytes));
            assert_eq!(rows(0)[0].len(), 8 * if frozen_layers == 2 { 2 } else { 9 });
        }
    }
}
