//! The gradients of a step from all ranks: exchanged, and added in the order in which one process adds them.
//!
//! Micro-batch i of a step belongs to rank i mod n. So in each round, the ranks have the gradients of n micro-batches that follow each other:
//!
//! ```text
//!            slice 0   slice 1
//! rank 0:  [  g₀ ₀  |   g₀ ₁  ]      exchange      rank 0: slice 0 of g₀ and g₁ ─► sum ─┐ gather
//! rank 1:  [  g₁ ₀  |   g₁ ₁  ]     ─────────►     rank 1: slice 1 of g₀ and g₁ ─► sum ─┴────────► all sums on every rank
//! ```
//!
//! All gradients of a micro-batch stand one after another, in the order of the model's parameters, and are cut into n slices. Rank k adds slice k
//! of every micro-batch. After the last round, the ranks gather the sums. Each element is the same sum, in the same order, as in one process.
//!
//! Bytes: let G be the bytes of a micro-batch's gradients, and S of a rank's slice, G/n rounded to elements. A rank sends G − S for each
//! micro-batch that it computes, and (n − 1)·S after the last round, with some numbers of each micro-batch for the report. In memory it has,
//! besides its own gradients, G to send and G received.

use super::Ranks;
use super::observer::{MicroBatch, RankReport};
use crate::autograd::{Grads, accumulate};
use crate::nn::DistilBert;
use crate::tensor::{DType, Tensor, alloc};
use crate::{Error, Result, dispatch_float};
use std::ops::Range;
use std::time::Instant;
use zerocopy::{FromBytes, IntoBytes};

/// The gradients and reports of a step, while they are computed.
pub(super) struct StepSum<'a> {
    ranks: &'a dyn Ranks,
    /// The reports of this rank's micro-batches.
    parts: Vec<MicroBatch>,
    /// With one rank: the sum of the gradients.
    grads: Grads,
    /// With several: the sum of this rank's slice, `[elements]`.
    slice: Option<Tensor>,
    /// With several: whether a gradient of this rank has reached each parameter.
    reached: Vec<bool>,
    /// Seconds spent in the exchange.
    waited: f64,
}

/// A whole step, the same on every rank.
pub(super) struct Step {
    /// The reports of all micro-batches, in order.
    pub parts: Vec<MicroBatch>,
    /// The sum of the gradients over all micro-batches.
    pub grads: Grads,
    /// `None` with one rank.
    pub ranks: Option<RankReport>,
}

impl<'a> StepSum<'a> {
    /// Of nothing yet.
    pub fn new(ranks: &'a dyn Ranks) -> StepSum<'a> {
        StepSum { ranks, parts: Vec::new(), grads: Grads::default(), slice: None, reached: Vec::new(), waited: 0.0 }
    }

    /// Adds a round: a micro-batch of each rank, in the order of ranks. `own` is this rank's. The last round may have too few for all ranks;
    /// the last ranks then have `None`.
    ///
    /// # Errors
    /// If the gradients differ in type, and those of [`Ranks::exchange`].
    pub fn add(&mut self, model: &DistilBert, own: Option<(MicroBatch, Grads)>) -> Result<()> {
        let (part, grads) = own.unzip();
        self.parts.extend(part);
        if self.ranks.size() == 1 {
            return grads.map_or(Ok(()), |grads| self.grads.add(grads));
        }
        let layout = Layout::of(model, self.ranks.size())?;
        self.reached.resize(model.parameters().len(), false);
        let flat = grads.map(|grads| layout.flat(model, grads, &mut self.reached)).transpose()?;
        let slices: Vec<&[u8]> =
            (0..self.ranks.size()).map(|rank| flat.as_ref().map_or(&[][..], |flat| &flat[layout.slice(rank)])).collect();
        let began = Instant::now();
        let received = self.ranks.exchange(&slices)?;
        self.waited += began.elapsed().as_secs_f64();
        let own = layout.slice(self.ranks.rank()).len();
        for slice in received.iter().filter(|slice| !slice.is_empty()) {
            check_length(slice.len(), own)?;
            self.slice = Some(accumulate(self.slice.take(), tensor(layout.dtype, slice, [own / layout.dtype.size()])?)?);
        }
        Ok(())
    }

    /// The step, after its last round.
    ///
    /// # Errors
    /// Those of [`Ranks::exchange`].
    pub fn finish(mut self, model: &DistilBert) -> Result<Step> {
        if self.ranks.size() == 1 {
            return Ok(Step { parts: self.parts, grads: self.grads, ranks: None });
        }
        let layout = Layout::of(model, self.ranks.size())?;
        let mut message = vec![0; layout.slice(self.ranks.rank()).len()];
        if let Some(slice) = &self.slice {
            dispatch_float!("exchange", layout.dtype, T => { message.copy_from_slice(slice.host::<T>()?.as_bytes()); Ok(()) })?;
        }
        message.extend(self.reached.iter().map(|&reached| u8::from(reached)));
        for part in &self.parts {
            message.extend(part.numbers()?.iter().flat_map(|number| number.to_le_bytes()));
        }
        let began = Instant::now();
        let all = self.ranks.gather(&message)?;
        self.waited += began.elapsed().as_secs_f64();
        let (mut flat, mut parts) = (Vec::with_capacity(layout.bytes), Vec::new());
        self.reached.fill(false);
        for (rank, message) in all.iter().enumerate() {
            let slice = layout.slice(rank).len();
            check_length(message.len().min(slice + self.reached.len()), slice + self.reached.len())?;
            let (slice, rest) = message.split_at(slice);
            let (reached, numbers) = rest.split_at(self.reached.len());
            flat.extend_from_slice(slice);
            self.reached.iter_mut().zip(reached).for_each(|(here, there)| *here |= *there == 1);
            let mut numbers = numbers.chunks_exact(8).filter_map(|bytes| f64::read_from_bytes(bytes).ok());
            // Micro-batch i is the one of number i / n of rank i mod n.
            let of_rank = std::iter::from_fn(|| MicroBatch::from_numbers(&mut numbers)).enumerate();
            parts.extend(of_rank.map(|(round, part)| (round * self.ranks.size() + rank, part)));
        }
        parts.sort_by_key(|(i, _)| *i);
        let computed_by = parts.iter().map(|(i, _)| i % self.ranks.size()).collect();
        let grads = layout.grads(model, &flat, &self.reached)?;
        let ranks = Some(RankReport { size: self.ranks.size(), computed_by, seconds_waiting: self.waited });
        Ok(Step { parts: parts.into_iter().map(|(_, part)| part).collect(), grads, ranks })
    }
}

/// Where the gradients of a model's parameters stand, one after another.
struct Layout {
    dtype: DType,
    /// Bytes of all gradients.
    bytes: usize,
    /// Number of ranks.
    ranks: usize,
}

impl Layout {
    /// # Errors
    /// If the parameters differ in type.
    fn of(model: &DistilBert, ranks: usize) -> Result<Layout> {
        let parameters = model.parameters();
        let dtype = parameters.first().map_or(DType::F32, |p| p.value().dtype());
        match parameters.iter().find(|p| p.value().dtype() != dtype) {
            Some(other) => Err(Error::dtype("exchange", "parameters of one type", &[dtype, other.value().dtype()])),
            None => Ok(Layout { dtype, bytes: parameters.iter().map(|p| p.value().bytes()).sum(), ranks }),
        }
    }

