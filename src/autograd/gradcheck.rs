//! Compares backward with finite differences, in f64.
//!
//! Let J = ∂y/∂x be the Jacobian of y = f(x). Forward alone gives J u for a direction u: a difference of f along u. Backward gives Jᵀ v for
//! a cotangent v. For every u and v, ⟨v, J u⟩ = ⟨u, Jᵀ v⟩. Both are drawn at random, so a wrong sign, factor or index in backward shows in
//! almost every draw. One direction costs a few forward passes, whatever the size of x.
//!
//! The function f may be an op, a layer, or a model with its loss. See [`check`].
//!
//! A small error shows that backward computes the derivative of forward, near the inputs that were drawn. It does not show
//! - that forward computes the right function;
//! - anything at a kink (the 0 of max(0, x)), at which there is no derivative, or far from the inputs that were drawn;
//! - that the code for f32, bf16 and GPUs is right: other tests compare it with the code for f64;
//! - anything about a number that f takes as a constant, although it trains elsewhere: the check does not change it.
//!
//! Would the check notice a wrong backward? [`Suite::plant_bugs`] (`planted_bugs.rs`) plants wrong gradients, and counts how many are
//! caught.

use super::{Op, ParamId, Tape, Var};
use crate::tensor::philox::Stream;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What one comparison found.
#[derive(Clone, Debug)]
pub struct Found {
    /// ⟨v, J u⟩, with J u from finite differences of forward.
    pub numeric: f64,
    /// ⟨u, Jᵀ v⟩, with Jᵀ v from backward.
    pub backward: f64,
    /// |numeric − backward| / scale; near zero if backward is right.
    ///
    /// The two numbers are the sums Σ uᵢgᵢ, with g = Jᵀ v, and Σ vⱼ(J u)ⱼ. The scale is (Σ|uᵢgᵢ| + Σ|vⱼ(J u)ⱼ|) / 2, because rounding
    /// errors grow with the terms. The sums themselves are no good scale: their terms may cancel.
    pub error: f64,
}

/// Length of a step along u. The difference has a truncation error of order step⁴ and a rounding error of order 1e-16 / step.
const STEP: f64 = 2e-3;

/// The smallest scale. If f is constant, its gradient is 0, and the terms are only rounding errors.
const SMALLEST_SCALE: f64 = 1e-3;

/// Checks backward of `f` with respect to `inputs` (f64), and to all parameters that `f` puts on the tape. Returns the worst of three
/// draws: in a single draw, the factor of a wrong element may be near 0 by chance.
///
/// ```
/// # use lowrank::autograd::gradcheck;
/// # use lowrank::tensor::Tensor;
/// let x = Tensor::new(vec![-1.0, 0.3, 2.0], [3])?;
/// let found = gradcheck::check(|tape, x| tape.gelu(x[0]), &[x])?;
/// assert!(found.error < 1e-8, "{found:?}");
/// # Ok::<(), lowrank::Error>(())
/// ```
/// Inputs without a gradient, such as labels, are captured by the closure. A model needs no inputs at all:
/// `check(|tape, _| { let y = model.forward(tape, &ids, &pass)?; tape.cross_entropy(&y, &labels, 2) }, &[])`.
///
/// # Errors
/// Those of `f`, and if an input or a parameter is not f64.
pub fn check<'m>(f: impl Fn(&mut Tape<'m>, &[&Var]) -> Result<Var>, inputs: &[Tensor]) -> Result<Found> {
    let draw = |seed| check_along(&f, inputs, &vec![true; inputs.len()], &mut Stream::new(seed, "gradcheck"), Ok);
    let [a, b, c] = [draw(0)?, draw(1)?, draw(2)?];
    // A NaN counts as the largest error.
    let worse = |a: Found, b: Found| if a.error.total_cmp(&b.error).is_lt() { b } else { a };
    Ok(worse(worse(a, b), c))
}

