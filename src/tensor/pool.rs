//! Host memory that is used again: the buffers of freed tensors wait in a pool, because fresh pages from the system cost more than the
//! loop that fills them.

use half::{bf16, f16};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Vectors that wait to be used again, by capacity.
type Free<T> = BTreeMap<usize, Vec<Vec<T>>>;

/// An element type with a pool of its own.
pub trait Poolable: Copy + Default + 'static {
    /// NaN, or the largest integer. Debug builds fill new buffers with it, so that an element that no loop wrote is noticed.
    const POISON: Self;
    /// The free vectors of this type.
    fn free() -> &'static Mutex<Free<Self>>;
}

macro_rules! poolable {
    ($($type:ident $poison:expr),*) => {$(
        impl Poolable for $type {
            const POISON: $type = $poison;
            fn free() -> &'static Mutex<Free<$type>> {
                static FREE: Mutex<Free<$type>> = Mutex::new(BTreeMap::new());
                &FREE
            }
        }
    )*};
}
poolable!(f32 f32::NAN, f64 f64::NAN, bf16 bf16::NAN, f16 f16::NAN, u32 u32::MAX);

/// A buffer of elements. One that came from the pool goes back to it when it is dropped; one that was a `Vec` is freed. Buffers from the pool
/// start at a cache line, so that no vector load crosses two lines.
#[derive(Debug)]
pub struct Pooled<T: Poolable> {
    all: Vec<T>,
    /// Elements before the first cache line.
    start: usize,
    from_pool: bool,
}

impl<T: Poolable> From<Vec<T>> for Pooled<T> {
    fn from(all: Vec<T>) -> Self {
        Pooled { all, start: 0, from_pool: false }
    }
}

impl<T: Poolable> Deref for Pooled<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.all[self.start..]
    }
}

impl<T: Poolable> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.all[self.start..]
    }
}

impl<T: Poolable> Drop for Pooled<T> {
    fn drop(&mut self) {
        if self.from_pool {
            let all = std::mem::take(&mut self.all);
            lock().entry(all.capacity()).or_default().push(all);
        }
    }
}

fn lock<T: Poolable>() -> MutexGuard<'static, Free<T>> {
    // If a thread panicked while it held the lock, the lists still contain whole vectors.
    T::free().lock().unwrap_or_else(PoisonError::into_inner)
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
pub fn alloc<T: Poolable>(len: usize) -> Pooled<T> {
    if len < SMALLEST {
        return vec![T::default(); len].into();
    }
    let class = size_class(len + LINE / size_of::<T>());
    let found = {
        let mut free = lock::<T>();
        // Lengths vary from batch to batch, so any free vector up to twice as long will do.
        let found = free.range_mut(class..=2 * class).find_map(|(_, list)| list.pop());
        if found.is_none() {
            // The longest shorter vector goes back to the allocator. Batches that grow would otherwise leave vectors that nobody asks for.
            free.range_mut(class / 2..class).rev().find_map(|(_, list)| list.pop());
        }
        found
    };
    let mut all = found.unwrap_or_else(|| Vec::with_capacity(class));
    let start = (all.as_ptr().addr().wrapping_neg() % LINE) / size_of::<T>();
    all.resize(start + len, T::default());
    if cfg!(debug_assertions) {
        all.fill(T::POISON);
    }
    Pooled { all, start, from_pool: true }
}

/// A buffer of `len` zeros.
pub fn zeroed<T: Poolable>(len: usize) -> Pooled<T> {
    let mut buffer = alloc(len);
    buffer.fill(T::default());
    buffer
}
