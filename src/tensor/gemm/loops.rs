//! Loops 5 to 1 of the product: see the drawing in `gemm/mod.rs`.
#![allow(unsafe_code)]

use super::blocking::{LINE, MC, WORTH_THREADS, columns, depth, tile};
use super::call::{Call, Rows, spread};
use super::mat::Mat;
use super::micro::{self, Operand};
use super::pack::{Packed, Strips};
use super::panels::Panels;
use crate::tensor::element::Elements;
use crate::tensor::simd::{self, Isa, Kernel};
use crate::tensor::{Accum, Pooled, Scalar, alloc, rows};

/// The value to which products are added.
#[derive(Clone, Copy)]
pub enum Init<'a, S> {
    /// Zero: C is overwritten.
    Zero,
    /// C itself.
    Keep,
    /// A bias: one number for each column of C.
    Bias(&'a [S]),
}

impl<S> Init<'_, S> {
    /// C itself if `accumulate`, else zero.
    pub(super) fn of(accumulate: bool) -> Self {
        if accumulate { Init::Keep } else { Init::Zero }
    }
}

/// C by address: element (i, j) is at `data + i · strides[0] + j · strides[1]`. Tasks write disjoint tiles of it.
#[derive(Clone, Copy)]
struct Target<C> {
    data: *mut C,
    strides: [usize; 2],
}

impl<C> Target<C> {
    /// C from row i and column j on. The address may point outside of C, so it must not be read without a check.
    #[inline(always)]
    fn from(self, i: usize, j: usize) -> Self {
        Target { data: self.data.wrapping_add(i * self.strides[0] + j * self.strides[1]), ..self }
    }

    /// Calls `f` with each of the first elements of the first row and the element of `other` at the same index.
    ///
    /// # Safety
    /// The row has `other.len()` elements, and no other task touches them.
    #[inline(always)]
    unsafe fn each<S>(self, other: &mut [S], f: impl Fn(&mut C, &mut S)) {
        if self.strides[1] == 1 {
            // SAFETY: the caller's promise, and the elements of a row are next to each other.
            let row = unsafe { std::slice::from_raw_parts_mut(self.data, other.len()) };
            // A loop, because the closures of iterator methods may be compiled for another instruction set than their caller.
            for (c, other) in row.iter_mut().zip(other) {
                f(c, other);
            }
        } else {
            for (j, other) in other.iter_mut().enumerate() {
                // SAFETY: j is below `other.len()`; the rest is the caller's promise.
                f(unsafe { &mut *self.data.add(j * self.strides[1]) }, other);
            }
        }
    }
}

// SAFETY: the tiles that tasks write do not overlap: `run` gives each task another pair (i0, j0), and checks that rows of C do not overlap.
unsafe impl<C: Send> Send for Target<C> {}
// SAFETY: as above.
unsafe impl<C: Send> Sync for Target<C> {}

/// C = init + Σ A·B: checks the sizes, and runs loops 5 and 4 as tasks. Element (i, j) of C is `c[i · strides[0] + j · strides[1]]`.
pub(super) fn run<S: Accum, C: Scalar<Acc = S>>(
    products: &[(Mat<S>, &Packed<S>)],
    init: Init<S>,
    c: &mut [C],
    strides: [usize; 2],
    parallel: bool,
) {
    let Some(&(a, b)) = products.first() else { return };
    let (m, n, isa) = (a.rows, b.n, b.isa);
    let depth: usize = products.iter().map(|(a, _)| a.cols).sum();
    for (a, b) in products {
        assert!(a.rows == m && b.n == n && a.cols == b.k && b.isa == isa, "gemm: sizes");
    }
    if m == 0 || n == 0 {
        return;
    }
    let last = (m - 1).checked_mul(strides[0]).zip((n - 1).checked_mul(strides[1])).and_then(|(i, j)| i.checked_add(j));
    assert!(last.is_some_and(|last| last < c.len()), "gemm: C [{m}, {n}] with strides {strides:?} does not fit into {} elements", c.len());
    assert!(strides[0] >= n || strides[1] >= m, "gemm: rows of C overlap");
    if let Init::Bias(bias) = init {
        assert_eq!(bias.len(), if strides[1] == 1 { n } else { m }, "gemm: one bias per column");
    }
    let target = Target { data: c.as_mut_ptr(), strides };
    let tile = tile::<S>(isa, n);
    let parallel = parallel && (m * n).saturating_mul(depth.max(1)) > WORTH_THREADS;
    // Loops 5 and 4: over tiles of C, column by column.
    let down = m.div_ceil(MC);
    let nc = columns(n, down, parallel);
    rows::for_tasks(n.div_ceil(nc) * down, parallel, |task| {
        let (i, j) = (task % down * MC, task / down * nc);
        let place = [i, j, MC.min(m - i), nc.min(n - j)];
        if const { size_of::<S>() == 8 } {
            match tile {
                [6, 8] => simd::avx2(Tile::<S, C, 6, 8> { products, init, target, place }),
                _ => Tile::<S, C, 4, 4> { products, init, target, place }.run::<false>(),
            }
        } else {
            match tile {
                [8, 48] => simd::avx512(Tile::<S, C, 8, 48> { products, init, target, place }),
                [12, 32] => simd::avx512(Tile::<S, C, 12, 32> { products, init, target, place }),
                [8, 16] => simd::avx512(Tile::<S, C, 8, 16> { products, init, target, place }),
                [6, 16] => simd::avx2(Tile::<S, C, 6, 16> { products, init, target, place }),
                [12, 8] => simd::avx2(Tile::<S, C, 12, 8> { products, init, target, place }),
                _ => Tile::<S, C, 4, 8> { products, init, target, place }.run::<false>(),
            }
        }
    });
}