/// One comparison along directions from `random`. Inputs that `needs` leaves out are constants. Each gradient goes through `spoil`, which
/// plants a bug in it. [`check`] plants none.
fn check_along<'m>(
    f: impl Fn(&mut Tape<'m>, &[&Var]) -> Result<Var>,
    inputs: &[Tensor],
    needs: &[bool],
    random: &mut Stream,
    mut spoil: impl FnMut(Tensor) -> Result<Tensor>,
) -> Result<Found> {
    // f on `tape`. An input that needs a gradient is a leaf with an identity of its own, as if it were a parameter.
    let ids: Vec<Option<ParamId>> = needs.iter().map(|&need| need.then(ParamId::fresh)).collect();
    let run = |tape: &mut Tape<'m>| -> Result<Var> {
        let vars: Vec<Var> = ids.iter().zip(inputs).map(|(id, x)| id.map_or(tape.constant(x), |id| tape.leaf(id, x))).collect();
        f(tape, &vars.iter().collect::<Vec<_>>())
    };
    // x: the value of every leaf. A first run of f finds them: the inputs, and the parameters that f uses.
    let leaves = Rc::new(RefCell::new(BTreeMap::new()));
    let noted = leaves.clone();
    run(&mut Tape::with_constants(Rc::new(move |id, x| {
        noted.borrow_mut().insert(id, x.clone());
        x.clone()
    })))?;
    let x: BTreeMap<ParamId, Tensor> = leaves.take();
    // u: a random direction for each leaf.
    let u: BTreeMap<ParamId, Vec<f64>> = x.iter().map(|(&id, x)| (id, uniform(random, x.shape().len()))).collect();

    // y at x + step · u, on a tape on which nothing trains.
    let forward = |step: f64| -> Result<Vec<f64>> {
        let mut moved = BTreeMap::new();
        for (id, x) in &x {
            let values: Vec<f64> = x.host::<f64>()?.iter().zip(&u[id]).map(|(x, ui)| x + step * ui).collect();
            moved.insert(*id, Tensor::new(values, x.shape())?);
        }
        run(&mut Tape::with_constants(Rc::new(move |id, _| moved[&id].clone())))?.value().to_f64()
    };
    // J u by the five-point difference: (8 (y(h) − y(−h)) − (y(2h) − y(−2h))) / 12h.
    // h · u has the length STEP, whatever the number of inputs; `max` only avoids a division by 0.
    let h = STEP / u.values().flatten().map(|ui| ui * ui).sum::<f64>().sqrt().max(STEP);
    let [a, b, c, d] = [forward(2.0 * h)?, forward(h)?, forward(-h)?, forward(-2.0 * h)?];
    let ju = (0..a.len()).map(|j| (8.0 * (b[j] - c[j]) - (a[j] - d[j])) / (12.0 * h));

    let mut tape = Tape::new();
    let y = run(&mut tape)?;
    let v = uniform(random, y.shape().len());
    let mut gradients = tape.vjp(&y, Tensor::new(v.clone(), y.shape())?)?;
    if gradients.is_empty() {
        return Err(Error::invalid("gradcheck: no gradient arrived; expected an output that depends on an input or on a parameter"));
    }

    let vju: Vec<f64> = v.iter().zip(ju).map(|(v, ju)| v * ju).collect();
    let mut ug = Vec::new();
    for (&id, along) in &u {
        // Where no gradient arrives, it is zero.
        if let Some(g) = gradients.take_id(id) {
            ug.extend(along.iter().zip(spoil(g)?.host::<f64>()?).map(|(ui, gi)| ui * gi));
        }
    }
    let (numeric, backward) = (vju.iter().sum::<f64>(), ug.iter().sum::<f64>());
    let scale = vju.iter().chain(&ug).map(|x| x.abs()).sum::<f64>() / 2.0;
    Ok(Found { numeric, backward, error: (numeric - backward).abs() / scale.max(SMALLEST_SCALE) })
}

/// `n` random numbers in [-1, 1).
fn uniform(random: &mut Stream, n: usize) -> Vec<f64> {
    (0..n).map(|_| 2.0 * random.uniform() - 1.0).collect()
}

/// An op at random inputs.
pub struct Case {
    /// The op with its settings.
    pub op: Rc<dyn Op>,
    /// Its inputs: f64, or u32 where no gradient is defined.
    pub inputs: Vec<Tensor>,
}

impl Case {
    /// `op` at `inputs`.
    pub fn new(op: impl Op, inputs: Vec<Tensor>) -> Case {
        Case { op: Rc::new(op), inputs }
    }

    /// `op` at `n` inputs of one random shape.
    ///
    /// # Errors
    /// Never: [`Suite::case`] returns a `Result`.
    pub fn of_equal_shapes(op: impl Op, n: usize, random: &mut Stream) -> Result<Case> {
        let dims = [random_size(random, 5), random_size(random, 7)];
        Ok(Case::new(op, (0..n).map(|_| random_tensor(random, &dims)).collect::<Result<_>>()?))
    }

    /// One comparison for the gradients that `needs` asks for. `spoil` may plant a bug in each of them.
    pub(super) fn check(&self, needs: &[bool], random: &mut Stream, spoil: impl FnMut(Tensor) -> Result<Tensor>) -> Result<Found> {
        check_along(|tape, x| tape.apply_shared(self.op.clone(), x), &self.inputs, needs, random, spoil)
    }
}

/// The gradient checks of one op.
pub struct Suite {
    /// Name of the op's type.
    pub op: &'static str,
    /// Largest error of a right backward: 1e-8, or 1e-6 for layer norms and attention, whose gradients are differences of numbers that can
    /// be nearly equal.
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
    /// The shapes of its inputs, and the gradients that were asked for.
    pub place: String,
}

