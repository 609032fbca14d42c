//! Ranks: processes that do one run together. Each has a number, its rank. They talk through the trait [`Ranks`] alone.
//!
//! ```text
//! gather     rank 0 gives a, rank 1 gives b        ─► both get [a, b]
//! exchange   rank 0 gives [a, b], rank 1 gives [c, d] ─► rank 0 gets [a, c], rank 1 gets [b, d]
//! ```
//!
//! Every rank makes the same calls in the same order. A rank that fails says so with [`Ranks::fail`]. The call in which another rank waits, or
//! its next one, then returns [`Error::Rank`] with the cause. So an error of one rank ends all of them.

use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A rank of a run, and its way to the others.
pub trait Ranks {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks, at least 1.
    fn size(&self) -> usize;

    /// Sends `parts[k]` to rank k, for every rank k. Returns what each rank sent to this one, in the order of ranks. `parts` has an entry for each
    /// rank, also for this one; an entry may be empty.
    ///
    /// # Errors
    /// If a rank failed or cannot be reached.
    fn exchange(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>>;

    /// Tells all ranks that this one failed, and why. Later calls do nothing.
    fn fail(&self, cause: &Error);

    /// Sends `bytes` to every rank. Returns what each rank sent, in the order of ranks.
    ///
    /// # Errors
    /// Those of [`Ranks::exchange`].
    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.exchange(&vec![bytes; self.size()])
    }
}

/// The result. If it is an error, the other ranks have been told.
pub(super) fn told<T>(ranks: &dyn Ranks, result: Result<T>) -> Result<T> {
    result.inspect_err(|e| ranks.fail(e))
}

/// Whether every rank says yes.
///
/// # Errors
/// Those of [`Ranks::exchange`].
pub fn all_agree(ranks: &dyn Ranks, yes: bool) -> Result<bool> {
    if ranks.size() == 1 {
        return Ok(yes);
    }
    Ok(ranks.gather(&[u8::from(yes)])?.iter().all(|said| said == &[1]))
}

/// Checks that `facts`, names and values, are the same on all ranks.
///
/// # Errors
/// If one differs: every rank gets a message with the name and both values. And those of [`Ranks::exchange`].
pub fn check_same(ranks: &dyn Ranks, facts: &[(&str, String)]) -> Result<()> {
    let own: Vec<String> = facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let all = ranks.gather(own.join("\n").as_bytes())?;
    let text = |rank: usize| String::from_utf8_lossy(&all[rank]);
    let Some(other) = (1..ranks.size()).find(|&rank| all[rank] != all[0]) else { return Ok(()) };
    let (first, second) = (text(0), text(other));
    let pair = first.lines().zip(second.lines()).find(|(a, b)| a != b);
    let (a, b) = pair.unwrap_or((&first, &second));
    Err(Error::invalid(format!("the ranks must work on the same things: rank 0 has the {a}, and rank {other} the {b}")))
}

/// The only rank of a run: one process, as without ranks.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneRank;

impl Ranks for OneRank {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        Ok(parts.iter().map(|part| part.to_vec()).collect())
    }

    fn fail(&self, _: &Error) {}
}

/// A rank that is a thread of this process, for tests.
pub struct ThreadRank {
    rank: usize,
    size: usize,
    shared: Arc<(Mutex<Post>, Condvar)>,
}

/// What is on its way between the threads.
#[derive(Default)]
struct Post {
    /// Messages that were not taken yet, oldest first, by receiver and sender.
    boxes: Vec<Vec<VecDeque<Vec<u8>>>>,
    /// Ranks that were dropped.
    gone: Vec<usize>,
    failed: Option<(usize, String)>,
}

impl ThreadRank {
    /// All ranks of a run of `size` ranks, in order. Each goes to a thread of its own.
    pub fn all(size: usize) -> Vec<ThreadRank> {
        let post = Post { boxes: vec![vec![VecDeque::new(); size]; size], ..Post::default() };
        let shared = Arc::new((Mutex::new(post), Condvar::new()));
        (0..size).map(|rank| ThreadRank { rank, size, shared: shared.clone() }).collect()
    }

