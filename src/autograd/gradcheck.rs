//! Checks a vector-Jacobian product against finite differences, along random directions, in f64.
//!
//! For random u (in the inputs) and v (in the output), ⟨v, J u⟩ from a five-point difference must equal ⟨u, Jᵀ v⟩ from backward. One direction
//! costs four forward passes whatever the size, and a wrong sign, factor or index shows in almost every one.
//! ```
//! use lowrank::autograd::{gradcheck, ops::Gelu};
//! use lowrank::tensor::{Tensor, philox::Stream};
//! use std::rc::Rc;
//!
//! let x = Tensor::new(vec![-1.0, 0.3, 2.0], [3])?;
//! let found = gradcheck::check(Rc::new(Gelu), &[x], &[true], &mut Stream::new(0, "example"))?;
//! assert!(found.error < 1e-8, "{found:?}");
//! # Ok::<(), lowrank::Error>(())
//! ```

use super::{Op, Parameter, Saved, Tape};
use crate::tensor::philox::Stream;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::rc::Rc;

/// What one comparison found.
#[derive(Clone, Debug)]
pub struct Found {
    /// ⟨v, J u⟩ by finite differences.
    pub numeric: f64,
    /// ⟨u, Jᵀ v⟩ by backward.
    pub exact: f64,
    /// |numeric − exact| / ((Σ|uᵢgᵢ| + Σ|vⱼ(Ju)ⱼ|) / 2), with g = Jᵀv; zero for a right backward, up to rounding.
    pub error: f64,
}

/// Step of the five-point stencil: its truncation error h⁴ and rounding error 1e-16/h are both near 1e-12.
const STEP: f64 = 1e-3;

/// Below this, gradients are compared absolutely: a softmax over one key has the gradient 0, and 1e-17 where numbers are rounded.
const SMALLEST_SCALE: f64 = 1e-3;

/// Checks `op` at `inputs` (f64; u32 inputs take no gradient) for the gradients that `needs` asks for.
///
/// # Errors
/// Those of the op, and if an input that needs a gradient is not f64.
pub fn check(op: Rc<dyn Op>, inputs: &[Tensor], needs: &[bool], random: &mut Stream) -> Result<Found> {
    let mut uniform = |t: &Tensor| -> Vec<f64> { (0..t.shape().len()).map(|_| 2.0 * random.uniform() - 1.0).collect() };
    let u: Vec<Option<Vec<f64>>> = inputs.iter().zip(needs).map(|(x, &need)| need.then(|| uniform(x))).collect();

    let moved = |step: f64| -> Result<Vec<f64>> {
        let moved: Result<Vec<Tensor>> = inputs
            .iter()
            .zip(&u)
            .map(|(x, u)| match u {
                Some(u) => Tensor::new(x.host::<f64>()?.iter().zip(u).map(|(x, u)| x + step * u).collect::<Vec<_>>(), x.shape()),
                None => Ok(x.clone()),
            })
            .collect();
        let mut tape = Tape::new();
        let vars: Vec<_> = moved?.iter().map(|x| tape.constant(x)).collect();
        tape.apply(op.clone(), &vars.iter().collect::<Vec<_>>())?.value().to_f64()
    };
    let [a, b, c, d] = [moved(2.0 * STEP)?, moved(STEP)?, moved(-STEP)?, moved(-2.0 * STEP)?];
    let ju: Vec<f64> = (0..a.len()).map(|i| (8.0 * (b[i] - c[i]) - (a[i] - d[i])) / (12.0 * STEP)).collect();

    let parameters: Vec<Parameter> = inputs.iter().map(|x| Parameter::new("input", x.clone())).collect();
    let mut tape = Tape::new();
    let vars: Vec<_> =
        parameters.iter().zip(needs).map(|(p, &need)| if need { tape.parameter(p) } else { tape.constant(p.value()) }).collect();
    let y = tape.apply(op, &vars.iter().collect::<Vec<_>>())?;
    let v = uniform(y.value());
    let grads = tape.vjp(&y, Tensor::new(v.clone(), y.shape())?)?;

    let (mut exact, mut scale) = (0.0, 0.0);
    for (p, u) in parameters.iter().zip(&u) {
        if let Some(u) = u {
            let g = grads.get(p).ok_or_else(|| Error::invalid("gradcheck: a needed gradient did not arrive"))?;
            for (u, g) in u.iter().zip(g.host::<f64>()?) {
                exact += u * g;
                scale += (u * g).abs();
            }
        }
    }
    let numeric: f64 = v.iter().zip(&ju).map(|(v, j)| v * j).sum();
    scale = (scale + v.iter().zip(&ju).map(|(v, j)| (v * j).abs()).sum::<f64>()) / 2.0;
    Ok(Found { numeric, exact, error: (numeric - exact).abs() / scale.max(SMALLEST_SCALE) })
}

/// An op at random inputs.
pub struct Case {
    /// The op with its settings.
    pub op: Rc<dyn Op>,
    /// Its inputs: f64, or u32 where no gradient is defined.
    pub inputs: Vec<Tensor>,
}

