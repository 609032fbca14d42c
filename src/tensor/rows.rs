//! Splits work over threads. Nothing else does, except `data::stream`, which reads and encodes at the same time.
//!
//! Work is cut into pieces of a fixed size, so the result does not depend on the number of threads.

use rayon::prelude::*;

/// Uses `n` threads from now on. Without this call there is one thread for each core. The number changes no result.
///
/// # Errors
/// If something was computed before this call, or the system cannot start the threads.
pub fn use_threads(n: usize) -> crate::Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(n).build_global().map_err(|e| crate::Error::invalid(format!("threads: {e}")))
}

/// The number of threads.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Elements of a task. Fewer would take less time than starting the task.
const GRAIN: usize = 16 * 1024;

fn rows_per_piece(cols: usize) -> usize {
    GRAIN.div_ceil(cols.max(1))
}

/// Calls `f(first_row, rows)` for groups of whole rows of `out`, `[.., cols]`.
pub fn for_each<T: Send>(out: &mut [T], cols: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let rows = rows_per_piece(cols);
    let piece = rows * cols.max(1);
    if out.len() <= piece {
        return f(0, out);
    }
    out.par_chunks_mut(piece).enumerate().for_each(|(i, chunk)| f(i * rows, chunk));
}

/// Calls `f(i, part)` for parts of `piece` elements of `out`, with all threads if `parallel`.
pub fn for_chunks<T: Send>(out: &mut [T], piece: usize, parallel: bool, f: impl Fn(usize, &mut [T]) + Sync) {
    match parallel {
        true => out.par_chunks_mut(piece.max(1)).enumerate().for_each(|(i, piece)| f(i, piece)),
        false => out.chunks_mut(piece.max(1)).enumerate().for_each(|(i, piece)| f(i, piece)),
    }
}

/// Calls `f(i)` for i in 0..n, with all threads if `parallel`.
pub fn for_tasks(n: usize, parallel: bool, f: impl Fn(usize) + Sync + Send) {
    match parallel {
        true => (0..n).into_par_iter().for_each(f),
        false => (0..n).for_each(f),
    }
}

/// An output and its number of columns. It is empty if nobody needs it.
pub type Rows<'a, T> = (&'a mut [T], usize);

/// Calls `f(first_row, a_rows, b_rows, c_rows)` for the same rows of three outputs. An empty output gives empty groups.
pub fn for_each3<A: Send, B: Send, C: Send>(
    a: Rows<A>,
    b: Rows<B>,
    c: Rows<C>,
    f: impl Fn(usize, &mut [A], &mut [B], &mut [C]) + Sync + Send,
) {
    let rows = rows_per_piece(a.1);
    let (mut b_rows, mut c_rows) = (b.0.chunks_mut((rows * b.1).max(1)), c.0.chunks_mut((rows * c.1).max(1)));
    let groups = a.0.chunks_mut((rows * a.1).max(1)).enumerate();
    let groups = groups.map(|(i, a)| (i * rows, a, b_rows.next().unwrap_or_default(), c_rows.next().unwrap_or_default()));
    groups.collect::<Vec<_>>().into_par_iter().for_each(|(first, a, b, c)| f(first, a, b, c));
}

/// Computes `f` for groups of the rows `0..rows`, each of `cols` elements, and combines the results with `add`, in the order of the rows.
/// `None` if there are no rows.
pub fn reduce<S: Send>(
    rows: usize,
    cols: usize,
    f: impl Fn(std::ops::Range<usize>) -> S + Sync + Send,
    mut add: impl FnMut(&mut S, S),
) -> Option<S> {
    let step = rows_per_piece(cols);
    let parts: Vec<S> = (0..rows.div_ceil(step)).into_par_iter().map(|i| f(i * step..((i + 1) * step).min(rows))).collect();
    let mut parts = parts.into_iter();
    let mut sum = parts.next()?;
    parts.for_each(|part| add(&mut sum, part));
    Some(sum)
}

/// `f` of each item, with all threads. The results have the order of the items.
pub fn map<T: Send, S: Send>(items: Vec<T>, f: impl Fn(T) -> S + Sync + Send) -> Vec<S> {
    items.into_par_iter().map(f).collect()
}
