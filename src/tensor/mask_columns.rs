//! The factors of a dropout mask, drawn down the rows of a few columns: what attention needs.

use super::philox_columns::Columns;
use super::{Accum, Mask};

impl Mask {
    /// Draws the factors of `rows` rows of `example` from `first` on, four columns at a time.
    pub fn columns<T: Accum>(&self, example: u32, first: u32, rows: usize) -> MaskColumns<T> {
        let draws = Columns::new(self.seed, first, rows, [self.site, example]);
        MaskColumns { draws, threshold: self.threshold(), keep: T::of(1.0 / (1.0 - self.p)) }
    }
}

/// The factors of [`Mask::columns`].
pub struct MaskColumns<T> {
    draws: Columns,
    threshold: u32,
    keep: T,
}

impl<T: Accum> MaskColumns<T> {
    /// The factors of the columns from 4 · `fourth` on: `to[w][r]` is that of column w of them, row r.
    #[inline(always)]
    pub fn factors(&self, fourth: usize, to: [&mut [T]; 4]) {
        let (threshold, keep) = (self.threshold, self.keep);
        self.draws.draw(fourth as u32, to, move |word| if word >= threshold { keep } else { T::ZERO });
    }
}