    /// The bytes of a rank's slice: whole elements.
    fn slice(&self, rank: usize) -> Range<usize> {
        let (size, elements) = (self.dtype.size(), self.bytes / self.dtype.size());
        let start = |rank: usize| elements * rank / self.ranks * size;
        start(rank)..start(rank + 1)
    }

    /// The bytes of all gradients. One that is missing is zeros, and not marked in `reached`; the gradients of all micro-batches reach the same
    /// parameters.
    fn flat(&self, model: &DistilBert, mut grads: Grads, reached: &mut [bool]) -> Result<Vec<u8>> {
        let mut flat = Vec::with_capacity(self.bytes);
        for (p, reached) in model.parameters().into_iter().zip(reached) {
            let end = flat.len() + p.value().bytes();
            if let Some(g) = grads.take(p) {
                let g = g.to_host()?;
                *reached = true;
                dispatch_float!("exchange", self.dtype, T => { flat.extend_from_slice(g.host::<T>()?.as_bytes()); Ok(()) })?;
                check_length(flat.len(), end)?;
            }
            flat.resize(end, 0);
        }
        Ok(flat)
    }

    /// The gradients, each on its parameter's device.
    fn grads(&self, model: &DistilBert, mut flat: &[u8], reached: &[bool]) -> Result<Grads> {
        let mut grads = Grads::default();
        for (p, &reached) in model.parameters().into_iter().zip(reached) {
            let (own, rest) = flat.split_at(p.value().bytes());
            flat = rest;
            if reached {
                grads.insert(p.id(), tensor(self.dtype, own, p.value().dims())?.to_device_of(p.value())?)?;
            }
        }
        Ok(grads)
    }
}

/// A tensor from the bytes of its elements.
fn tensor(dtype: DType, bytes: &[u8], dims: impl AsRef<[usize]>) -> Result<Tensor> {
    dispatch_float!("exchange", dtype, T => {
        let mut data = alloc::<T>(bytes.len() / dtype.size());
        data.as_mut_bytes().copy_from_slice(bytes);
        Tensor::new(data, dims.as_ref())
    })
}

/// # Errors
/// If the lengths differ: the ranks do not work on the same run.
fn check_length(found: usize, wanted: usize) -> Result<()> {
    let problem = || format!("exchange: {found} bytes of gradients where there should be {wanted}: the ranks do not train the same model");
    if found == wanted { Ok(()) } else { Err(Error::invalid(problem())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_of_another_length_are_refused() {
        assert!(check_length(8, 8).is_ok());
        assert!(check_length(7, 8).unwrap_err().to_string().contains("7 bytes of gradients where there should be 8"));
    }
}
