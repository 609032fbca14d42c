//! Where the numbers of a tensor live: pooled host memory, or a file mapped into memory.

use super::{DType, Element};
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard};

/// Memory that holds the elements of one or more tensors.
#[derive(Debug)]
pub enum Storage {
    /// Host memory from the pool.
    Host(Host),
    /// Part of a mapped file.
    Mapped(Mapped),
    /// Memory of a GPU.
    #[cfg(feature = "cuda")]
    Cuda(super::cuda::OnDevice),
}

impl Storage {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            Storage::Host(Host::F32(v)) => size_of_val(&**v),
            Storage::Host(Host::F64(v)) => size_of_val(&**v),
            Storage::Host(Host::BF16(v)) => size_of_val(&**v),
            Storage::Host(Host::F16(v)) => size_of_val(&**v),
            Storage::Host(Host::U32(v)) => size_of_val(&**v),
            Storage::Mapped(m) => m.bytes.len(),
            #[cfg(feature = "cuda")]
            Storage::Cuda(c) => c.buffer.bytes(),
        }
    }

    pub(super) fn dtype(&self) -> DType {
        match self {
            Storage::Host(Host::F32(_)) => DType::F32,
            Storage::Host(Host::F64(_)) => DType::F64,
            Storage::Host(Host::BF16(_)) => DType::BF16,
            Storage::Host(Host::F16(_)) => DType::F16,
            Storage::Host(Host::U32(_)) => DType::U32,
            Storage::Mapped(m) => m.dtype,
            #[cfg(feature = "cuda")]
            Storage::Cuda(c) => c.dtype,
        }
    }
}

/// Host memory of one element type.
#[derive(Debug)]
pub enum Host {
    /// 32-bit floats.
    F32(Pooled<f32>),
    /// 64-bit floats.
    F64(Pooled<f64>),
    /// bfloat16.
    BF16(Pooled<bf16>),
    /// IEEE half.
    F16(Pooled<f16>),
    /// Unsigned integers.
    U32(Pooled<u32>),
}

/// A range of bytes of a mapped file, aligned for its data type.
#[derive(Debug)]
pub struct Mapped {
    pub(super) map: Arc<memmap2::Mmap>,
    pub(super) bytes: Range<usize>,
    pub(super) dtype: DType,
}

/// A vector that, if it came from the pool, goes back to it when dropped: others would pile up there. What the pool gives out starts at a cache line, so
/// that no vector load crosses two.
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
        let v = std::mem::take(&mut self.all);
        if self.from_pool {
            T::free_lists().lock().entry(v.capacity()).or_default().push(v);
        }
    }
}

/// Vectors that wait to be used again, by capacity.
pub struct FreeLists<T>(Mutex<BTreeMap<usize, Vec<Vec<T>>>>);

impl<T> FreeLists<T> {
    pub(super) const fn new() -> Self {
        FreeLists(Mutex::new(BTreeMap::new()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<Vec<T>>>> {
        // A panic while the lock was held leaves lists of whole vectors: they stay usable.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Smaller vectors are left to the allocator.
const SMALLEST: usize = 1024;

/// Capacities come in steps of an eighth of a power of two, so a vector is at most 1/8 too long and varying shapes share few classes.
fn size_class(len: usize) -> usize {
    let step = len.max(SMALLEST).next_power_of_two() / 16;
    len.max(SMALLEST).div_ceil(step) * step
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// A vector of `len` elements with arbitrary values (NaN in debug builds, so that an element that no kernel wrote is noticed).
pub fn alloc<T: Element>(len: usize) -> Pooled<T> {
    if len < SMALLEST {
        return vec![T::default(); len].into();
    }
    let class = size_class(len + LINE / size_of::<T>());
    // Any free vector up to twice as long will do: lengths vary from batch to batch. If there is none, the longest shorter one goes back to
    // the allocator, or batches that grow would leave a trail of vectors that nothing asks for any more.
    let found = {
        let mut lists = T::free_lists().lock();
        let found = lists.range_mut(class..=2 * class).find_map(|(_, list)| list.pop());
        if found.is_none() {
            lists.range_mut(class / 2..class).rev().find_map(|(_, list)| list.pop());
        }
        found
    };
    let mut all = found.unwrap_or_else(|| Vec::with_capacity(class));
    let start = (all.as_ptr().addr().wrapping_neg() % LINE) / size_of::<T>();
    all.resize(start + len, T::default());
    #[cfg(debug_assertions)]
    if let Ok(poison) = T::read_from_bytes(&[0xFF; 8][..size_of::<T>()]) {
        all.fill(poison);
    }
    Pooled { all, start, from_pool: true }
}

/// A vector of `len` zeros.
pub fn zeroed<T: Element>(len: usize) -> Pooled<T> {
    let mut v = alloc(len);
    v.fill(T::default());
    v
}
