//! Ranks that MPI started: `mpirun -n 4 lowrank train …`.

use super::Ranks;
use crate::{Error, Result};
use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;
use std::cell::RefCell;

/// The count that a rank sends in place of a number of bytes if it failed.
const FAILED: u64 = u64::MAX;

/// This process as a rank of MPI. MPI ends when it is dropped.
///
/// An error of MPI itself, for example because another process was killed, ends the process: that is MPI's default.
pub struct MpiRanks {
    world: SimpleCommunicator,
    /// The rank that failed, and its error. Nothing is sent afterwards.
    failed: RefCell<Option<(usize, String)>>,
    _universe: Universe,
}

impl MpiRanks {
    /// Starts MPI. `None` if this process has started it before.
    pub fn start() -> Option<MpiRanks> {
        // Other threads compute, but only this one calls MPI.
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)?;
        Some(MpiRanks { world: universe.world(), failed: RefCell::new(None), _universe: universe })
    }

    /// [`Ranks::exchange`], or the news that this rank failed.
    fn transfer(&self, parts: std::result::Result<&[&[u8]], &str>) -> Result<Vec<Vec<u8>>> {
        if let Some((rank, cause)) = &*self.failed.borrow() {
            return Err(Error::Rank { rank: *rank, cause: cause.clone() });
        }
        // Every rank tells every other the number of bytes for it, and the largest of its numbers.
        let lengths: Vec<u64> = parts.map_or(vec![FAILED; self.size()], |parts| parts.iter().map(|part| part.len() as u64).collect());
        let largest = lengths.iter().copied().max().unwrap_or(0);
        let headers: Vec<u64> = lengths.iter().flat_map(|&length| [length, largest]).collect();
        let mut others = vec![0; headers.len()];
        self.world.all_to_all_into(&headers[..], &mut others[..]);
        if others.iter().step_by(2).any(|&length| length == FAILED) {
            return Err(self.failure(parts.err().unwrap_or("")));
        }
        let parts = parts.unwrap_or(&[]);
        let incoming: Vec<usize> = others.iter().step_by(2).map(|&length| length as usize).collect();
        let largest = others.iter().skip(1).step_by(2).copied().max().unwrap_or(0) as usize;
        let mut received: Vec<Vec<u8>> = incoming.iter().map(|&length| Vec::with_capacity(length)).collect();
        // MPI counts in 31 bits, so long messages go in pieces.
        let piece = i32::MAX as usize / self.size();
        for start in (0..largest).step_by(piece) {
            let of = |length: usize| start.min(length)..(start + piece).min(length);
            let sent: Vec<&[u8]> = parts.iter().map(|part| &part[of(part.len())]).collect();
            let lengths: Vec<usize> = incoming.iter().map(|&length| of(length).len()).collect();
            self.piece(&sent, &lengths).into_iter().zip(&mut received).for_each(|(piece, whole)| whole.extend(piece));
        }
        Ok(received)
    }

    /// Sends `sent[k]` to rank k. Returns `lengths[k]` bytes from rank k.
    fn piece(&self, sent: &[&[u8]], lengths: &[usize]) -> Vec<Vec<u8>> {
        // One byte more: the address of an empty vector of bytes is 1, which Open MPI takes for MPI_IN_PLACE.
        let (to, mut from) = ([&sent.concat()[..], &[0]].concat(), vec![0; lengths.iter().sum::<usize>() + 1]);
        let (counts_out, starts_out) = counts(sent.iter().map(|part| part.len()));
        let (counts_in, starts_in) = counts(lengths.iter().copied());
        let partition = Partition::new(&to[..], counts_out, starts_out);
        self.world.all_to_all_varcount_into(&partition, &mut PartitionMut::new(&mut from[..], counts_in, starts_in));
        let mut rest = &from[..];
        let mut next = |&length: &usize| rest.split_off(..length).map(<[u8]>::to_vec).unwrap_or_default();
        lengths.iter().map(&mut next).collect()
    }

    /// The error of the first rank that failed. Every rank calls this, with its cause, or nothing if it did not fail.
    fn failure(&self, cause: &str) -> Error {
        let mut lengths = vec![0_u64; self.size()];
        self.world.all_gather_into(&(cause.len() as u64), &mut lengths[..]);
        let lengths: Vec<usize> = lengths.into_iter().map(|length| length as usize).collect();
        let causes = self.piece(&vec![cause.as_bytes(); self.size()], &lengths);
        let first = causes.iter().position(|cause| !cause.is_empty()).unwrap_or(0);
        let cause = String::from_utf8_lossy(&causes[first]).into_owned();
        *self.failed.borrow_mut() = Some((first, cause.clone()));
        Error::Rank { rank: first, cause }
    }
}

/// Numbers of bytes, and where each part starts, as MPI has them.
fn counts(lengths: impl Iterator<Item = usize>) -> (Vec<i32>, Vec<i32>) {
    let counts: Vec<i32> = lengths.map(|length| length as i32).collect();
    let starts = counts.iter().scan(0, |end, count| Some(std::mem::replace(end, *end + count))).collect();
    (counts, starts)
}

impl Ranks for MpiRanks {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn exchange(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        self.transfer(Ok(parts))
    }

    fn fail(&self, cause: &Error) {
        // An error that came from another rank is known to all.
        if !matches!(cause, Error::Rank { .. }) {
            // The other ranks learn of it. What they answer changes nothing here.
            let _ = self.transfer(Err(&cause.to_string()));
        }
    }
}
