//! Dropout masks, drawn from a counter-based random generator: see `philox.rs`.

use super::philox_row::philox_row;
use super::simd::vectorised;
use super::{Accum, Scalar, Sequences, alloc, rows};

/// A dropout mask. Each factor is a function of p and (seed, site, example, row, column), and of nothing else. The row is that in its
/// sequence; in attention (step 8), it is head · 2¹⁶ + query. So the mask does not depend on packing, micro-batches, threads or device, and
/// need not be stored: backward draws it again. (Some GPU kernels store it, where drawing costs more: see attention.)
#[derive(Clone, Debug)]
pub struct Mask {
    /// Probability of dropping, in [0, 1).
    pub p: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Number of this dropout in the model: each place where the model drops has its own.
    pub site: u32,
}

impl Mask {
    /// round(p · 2³²). Random words below it drop.
    pub fn threshold(&self) -> u32 {
        (self.p * 4_294_967_296.0).round().min(f64::from(u32::MAX)) as u32
    }

    /// Writes the factor of each column of row `row` of `example`: 0 if it is dropped, else 1 / (1 − p). Column j uses word j mod 4 of
    /// `philox(seed, [j / 4, row, site, example])`; `philox_row` computes the words of all columns.
    pub fn factors<T: Accum>(&self, example: u32, row: u32, out: &mut [T]) {
        let threshold = self.threshold();
        let keep = T::of(1.0 / (1.0 - self.p));
        philox_row(self.seed, [row, self.site, example], out, move |word| if word >= threshold { keep } else { T::ZERO });
    }

    /// Writes the factors of the rows from `first` on of a packed batch. Each row has `cols` columns.
    pub fn factor_rows<T: Accum>(&self, sequences: &Sequences, first: usize, cols: usize, out: &mut [T]) {
        for (i, out) in out.chunks_exact_mut(cols.max(1)).enumerate() {
            let (b, row) = sequences.locate(first + i);
            self.factors(sequences.example_ids()[b], row as u32, out);
        }
    }

    /// y = f ⊙ x, where f are the factors. x and y are `[T, cols]`.
    pub fn apply<T: Scalar>(&self, sequences: &Sequences, cols: usize, x: &[T], y: &mut [T]) {
        rows::for_each(y, cols, |first, y| {
            let mut factors = alloc::<T::Acc>(y.len());
            self.factor_rows(sequences, first, cols, &mut factors);
            let x = &x[first * cols..][..y.len()];
            vectorised(|| y.iter_mut().zip(x).zip(&*factors).for_each(|((y, &x), &f)| *y = T::narrow(x.widen() * f)));
        });
    }
}
