//! The free parts of the device's memory. All work is in one stream, so a part can be handed out again as soon as it is given back: work that
//! still reads it runs before work that will write it.

use std::collections::{BTreeMap, BTreeSet};

/// Memory from the driver. It comes in segments and is handed out in parts.
#[derive(Default)]
pub(super) struct Pool {
    /// Size of each segment, by address.
    segments: BTreeMap<u64, usize>,
    /// Size of each free part, by address. Neighbours in a segment are joined to one part.
    free: BTreeMap<u64, usize>,
    /// The free parts by size.
    sizes: BTreeSet<(usize, u64)>,
}

impl Pool {
    /// Bytes of all segments.
    pub(super) fn reserved(&self) -> usize {
        self.segments.values().sum()
    }

    /// Adds a free segment.
    pub(super) fn add(&mut self, address: u64, size: usize) {
        self.segments.insert(address, size);
        self.put(address, size);
    }

    /// The address of `size` bytes, from the smallest free part that is large enough. The rest of that part stays free.
    pub(super) fn take(&mut self, size: usize) -> Option<u64> {
        let &(found, address) = self.sizes.range((size, 0)..).next()?;
        self.remove(address);
        if found > size {
            self.put(address + size as u64, found - size);
        }
        Some(address)
    }

    /// Takes back a part, and joins it with free neighbours in its segment.
    pub(super) fn give(&mut self, mut address: u64, mut size: usize) {
        let end = address + size as u64;
        if let Some(&after) = self.free.get(&end)
            && !self.segments.contains_key(&end)
        {
            self.remove(end);
            size += after;
        }
        if let Some((&before, &length)) = self.free.range(..address).next_back()
            && before + length as u64 == address
            && !self.segments.contains_key(&address)
        {
            self.remove(before);
            (address, size) = (before, length + size);
        }
        self.put(address, size);
    }

    /// Removes the segments of which no part is in use. Returns their addresses and sizes.
    pub(super) fn remove_idle(&mut self) -> Vec<(u64, usize)> {
        let idle: Vec<(u64, usize)> = self.segments.iter().map(|(&a, &s)| (a, s)).filter(|(a, s)| self.free.get(a) == Some(s)).collect();
        for (address, _) in &idle {
            self.remove(*address);
            self.segments.remove(address);
        }
        idle
    }

    fn put(&mut self, address: u64, size: usize) {
        self.free.insert(address, size);
        self.sizes.insert((size, address));
    }

    fn remove(&mut self, address: u64) {
        if let Some(size) = self.free.remove(&address) {
            self.sizes.remove(&(size, address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Parts never overlap, and each lies in one segment. After all are given back, the segments are whole again. Segments may touch.
        #[test]
        fn parts_do_not_overlap_and_join_again(steps in prop::collection::vec((1usize..40, any::<prop::sample::Index>(), any::<bool>()), 0..120)) {
            let (mut pool, mut next, mut taken) = (Pool::default(), 100u64, Vec::<(u64, usize)>::new());
            for (size, which, give) in steps {
                if give && !taken.is_empty() {
                    let (address, size) = taken.swap_remove(which.index(taken.len()));
                    pool.give(address, size);
                    continue;
                }
                let address = pool.take(size).unwrap_or_else(|| {
                    let segment = size.max(64);
                    pool.add(next, segment);
                    next += segment as u64;
                    pool.take(size).unwrap()
                });
                prop_assert!(taken.iter().all(|&(a, s)| a + s as u64 <= address || address + size as u64 <= a));
                prop_assert!(pool.segments.iter().any(|(&a, &s)| a <= address && address + size as u64 <= a + s as u64));
                taken.push((address, size));
                let free: usize = pool.free.values().sum();
                prop_assert_eq!(free + taken.iter().map(|t| t.1).sum::<usize>(), pool.reserved());
                prop_assert_eq!(pool.free.len(), pool.sizes.len());
            }
            let all = pool.segments.clone();
            taken.drain(..).for_each(|(address, size)| pool.give(address, size));
            prop_assert_eq!(pool.remove_idle().into_iter().collect::<BTreeMap<_, _>>(), all);
            prop_assert!(pool.reserved() == 0 && pool.free.is_empty() && pool.sizes.is_empty());
        }
    }
}
