//! Work on items that come one after another, on all threads.

use rayon::prelude::*;

/// Items worth a task.
pub(super) const CHUNK: usize = 64;

/// f of each item, in their order. `make` gives each thread an f of its own, which may keep things from one item to the next. A chunk is
/// asked for when a thread is free.
pub(super) fn map_chunks<C, O, F>(chunks: impl Iterator<Item = C> + Send, make: impl Fn() -> F + Sync + Send) -> Vec<O>
where
    C: IntoIterator + Send,
    O: Send,
    F: FnMut(C::Item) -> O,
{
    let work = |f: &mut F, (i, chunk): (usize, C)| (i, chunk.into_iter().map(f).collect::<Vec<O>>());
    let mut made: Vec<(usize, Vec<O>)> = chunks.enumerate().par_bridge().map_init(make, work).collect();
    made.sort_unstable_by_key(|(i, _)| *i);
    made.into_iter().flat_map(|(_, chunk)| chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order() {
        for n in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK + 7] {
            let items: Vec<usize> = (0..n).collect();
            let want: Vec<usize> = items.iter().map(|i| i * i).collect();
            assert_eq!(map_chunks(items.chunks(CHUNK), || |i: &usize| i * i), want);
        }
    }
}
