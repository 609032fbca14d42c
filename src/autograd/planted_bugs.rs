//! Would the gradient check notice a wrong backward? A planted bug is a wrong gradient that is put into a right op on purpose.
//!
//! The op's backward runs, and then one of its gradients is made wrong. The check must report an error above the tolerance of the op's
//! suite. `lowrank gradcheck --plant-bug OP` counts how many bugs of each kind are caught.

use super::gradcheck::Suite;
use crate::Result;
use crate::tensor::{DType, Tensor, philox::Stream};

/// A kind of wrong gradient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A flipped sign.
    Sign,
    /// A factor of 1.001.
    Factor,
    /// The element of the largest magnitude set to 0.
    Zeroed,
    /// Two rows exchanged, as by a wrong index; a single row is rotated.
    Moved,
}

impl Bug {
    /// All kinds.
    pub const ALL: [Bug; 4] = [Bug::Sign, Bug::Factor, Bug::Zeroed, Bug::Moved];

    /// Puts this bug into the gradient `g` of rows of `cols` elements. `Zeroed` and `Moved` act on the largest element and on its row,
    /// because a change of small elements might not show.
    fn spoil(self, g: &mut [f64], cols: usize) {
        let Some(largest) = (0..g.len()).max_by(|&a, &b| g[a].abs().total_cmp(&g[b].abs())) else { return };
        match self {
            Bug::Sign => g.iter_mut().for_each(|x| *x = -*x),
            Bug::Factor => g.iter_mut().for_each(|x| *x *= 1.001),
            Bug::Zeroed => g[largest] = 0.0,
            // A single row is rotated by one element.
            Bug::Moved if g.len() == cols => g.rotate_right(1),
            // The row of the largest element and the next row are exchanged.
            Bug::Moved => {
                let (a, b) = (largest / cols, (largest / cols + 1) % (g.len() / cols));
                (0..cols).for_each(|j| g.swap(a * cols + j, b * cols + j));
            }
        }
    }
}

impl Suite {
    /// Plants each kind of bug in each gradient of `cases` cases. Returns (kind, bugs caught, bugs that changed the gradient) for each
    /// kind.
    ///
    /// # Errors
    /// Those of the op.
    pub fn plant_bugs(&self, cases: usize, seed: u64) -> Result<Vec<(Bug, usize, usize)>> {
        let mut counts: Vec<_> = Bug::ALL.iter().map(|&bug| (bug, 0, 0)).collect();
        let mut random = Stream::new(seed, self.op);
        for _ in 0..cases {
            let case = (self.case)(&mut random)?;
            for input in (0..case.inputs.len()).filter(|&i| case.inputs[i].dtype() == DType::F64) {
                let needs: Vec<bool> = (0..case.inputs.len()).map(|i| i == input).collect();
                for (bug, caught, planted) in &mut counts {
                    // Whether the bug changed an element by more than 1e-7, far more than a rounding error. If not, as for a zero that is
                    // set to 0, it is no bug, and does not count.
                    let mut changed = false;
                    let mut spoil = |g: Tensor| {
                        let (right, mut wrong) = (g.host::<f64>()?, g.to_f64()?);
                        bug.spoil(&mut wrong, g.shape().cols());
                        changed |= wrong.iter().zip(right).any(|(a, b)| (a - b).abs() > 1e-7);
                        Tensor::new(wrong, g.shape())
                    };
                    // Three draws, as in `gradcheck::check`: in a single one, the factor of the wrong element may be near 0 by chance.
                    let mut reported = false;
                    for _ in 0..3 {
                        let error = case.check(&needs, &mut random, &mut spoil)?.error;
                        reported |= error.is_nan() || error > self.tolerance;
                    }
                    if changed {
                        *planted += 1;
                        *caught += usize::from(reported);
                    }
                }
            }
        }
        Ok(counts)
    }
}