/// A task: the tile of C at row `place[0]` and column `place[1]`, with `place[2]` rows and `place[3]` columns. It lies inside C.
struct Tile<'a, S: Accum, C, const MR: usize, const NR: usize> {
    products: &'a [(Mat<'a, S>, &'a Packed<S>)],
    init: Init<'a, S>,
    target: Target<C>,
    place: [usize; 4],
}

/// The value to which the products of one block are added.
#[derive(Clone, Copy)]
enum Onto<'a, S> {
    /// Zero.
    Zero,
    /// One number for each column of C.
    Columns(&'a [S]),
    /// One number for each row of C, where C is computed transposed.
    Rows(&'a [S]),
    /// The sums of the blocks before. The address is that of the task's first row and column.
    Sums(Target<S>),
}

/// A block of A, the same rows of B, and the value to which their product is added.
struct Block<'a, S, T> {
    panels: Panels<T>,
    /// All strips of B.
    strips: &'a [T],
    /// The rows of B, the first one of the block, and their number.
    inner: [usize; 3],
    onto: Onto<'a, S>,
}

impl<S: Accum, C: Scalar<Acc = S>, const MR: usize, const NR: usize> Kernel for Tile<'_, S, C, MR, NR> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let [i0, j0, m, n] = self.place;
        let c = self.target.from(i0, j0);
        let blocks: usize = self.products.iter().map(|(a, b)| a.cols.max(1).div_ceil(depth(b.isa))).sum();
        // If C is bf16, the sums between blocks are kept in a buffer of their own. They are rounded once, with the last block.
        let narrow = C::DTYPE != S::DTYPE;
        let mut wide = alloc::<S>(if narrow && (blocks > 1 || matches!(self.init, Init::Keep)) { m * n } else { 0 });
        if let (true, Init::Keep) = (narrow, self.init) {
            for (i, row) in wide.chunks_exact_mut(n).enumerate() {
                // SAFETY: the tile has row i and n columns, and belongs to this task.
                unsafe { c.from(i, 0).each(row, |c, to| *to = c.widen()) };
            }
        }
        let sums = match narrow {
            true => Target { data: wide.as_mut_ptr(), strides: [n, 1] },
            // C's type is S, so the sums stay in C.
            false => Target { data: c.data.cast(), strides: c.strides },
        };
        let mut onto = match self.init {
            Init::Zero => Onto::Zero,
            Init::Bias(bias) if c.strides[1] == 1 => Onto::Columns(bias),
            Init::Bias(bias) => Onto::Rows(bias),
            Init::Keep => Onto::Sums(sums),
        };
        let (mut a_wide, mut a_pairs) = (Pooled::from(Vec::new()), Pooled::from(Vec::new()));
        let mut block = 0;
        // Loop 3: blocks of the inner dimension, of one product after another.
        for &(a, b) in self.products {
            let deepest = depth(b.isa);
            for k0 in (0..a.cols.max(1)).step_by(deepest) {
                let a = a.rows_from(i0, m).cols_from(k0, deepest.min(a.cols - k0));
                let inner = [b.k, k0, a.cols];
                block += 1;
                let last = (block == blocks && narrow).then_some(c);
                match (&b.strips, a.data) {
                    (Strips::Pairs(strips), Elements::BF16(data)) => {
                        let block = Block { panels: Panels::pairs::<S, MR>(a, data, &mut a_pairs), strips, inner, onto };
                        match last {
                            Some(c) => self.sweep::<_, _, FMA>(&block, c),
                            None => self.sweep::<_, _, FMA>(&block, sums),
                        }
                    }
                    (Strips::Wide(strips), _) => {
                        let block = Block { panels: Panels::wide::<MR>(a, n, &mut a_wide), strips, inner, onto };
                        match last {
                            Some(c) => self.sweep::<_, _, FMA>(&block, c),
                            None => self.sweep::<_, _, FMA>(&block, sums),
                        }
                    }
                    (Strips::Pairs(_), Elements::Same(_)) => panic!("gemm: B was packed for a product with bf16"),
                }
                onto = Onto::Sums(sums);
            }
        }
    }
}