/// The gradient checks of one op.
pub struct Suite {
    /// Name of the op's type.
    pub op: &'static str,
    /// Largest error of a right backward: 1e-8 where the op is smooth, 1e-6 where it divides.
    pub tolerance: f64,
    /// Draws a case: random sizes, 1 and odd ones among them.
    pub case: fn(&mut Stream) -> Result<Case>,
}

/// The worst that a suite found.
#[derive(Debug)]
pub struct Worst {
    /// Number of comparisons made.
    pub checks: usize,
    /// The one with the largest error.
    pub found: Found,
    /// Shapes and the pattern of needs of it.
    pub place: String,
}

impl Suite {
    /// Draws `cases` cases and checks each under every pattern of needs (at most 16, drawn, where there are more).
    ///
    /// # Errors
    /// Those of the op. A large error is not an `Err`: compare with [`Suite::tolerance`].
    pub fn run(&self, cases: usize, seed: u64) -> Result<Worst> {
        let mut random = Stream::new(seed, self.op);
        let mut worst = Worst { checks: 0, found: Found { numeric: 0.0, exact: 0.0, error: 0.0 }, place: String::new() };
        for number in 0..cases {
            let case = (self.case)(&mut random)?;
            for needs in patterns(&case.inputs, &mut random) {
                let found = check(case.op.clone(), &case.inputs, &needs, &mut random)?;
                worst.checks += 1;
                if found.error.is_nan() || found.error >= worst.found.error {
                    let shapes: Vec<_> = case.inputs.iter().map(Tensor::shape).collect();
                    worst.place = format!("case {number} of seed {seed}: {} {shapes:?}, needs {needs:?}", case.op.name());
                    worst.found = found;
                }
            }
        }
        Ok(worst)
    }

    /// Plants each kind of bug in each gradient of `cases` cases; returns, for each kind, how many were caught of how many took effect.
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
                    let effect = Rc::new(std::cell::Cell::new(false));
                    let op = Rc::new(Planted { op: case.op.clone(), bug: *bug, input, effect: effect.clone() });
                    // Three directions: one alone may happen to be blind to a single element.
                    let mut seen = false;
                    for _ in 0..3 {
                        let error = check(op.clone(), &case.inputs, &needs, &mut random)?.error;
                        seen |= error.is_nan() || error > self.tolerance;
                    }
                    if effect.get() {
                        *planted += 1;
                        *caught += usize::from(seen);
                    }
                }
            }
        }
        Ok(counts)
    }
}

/// Every non-empty choice of inputs that can take a gradient; a drawn sample where there are more than 16.
fn patterns(inputs: &[Tensor], random: &mut Stream) -> Vec<Vec<bool>> {
    let free: Vec<usize> = (0..inputs.len()).filter(|&i| inputs[i].dtype() == DType::F64).collect();
    let all = 1usize << free.len();
    let pattern = |bits: usize| (0..inputs.len()).map(|i| free.iter().position(|&f| f == i).is_some_and(|b| bits >> b & 1 == 1)).collect();
    if all <= 16 { (1..all).map(pattern).collect() } else { (0..16).map(|_| pattern(1 + random.below(all - 1))).collect() }
}

/// A wrong gradient, to see that the check would notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// The sign flipped.
    Sign,
    /// A factor of 1.001.
    Factor,
    /// One element zeroed.
    Zeroed,
    /// One row moved to the place of its neighbour.
    Moved,
}

impl Bug {
    /// All kinds.
    pub const ALL: [Bug; 4] = [Bug::Sign, Bug::Factor, Bug::Zeroed, Bug::Moved];

