//! Host memory that is used again: the buffers of freed tensors wait in a pool, because fresh pages from the system cost more than the
//! loop that fills them.

use super::{DType, Element};
use std::any::Any;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zerocopy::IntoBytes;

/// Vectors that wait to be used again, by data type and capacity.
type Free = BTreeMap<(DType, usize), Vec<Box<dyn Any + Send>>>;

/// A buffer of elements. One that came from the pool goes back to it when it is dropped; one that was a `Vec` is freed. Buffers from the pool
/// start at a cache line, so that no vector load crosses two lines.
#[derive(Debug)]
pub struct Pooled<T: Element> {
    all: Vec<T>,
    /// Elements before the first cache line.
    start: usize,
    from_pool: bool,
}

impl<T: Element> From<Vec<T>> for Pooled<T> {
    fn from(all: Vec<T>) -> Self {
        Pooled { all, start: 0, from_pool: false }
    }
}

impl<T: Element> Deref for Pooled<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.all[self.start..]
    }
}

impl<T: Element> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.all[self.start..]
    }
}

impl<T: Element> Drop for Pooled<T> {
    fn drop(&mut self) {
        if self.from_pool {
            let all = std::mem::take(&mut self.all);
            lock().entry((T::DTYPE, all.capacity())).or_default().push(Box::new(all));
        }
    }
}

fn lock() -> MutexGuard<'static, Free> {
    static FREE: Mutex<Free> = Mutex::new(BTreeMap::new());
    // If a thread panicked while it held the lock, the lists still contain whole vectors.
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Elements. Smaller vectors come from the allocator.
const SMALLEST: usize = 1024;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The capacity for `len` elements: a multiple of an eighth of a power of two. A vector is at most 1/8 too long, and many lengths share few
/// capacities.
fn size_class(len: usize) -> usize {
    let step = len.max(SMALLEST).next_power_of_two() / 16;
    len.max(SMALLEST).div_ceil(step) * step
}

/// A buffer of `len` elements with arbitrary values.
pub fn alloc<T: Element>(len: usize) -> Pooled<T> {
    if len < SMALLEST {
        return vec![T::default(); len].into();
    }
    let class = size_class(len + LINE / size_of::<T>());
    let found = {
        let mut free = lock();
        let of = |capacity| (T::DTYPE, capacity);
        // Lengths vary from batch to batch, so any free vector up to twice as long will do.
        let found = free.range_mut(of(class)..=of(2 * class)).find_map(|(_, list)| list.pop());
        if found.is_none() {
            // The longest shorter vector goes back to the allocator. Batches that grow would otherwise leave vectors that nobody asks for.
            free.range_mut(of(class / 2)..of(class)).rev().find_map(|(_, list)| list.pop());
        }
        found
    };
    let mut all = found.and_then(|any| any.downcast().ok()).map_or_else(|| Vec::with_capacity(class), |all: Box<Vec<T>>| *all);
    let start = (all.as_ptr().addr().wrapping_neg() % LINE) / size_of::<T>();
    all.resize(start + len, T::default());
    if cfg!(debug_assertions) {
        // NaN, or the largest integer, so that an element that no loop wrote is noticed.
        all.as_mut_bytes().fill(0xFF);
    }
    Pooled { all, start, from_pool: true }
}

/// A buffer of `len` zeros.
pub fn zeroed<T: Element>(len: usize) -> Pooled<T> {
    let mut buffer = alloc(len);
    buffer.fill(T::default());
    buffer
}