impl<S: Accum, C: Scalar<Acc = S>, const MR: usize, const NR: usize> Tile<'_, S, C, MR, NR> {
    /// Loops 2 and 1: `to = onto + A·B` for a block.
    #[inline(always)]
    fn sweep<T: Operand<S>, D: Scalar<Acc = S>, const FMA: bool>(&self, block: &Block<S, T>, to: Target<D>) {
        let &Block { ref panels, strips, inner, onto } = block;
        let [_, j0, m, n] = self.place;
        let [k, k0, kc] = inner.map(|rows| rows.next_multiple_of(T::AT_ONCE));
        let isa = self.products[0].1.isa;
        // The tests also run the blocking of an instruction set that the processor lacks.
        let hardware = if isa <= simd::widest() { isa } else { Isa::Portable };
        // A row of zeros for tiles without a start, and a tile for sums that cannot go straight to `to`: tiles at the border, and a transposed C.
        let (mut zero, mut part) = ([S::ZERO; NR], [[S::ZERO; NR]; MR]);
        let zeros = Rows { at: zero.as_mut_ptr(), stride: 0 };
        // Elements of the next strip that one call prefetches.
        let part_ahead = kc.div_ceil(const { spread::<S>(MR, NR) } * T::AT_ONCE) * (LINE / size_of::<T>());
        // Loop 2: strips of B.
        for j in (0..n).step_by(NR) {
            let at = ((j0 + j) / NR * k + k0) * NR;
            let strip = &strips[at..][..kc * NR];
            // Loop 1: rows of A.
            for i in (0..m).step_by(MR) {
                // Each call prefetches another part of the next strip.
                let ahead = strips.as_ptr().wrapping_add(at + NR * k + i / MR * part_ahead);
                // The lines of C arrive while the tile is computed.
                if to.strides[1] == 1 {
                    for r in 0..MR {
                        let row = to.from(i + r, j).data;
                        (0..NR).step_by(LINE / size_of::<D>()).for_each(|line| simd::prefetch(row.wrapping_add(line)));
                    }
                }
                let height = MR.min(m - i);
                // If `to` is row-major, so are the sums.
                let start = match onto {
                    Onto::Zero => Some(zeros),
                    Onto::Sums(sums) => Some(Rows { at: sums.from(i, j).data, stride: sums.strides[0] }),
                    Onto::Columns(bias) => bias[j0 + j..].first_chunk::<NR>().map(|b| Rows { at: b.as_ptr().cast_mut(), stride: 0 }),
                    Onto::Rows(_) => None,
                };
                let (a, step) = (panels.rows(i), panels.step);
                if let Some(start) = start.filter(|_| to.strides[1] == 1 && j + NR <= n) {
                    let to = Rows { at: to.from(i, j).data, stride: to.strides[0] };
                    // SAFETY: `panels` has the rows and columns of the block; the strip has `kc` rows; the whole tile at (i, j) lies in the
                    // task's tile; the processor has `hardware`.
                    unsafe { micro::tile::<T, S, D, MR, NR, FMA>(hardware, &Call { a, step, b: strip, ahead, start, to, height }) };
                } else {
                    let to_part = Rows { at: part.as_mut_ptr().cast(), stride: NR };
                    // SAFETY: as above, but the sums go to `part`, which is a whole tile. `store` copies the part that lies in the task's tile.
                    unsafe {
                        micro::tile::<T, S, S, MR, NR, FMA>(
                            hardware,
                            &Call { a, step, b: strip, ahead, start: zeros, to: to_part, height },
                        );
                        self.store(&part, onto, to, [i, j]);
                    }
                }
            }
        }
    }

    /// `to = onto + sums` for the part of the register tile at (i, j) that lies in the task's tile.
    ///
    /// # Safety
    /// `onto` and `to` have the rows and columns of the task's tile, and no other task touches them.
    #[inline(always)]
    unsafe fn store<D: Scalar<Acc = S>>(&self, sums: &[[S; NR]; MR], onto: Onto<S>, to: Target<D>, [i, j]: [usize; 2]) {
        let [i0, j0, m, n] = self.place;
        let cols = NR.min(n - j);
        for (r, sums) in sums.iter().enumerate().take(m - i) {
            let mut row = [S::ZERO; NR];
            // SAFETY: row i + r < m, and j + cols ≤ n, so these elements lie in the task's tile.
            match onto {
                Onto::Zero => {}
                Onto::Sums(old) => unsafe { old.from(i + r, j).each(&mut row[..cols], |old, to| *to = *old) },
                Onto::Columns(bias) => row[..cols].copy_from_slice(&bias[j0 + j..][..cols]),
                Onto::Rows(bias) => row = [bias[i0 + i + r]; NR],
            }
            for (to, &sum) in row.iter_mut().zip(sums) {
                *to += sum;
            }
            // SAFETY: as above.
            unsafe { to.from(i + r, j).each(&mut row[..cols], |to, &mut sum| *to = D::narrow(sum)) };
        }
    }
}
