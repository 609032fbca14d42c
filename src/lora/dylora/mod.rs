//! DyLoRA: low-rank terms that also work when only their first ranks are taken. Valipour et al. 2022, <https://arxiv.org/abs/2210.07558>.
//!
//! Each training step draws a rank b (algorithm 1) and uses A↓b, the first b rows of A, and B↓b, the first b columns of B:
//! y = x Wᵀ + alpha / b · x A↓bᵀ B↓bᵀ (equation 7). [`FirstRanks`] does so in one pass. [`truncate`] cuts a trained adapter for good.

mod submatrix;

pub use submatrix::Submatrix;
pub(super) use submatrix::suite;

use crate::autograd::{Tape, Var};
use crate::nn::{DistilBert, LowRank, Pass, TermPart, Weight};
use crate::tensor::Tensor;
use crate::{Error, Result};
use std::sync::Arc;

/// The first b ranks of each term; a term with fewer ranks is taken whole.
pub struct FirstRanks(pub usize);

/// [`FirstRanks`] of a pass; `None`: whole terms.
pub fn first_ranks(rank: Option<usize>) -> Option<Arc<dyn TermPart>> {
    rank.map(|rank| Arc::new(FirstRanks(rank)) as Arc<dyn TermPart>)
}

impl TermPart for FirstRanks {
    fn of<'m>(&self, term: &'m LowRank, tape: &mut Tape<'m>, pass: &Pass) -> Result<(Var, Var, f64)> {
        let (a, b) = (term.a.var(tape, pass)?, term.b.var(tape, pass)?);
        let rank = self.0.min(term.rank());
        // s = alpha / b.
        let scale = term.scale * term.rank() as f64 / rank as f64;
        if rank == term.rank() {
            return Ok((a, b, scale));
        }
        let (input, output) = (a.shape().cols(), b.shape().rows());
        let mut first = |x: &Var, dims| tape.apply(Submatrix { dims }, &[x]);
        Ok((first(&a, [rank, input])?, first(&b, [output, rank])?, scale))
    }
}

/// Cuts every term to its first `rank` ranks (equation 7). s = alpha / r grows accordingly.
///
/// # Errors
/// If no term has so many ranks, or a term cannot be cut: one with a magnitude (DoRA), or one whose start is part of it (PiSSA, OLoRA).
pub fn truncate(model: &mut DistilBert, rank: usize) -> Result<()> {
    let most = model.linears_mut().iter().flat_map(|l| l.terms.iter().map(LowRank::rank)).max().unwrap_or(0);
    if rank == 0 || rank > most {
        return Err(Error::invalid(format!("the adapter has terms of rank {most}, which cannot be cut to rank {rank}")));
    }
    for linear in model.linears_mut() {
        if linear.variant.is_some() {
            return Err(Error::invalid(format!("{}: its magnitude was learned for all ranks, which cannot be cut", linear.name)));
        }
        for term in linear.terms.iter_mut().filter(|t| t.rank() > rank) {
            if !term.b.trains() {
                let problem = "half of its term is what the factors started as (PiSSA, OLoRA): that cannot be cut to fewer ranks";
                return Err(Error::invalid(format!("{}: {problem}", linear.name)));
            }
            let (old, dtype) = (term.rank(), term.a.value()?.dtype());
            let (a, b) = (term.a.value()?.to_f64()?, term.b.value()?.to_f64()?);
            let (input, output) = (a.len() / old, b.len() / old);
            let b = b.chunks_exact(old).flat_map(|row| row[..rank].iter().copied()).collect();
            term.a = Weight::trained(term.a.name(), Tensor::from_f64(a[..rank * input].to_vec(), dtype, [rank, input])?);
            term.b = Weight::trained(term.b.name(), Tensor::from_f64(b, dtype, [output, rank])?);
            term.scale *= old as f64 / rank as f64;
        }
    }
    Ok(())
}
