//! Dropout masks that are drawn from counters. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", <https://doi.org/10.1145/2063384.2063405>.

use super::philox::philox_row;
use super::simd::vectorised;
use super::{Accum, Scalar, Sequences, alloc, rows};

/// A dropout mask: a pure function of (seed, site, example, row in the sequence, column), so packing, micro-batches, threads and device leave
/// it alone, and it is never stored.
#[derive(Clone, Debug)]
pub struct Mask {
    /// Probability of dropping, in [0, 1).
    pub p: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Which dropout of the model: a static number from its table.
    pub site: u32,
}

impl Mask {
    /// round(p · 2³²): words below it drop.
    pub fn threshold(&self) -> u32 {
        (self.p * 4_294_967_296.0).round().min(f64::from(u32::MAX)) as u32
    }

    /// Writes 0 or 1/(1 − p) for each column of row `row` of `example`. Kept where the random word ≥ round(p · 2³²).
    pub fn factors<T: Accum>(&self, example: u32, row: u32, out: &mut [T]) {
        let threshold = self.threshold();
        let keep = T::of(1.0 / (1.0 - self.p));
        // By value: vector code would gather what it had to read through a reference.
        philox_row(self.seed, [row, self.site, example], out, move |word| if word >= threshold { keep } else { T::ZERO });
    }

    /// Writes the factors of rows `first..` of a packed batch, `cols` to a row.
    pub fn factor_rows<T: Accum>(&self, sequences: &Sequences, first: usize, cols: usize, out: &mut [T]) {
        for (i, out) in out.chunks_exact_mut(cols.max(1)).enumerate() {
            let (b, row) = sequences.locate(first + i);
            self.factors(sequences.example_ids()[b], row as u32, out);
        }
    }

    /// y = f ⊙ x for rows of `cols` elements laid out by `packing`.
    pub fn apply<T: Scalar>(&self, sequences: &Sequences, cols: usize, x: &[T], y: &mut [T]) {
        rows::for_each(y, cols, |first, y| {
            let mut factors = alloc::<T::Acc>(y.len());
            self.factor_rows(sequences, first, cols, &mut factors);
            let x = &x[first * cols..][..y.len()];
            vectorised(|| y.iter_mut().zip(x).zip(&*factors).for_each(|((y, &x), &f)| *y = T::narrow(x.widen() * f)));
        });
    }
}