impl Suite {
    /// Draws `cases` cases, and checks each under every pattern of `needs` (at most 16 patterns, drawn where there are more).
    ///
    /// # Errors
    /// Those of the op. A large error is not an `Err`: compare it with [`Suite::tolerance`].
    pub fn run(&self, cases: usize, seed: u64) -> Result<Worst> {
        let mut random = Stream::new(seed, self.op);
        let mut worst = Worst { checks: 0, found: Found { numeric: 0.0, backward: 0.0, error: 0.0 }, place: String::new() };
        for number in 0..cases {
            let case = (self.case)(&mut random)?;
            for needs in patterns(&case.inputs, &mut random) {
                let found = case.check(&needs, &mut random, Ok)?;
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
}

/// Every non-empty choice of up to four inputs that can take a gradient; 16 random choices of more inputs.
fn patterns(inputs: &[Tensor], random: &mut Stream) -> Vec<Vec<bool>> {
    let free: Vec<usize> = (0..inputs.len()).filter(|&i| inputs[i].dtype() == DType::F64).collect();
    let choices = 1usize << free.len();
    // Bit k of a choice: input free[k] needs a gradient.
    let pattern = |choice: usize| {
        let mut needs = vec![false; inputs.len()];
        free.iter().enumerate().for_each(|(k, &i)| needs[i] = choice >> k & 1 == 1);
        needs
    };
    if choices <= 16 { (1..choices).map(pattern).collect() } else { (0..16).map(|_| pattern(1 + random.below(choices - 1))).collect() }
}

/// Uniform random numbers in [-1, 1), for cases.
///
/// # Errors
/// None, if the shape fits in memory.
pub fn random_tensor(random: &mut Stream, dims: &[usize]) -> Result<Tensor> {
    Tensor::new(uniform(random, dims.iter().product()), dims)
}

/// A random size: 1 in a quarter of the draws, else up to `most`.
pub fn random_size(random: &mut Stream, most: usize) -> usize {
    if random.below(4) == 0 { 1 } else { 1 + random.below(most) }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::autograd::{Op, Parameter, Saved};
    use crate::tensor::philox::Stream;
    use crate::tensor::{DType, Tensor};
    use proptest::prelude::*;
    use std::rc::Rc;

    proptest! {
        #[test]
        fn every_backward_agrees_with_finite_differences(seed: u64) {
            // The suites of all ops, collected from `ops` and `lora`.
            for suite in crate::testing::suites() {
                let worst = suite.run(1, seed).unwrap();
                prop_assert!(worst.checks > 0, "{} checked nothing", suite.op);
                prop_assert!(worst.found.error <= suite.tolerance, "{}: {worst:?}", suite.op);
            }
        }
    }

    /// Value and gradients of an op, in `dtype`; `None` if the op does not compute in it.
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
        // Relative to the largest number of each tensor. bf16 has 8 significant bits, and a gradient comes through a few rounded numbers.
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
                // The loss and what trains are computed in the accumulator's type; a table lookup is told its type.
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
                assert!(planted > 0 || (suite.op, bug) == ("Sum", crate::autograd::Bug::Moved), "{}: {bug:?} never took effect", suite.op);
                assert_eq!(caught, planted, "{}: {bug:?}", suite.op);
            }
        }
    }

    /// The text of every file below `folder`.
    fn sources(folder: &std::path::Path) -> Vec<String> {
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let texts = paths.map(|path| if path.is_dir() { sources(&path) } else { std::fs::read_to_string(path).into_iter().collect() });
        texts.flatten().collect()
    }

    #[test]
    fn every_op_has_a_suite() {
        let suites: Vec<&str> = crate::testing::suites().iter().map(|s| s.op).collect();
        let mut found = 0;
        for text in sources(concat!(env!("CARGO_MANIFEST_DIR"), "/src").as_ref()) {
            // Only types at the start of a line: not those of tests and doc comments.
            for rest in ["\nimpl Op for ", "\nimpl Elementwise for "].iter().flat_map(|implementation| text.split(implementation).skip(1)) {
                let op = rest.split_whitespace().next().unwrap();
                assert!(suites.contains(&op), "{op} has no gradient check");
                found += 1;
            }
        }
        assert_eq!(found, suites.len());
    }

    #[test]
    fn parameters_inside_and_outside_of_checkpoints_are_checked() {
        let p = Parameter::new("p", Tensor::new(vec![0.3, -1.1], [2]).unwrap());
        let x = [Tensor::new(vec![0.7, 0.2], [2]).unwrap()];
        let right = check(
            |tape, x| {
                let inside = tape.checkpoint(&[x[0]], |tape, x| {
                    let p = tape.parameter(&p);
                    tape.mul(&p, &x[0])
                })?;
                let p = tape.parameter(&p);
                tape.add(&inside, &p)
            },
            &x,
        );
        assert!(right.unwrap().error < 1e-10);
        // A factor that backward does not see.
        let wrong = check(
            |tape, x| {
                let p = tape.parameter(&p);
                let held = tape.constant(p.value());
                tape.mul(x[0], &held)
            },
            &x,
        );
        assert!(wrong.unwrap().error > 0.01);
        assert!(check(|tape, x| Ok(tape.constant(x[0].value())), &x).is_err_and(|e| e.to_string().contains("no gradient arrived")));
    }
}
