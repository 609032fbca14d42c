//! Would the gradient check notice a wrong backward? A planted bug is a wrong gradient that is put into a right op on purpose.
//!
//! The op's backward runs, and then one of its gradients is made wrong. The check must report an error above the tolerance of the op's suite. `lowrank gradcheck --plant-bug OP` counts how many bugs of each kind are caught.

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
    /// The largest element set to 0.
    Zeroed,
    /// Two rows exchanged, as by a wrong index.
    Moved,
}

impl Bug {
    /// All kinds.
    pub const ALL: [Bug; 4] = [Bug::Sign, Bug::Factor, Bug::Zeroed, Bug::Moved];

    /// The gradient `g`, of rows of `cols` elements, with this bug. `Zeroed` and `Moved` act on the largest element and on its row, because a
    /// change of small elements might not show.
    fn spoil(self, g: &[f64], cols: usize) -> Vec<f64> {
        let largest = (0..g.len()).max_by(|&a, &b| g[a].abs().total_cmp(&g[b].abs())).unwrap_or(0);
        match self {
            Bug::Sign => g.iter().map(|x| -x).collect(),
            Bug::Factor => g.iter().map(|x| 1.001 * x).collect(),
            Bug::Zeroed => g.iter().enumerate().map(|(i, &x)| if i == largest { 0.0 } else { x }).collect(),
            Bug::Moved => {
                // Exchanges the row of the largest element and the next row. If there is one row only, rotates it by one element.
                let mut g = g.to_vec();
                let rows = g.len() / cols.max(1);
                if rows > 1 {
                    let (a, b) = (largest / cols, (largest / cols + 1) % rows);
                    (0..cols).for_each(|j| g.swap(a * cols + j, b * cols + j));
                } else if !g.is_empty() {
                    g.rotate_right(1);
                }
                g
            }
        }
    }
}

impl Suite {
    /// Plants each kind of bug in each gradient of `cases` cases. Returns (kind, bugs caught, bugs that changed the gradient) for each kind.
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
                    // Whether the bug changed an element by more than 1e-7. (A zero that is set to 0 is no bug.) Rounding errors are far smaller. A
                    // change little above 1e-7 might stay below a tolerance of 1e-6. At the fixed seed of the test none is missed, so it demands all.
                    let mut changed = false;
                    let mut spoil = |g: Tensor| {
                        let (right, cols) = (g.host::<f64>()?, g.shape().cols());
                        let wrong = bug.spoil(right, cols);
                        changed |= wrong.iter().zip(right).any(|(a, b)| (a - b).abs() > 1e-7);
                        Tensor::new(wrong, g.shape())
                    };
                    // `gradcheck::check` makes three draws, too. `Suite::run` makes one for each pattern of `needs`, but over many cases.
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
