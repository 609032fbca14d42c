//! Applies a function to a stream of items on all threads.

use rayon::prelude::*;

/// Items of a task.
pub(super) const CHUNK: usize = 64;

/// The function of each item, in the order of the items. `make` returns the function; every thread gets its own, which may have state. A thread
/// takes the next chunk when it is free.
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

/// Bytes after which a task gets no further item. It bounds the memory of the items that wait, however large they are.
#[cfg(feature = "data")]
const CHUNK_BYTES: usize = 1 << 20;

/// [`map_chunks`] of the items that `produce` emits. `produce` runs on its own thread while the others work. It waits when it is a few chunks
/// ahead. `size` is the size of an item in bytes. With one thread, each item is used when it is emitted.
#[cfg(feature = "data")]
pub(super) fn map_produced<I, O, F, E>(
    produce: impl FnOnce(&mut dyn FnMut(I)) -> Result<(), E> + Send,
    size: impl Fn(&I) -> usize + Send,
    make: impl Fn() -> F + Sync + Send,
) -> Result<Vec<O>, E>
where
    I: Send,
    O: Send,
    F: FnMut(I) -> O,
    E: Send,
{
    if rayon::current_num_threads() == 1 {
        let (mut f, mut made) = (make(), Vec::new());
        produce(&mut |item| made.push(f(item)))?;
        return Ok(made);
    }
    let (send, receive) = std::sync::mpsc::sync_channel(8);
    let send_all = move || {
        let (mut chunk, mut bytes) = (Vec::with_capacity(CHUNK), 0);
        produce(&mut |item| {
            bytes += size(&item);
            chunk.push(item);
            if chunk.len() == CHUNK || bytes >= CHUNK_BYTES {
                bytes = 0;
                // This fails only if a worker panicked, and then the result is lost anyway.
                let _ = send.send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK)));
            }
        })?;
        let _ = send.send(chunk);
        Ok(())
    };
    std::thread::scope(|scope| {
        let producer = scope.spawn(send_all);
        let made = map_chunks(receive.into_iter(), make);
        producer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(made)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Produces 0..n.
    #[cfg(feature = "data")]
    fn up_to(n: usize) -> impl FnOnce(&mut dyn FnMut(usize)) -> Result<(), &'static str> + Send {
        move |emit| {
            (0..n).for_each(emit);
            Ok(())
        }
    }

    #[test]
    fn results_are_in_order() {
        for n in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK + 7] {
            let items: Vec<usize> = (0..n).collect();
            let want: Vec<usize> = items.iter().map(|i| i * i).collect();
            assert_eq!(map_chunks(items.chunks(CHUNK), || |i: &usize| i * i), want);
            #[cfg(feature = "data")]
            assert_eq!(map_produced(up_to(n), |_| 8, || |i| i * i), Ok(want));
        }
    }

    #[cfg(feature = "data")]
    #[test]
    fn a_failure_comes_through() {
        let produce = |emit: &mut dyn FnMut(usize)| {
            (0..1000).for_each(emit);
            Err("broken")
        };
        assert_eq!(map_produced(produce, |_| CHUNK_BYTES / 3, || |i| i), Err("broken"));
        let panics = std::panic::catch_unwind(|| map_produced(up_to(10_000), |_| 8, || |i: usize| assert!(i < 100, "too many")));
        assert!(panics.is_err());
    }
}