    fn spoil(self, g: &[f64], cols: usize) -> Vec<f64> {
        let largest = (0..g.len()).max_by(|&a, &b| g[a].abs().total_cmp(&g[b].abs())).unwrap_or(0);
        match self {
            Bug::Sign => g.iter().map(|x| -x).collect(),
            Bug::Factor => g.iter().map(|x| 1.001 * x).collect(),
            Bug::Zeroed => g.iter().enumerate().map(|(i, &x)| if i == largest { 0.0 } else { x }).collect(),
            Bug::Moved => {
                // The row of the largest element changes places with the next; a single row is rotated by one element.
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

/// An op whose backward returns one wrong gradient.
struct Planted {
    op: Rc<dyn Op>,
    bug: Bug,
    input: usize,
    /// Set when the bug changed a number visibly: a zeroed zero is no bug.
    effect: Rc<std::cell::Cell<bool>>,
}

impl Op for Planted {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        self.op.forward(inputs, needs, saved)
    }

    fn backward(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let mut grads = self.op.backward(saved, dy, needs)?;
        if let Some(g) = &mut grads[self.input] {
            let spoilt = self.bug.spoil(g.host::<f64>()?, g.shape().cols());
            if spoilt.iter().zip(g.host::<f64>()?).any(|(a, b)| (a - b).abs() > 1e-7) {
                self.effect.set(true);
            }
            *g = Tensor::new(spoilt, g.shape())?;
        }
        Ok(grads)
    }
}

/// Uniform random numbers in [-1, 1) of the given shape, for cases.
///
/// # Errors
/// Never for a shape that fits memory.
pub fn random_tensor(random: &mut Stream, dims: &[usize]) -> Result<Tensor> {
    let n = dims.iter().product();
    Tensor::new((0..n).map(|_| 2.0 * random.uniform() - 1.0).collect::<Vec<f64>>(), dims)
}

/// A random size: 1 in a quarter of the draws, else up to `most`.
pub fn random_size(random: &mut Stream, most: usize) -> usize {
    if random.below(4) == 0 { 1 } else { 1 + random.below(most) }
}

#[cfg(test)]
mod tests {
    use crate::autograd::{Op, Saved, ops};
    use crate::tensor::philox::Stream;
    use crate::tensor::{DType, Tensor};
    use proptest::prelude::*;
    use std::rc::Rc;

    proptest! {
        #[test]
        fn every_backward_agrees_with_finite_differences(seed: u64) {
            for suite in crate::testing::suites() {
                let worst = suite.run(1, seed).unwrap();
                prop_assert!(worst.checks > 0, "{} checked nothing", suite.op);
                prop_assert!(worst.found.error <= suite.tolerance, "{}: {worst:?}", suite.op);
            }
        }
    }

    /// Value and gradients of an op, in `dtype`; `None` if the op cannot be had in it.
    fn run(op: &Rc<dyn Op>, inputs: &[Tensor], dy: &Tensor, dtype: DType) -> Option<Vec<Tensor>> {
        let to = |t: &Tensor| if t.dtype() == DType::U32 { t.clone() } else { t.to_dtype(dtype).unwrap() };
        let inputs: Vec<Tensor> = inputs.iter().map(to).collect();
        let needs: Vec<bool> = inputs.iter().map(|t| t.dtype() != DType::U32).collect();
        let mut saved = Saved::default();
        let y = op.forward(&inputs.iter().collect::<Vec<_>>(), &needs, &mut saved).ok()?;
        let grads = op.backward(saved, dy.to_dtype(y.dtype()).unwrap(), &needs).unwrap();
        Some([vec![y], grads.into_iter().flatten().collect()].concat())
    }

    #[test]
    fn every_kernel_agrees_with_its_f64_form() {
        // Relative to the largest number of each tensor. bf16 has 8 bits, and a gradient comes through a few rounded numbers.
        for (dtype, bound) in [(DType::F32, 2e-5), (DType::BF16, 4e-2)] {
            for suite in crate::testing::suites() {
                let mut random = Stream::new(5, suite.op);
                let mut compared = 0;
                for _ in 0..40 {
                    let case = (suite.case)(&mut random).unwrap();
                    // Numbers that both types hold exactly.
                    let exact = |t: &Tensor| {
                        if t.dtype() == DType::U32 { t.clone() } else { t.to_dtype(dtype).unwrap().to_dtype(DType::F64).unwrap() }
                    };
                    let inputs: Vec<Tensor> = case.inputs.iter().map(exact).collect();
                    let mut saved = Saved::default();
                    let shape =
                        case.op.forward(&inputs.iter().collect::<Vec<_>>(), &vec![true; inputs.len()], &mut saved).unwrap().shape().clone();
                    let dy = exact(&super::random_tensor(&mut random, shape.dims()).unwrap());
                    let wanted = run(&case.op, &inputs, &dy, DType::F64).unwrap();
                    let Some(found) = run(&case.op, &inputs, &dy, dtype) else { continue };
                    assert_eq!(found.len(), wanted.len());
                    for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                        let (found, wanted) = (found.to_f64().unwrap(), wanted.to_f64().unwrap());
                        let scale = wanted.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
                        for (a, b) in found.iter().zip(&wanted) {
                            assert!((a - b).abs() <= bound * scale, "{} {dtype} tensor {i}: {a} {b}", suite.op);
                        }
                    }
                    compared += 1;
                }
                // The loss and what trains are computed in the type of sums; a table lookup is told its type.
                let exempt = ["CrossEntropy", "Embedding", "EmbeddingLayerNorm", "Cast", "Subspace"].contains(&suite.op);
                assert!(compared > 0 || exempt, "{} was not compared in {dtype}", suite.op);
            }
        }
    }

    #[test]
    fn every_planted_bug_is_caught() {
        for suite in crate::testing::suites() {
            for (bug, caught, planted) in suite.plant_bugs(12, 1).unwrap() {
                // The gradient of a sum is the same everywhere: moving it changes nothing.
                assert!(planted > 0 || (suite.op, bug) == ("Sum", super::Bug::Moved), "{}: {bug:?} never took effect", suite.op);
                assert_eq!(caught, planted, "{}: {bug:?}", suite.op);
            }
        }
    }

    #[test]
    fn every_op_has_a_suite() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/autograd/ops");
        let suites: Vec<&str> = ops::suites().iter().map(|s| s.op).collect();
        let mut ops = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for rest in text.split("impl Op for ").skip(1) {
                let op = rest.split_whitespace().next().unwrap();
                assert!(suites.contains(&op), "{op} has no gradient check");
                ops += 1;
            }
        }
        assert_eq!(ops, suites.len());
    }
}