    /// Changes what is on its way, and wakes the threads that wait.
    fn change(&self, change: impl FnOnce(&mut Post)) -> MutexGuard<'_, Post> {
        // A thread that panicked left whole messages.
        let mut post = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut post);
        self.shared.1.notify_all();
        post
    }
}

impl Ranks for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        let mut post = self.change(|post| {
            post.boxes.iter_mut().zip(parts).for_each(|(to, part)| to[self.rank].push_back(part.to_vec()));
        });
        loop {
            if let Some((rank, cause)) = &post.failed {
                return Err(Error::Rank { rank: *rank, cause: cause.clone() });
            }
            let own = &mut post.boxes[self.rank];
            if own.iter().all(|from| !from.is_empty()) {
                return Ok(own.iter_mut().filter_map(VecDeque::pop_front).collect());
            }
            if let Some(&rank) = post.gone.iter().find(|&&rank| post.boxes[self.rank][rank].is_empty()) {
                return Err(Error::Rank { rank, cause: "it ended before the others".to_string() });
            }
            post = self.shared.1.wait(post).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn fail(&self, cause: &Error) {
        // An error that came from another rank is known to all.
        if !matches!(cause, Error::Rank { .. }) {
            drop(self.change(|post| post.failed = post.failed.take().or(Some((self.rank, cause.to_string())))));
        }
    }
}

impl Drop for ThreadRank {
    fn drop(&mut self) {
        drop(self.change(|post| post.gone.push(self.rank)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `f` on each of `n` ranks.
    fn on_ranks<T: Send>(n: usize, f: impl Fn(&dyn Ranks) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = ThreadRank::all(n).into_iter().map(|rank| scope.spawn(|| f(&{ rank }))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn messages_come_in_the_order_of_ranks() {
        let found = on_ranks(3, |ranks| {
            let own = ranks.rank() as u8;
            let messages: Vec<Vec<u8>> = (0..3).map(|to| vec![own; to + own as usize]).collect();
            let parts: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            let rounds: Vec<_> = (0..20).map(|_| ranks.exchange(&parts).unwrap()).collect();
            assert!(rounds.iter().all(|round| *round == rounds[0]));
            (rounds[0].clone(), ranks.gather(&[own]).unwrap())
        });
        for (rank, (exchanged, gathered)) in found.iter().enumerate() {
            assert_eq!(*exchanged, [vec![0; rank], vec![1; rank + 1], vec![2; rank + 2]]);
            assert_eq!(*gathered, [[0], [1], [2]]);
        }
        assert_eq!(OneRank.gather(b"x").unwrap(), [b"x"]);
        assert_eq!(on_ranks(2, |ranks| all_agree(ranks, ranks.rank() == 0).unwrap()), [false; 2]);
        assert!(all_agree(&OneRank, true).unwrap() && !all_agree(&OneRank, false).unwrap());
    }

    #[test]
    fn an_error_of_one_rank_ends_all() {
        let found = on_ranks(3, |ranks| match ranks.rank() {
            1 => told(ranks, Err(Error::invalid("the disk is full"))),
            _ => ranks.gather(&[]).map(|_| ()),
        });
        let said: Vec<String> = found.into_iter().map(|result| result.unwrap_err().to_string()).collect();
        assert_eq!(said, ["rank 1: the disk is full", "the disk is full", "rank 1: the disk is full"]);
        let found = on_ranks(2, |ranks| if ranks.rank() == 1 { Ok(Vec::new()) } else { ranks.gather(&[]) });
        assert!(found[0].as_ref().is_err_and(|e| e.to_string() == "rank 1: it ended before the others"));
    }

    #[test]
    fn a_difference_is_named_with_both_values() {
        let found = on_ranks(3, |ranks| {
            let base = if ranks.rank() == 2 { "ab12" } else { "cd34" };
            check_same(ranks, &[("program", "1".into()), ("base", base.into())]).map_err(|e| e.to_string())
        });
        let said = "the ranks must work on the same things: rank 0 has the base cd34, and rank 2 the base ab12";
        assert!(found.iter().all(|result| result.as_ref().is_err_and(|e| e == said)), "{found:?}");
        check_same(&OneRank, &[("base", "x".to_string())]).unwrap();
    }
}
