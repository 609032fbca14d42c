//! A tensor that moves in a random subspace alone.

use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
use crate::tensor::philox::Stream;
use crate::tensor::{Accum, Pooled, Tensor, alloc, rows, zeroed};
use crate::{Error, Result, dispatch_float};
#[cfg(feature = "cuda")]
use crate::{cuda::Device, tensor::DType};
use std::rc::Rc;
use std::sync::Arc;

/// y = y₀ + P z. Li et al. 2018, <https://arxiv.org/abs/1804.08838>, equation 2. y₀ and y of any shape of n elements, z `[d]`; dz = Pᵀ dy.
pub struct Subspace {
    /// y₀.
    pub origin: Tensor,
    /// P.
    pub projection: Arc<Projection>,
}

/// A random P `[n, d]` whose columns have about unit length.
///
/// Dense where it is small, of elements N(0, 1/n). Else in blocks of S rows, S the power of two that d fits into: H G Π H B / √(S n), where B flips
/// signs, H is the Walsh-Hadamard matrix, Π permutes and G is diagonal, of N(0, 1). Le et al. 2013, "Fastfood",
/// <https://arxiv.org/abs/1408.3060>, equation 7. That costs n log d, and 7 bytes a row.
pub struct Projection {
    pub(super) form: Form,
    #[cfg(feature = "cuda")]
    pub(super) on_device: std::sync::OnceLock<super::subspace_cuda::OnDevice>,
}

/// What was drawn.
pub(super) enum Form {
    Dense {
        d: usize,
        /// `[n, d]`.
        elements: Vec<f32>,
    },
    Fastfood {
        /// n and d.
        dims: [usize; 2],
        /// The diagonals of B, block by block.
        signs: Vec<i8>,
        /// Π, likewise: row i reads this one.
        permutation: Vec<u16>,
        /// The diagonals of G.
        gauss: Vec<f32>,
    },
}

/// A dense P has at most so many elements.
const DENSE: usize = 1 << 16;

impl Projection {
    /// P `[n, d]` drawn from `seed` and `name`, dense where small.
    ///
    /// # Errors
    /// If d is 0 or above 2¹⁶.
    pub fn new(n: usize, d: usize, seed: u64, name: &str) -> Result<Projection> {
        if d == 0 || d > 1 << 16 {
            return Err(Error::invalid(format!("a subspace of dimension {d}: it must lie between 1 and {}", 1 << 16)));
        }
        if n * d <= DENSE {
            let mut stream = Stream::new(seed, name);
            let std = (n as f64).sqrt().recip();
            let elements = (0..n * d).map(|_| (std * stream.normal()) as f32).collect();
            return Ok(Projection::of(Form::Dense { d, elements }));
        }
        let size = d.next_power_of_two();
        let blocks = rows::map((0..n.div_ceil(size)).collect(), |block: usize| {
            let mut stream = Stream::new(seed, &format!("{name} {block}"));
            let signs: Vec<i8> = (0..size).map(|_| if stream.word() & 1 == 0 { 1 } else { -1 }).collect();
            let mut permutation: Vec<u16> = (0..size).map(|i| i as u16).collect();
            stream.shuffle(&mut permutation);
            (signs, permutation, (0..size).map(|_| stream.normal() as f32).collect::<Vec<f32>>())
        });
        let (mut signs, mut permutation, mut gauss) = (Vec::new(), Vec::new(), Vec::new());
        for (s, p, g) in blocks {
            signs.extend(s);
            permutation.extend(p);
            gauss.extend(g);
        }
        Ok(Projection::of(Form::Fastfood { dims: [n, d], signs, permutation, gauss }))
    }

    fn of(form: Form) -> Projection {
        Projection {
            form,
            #[cfg(feature = "cuda")]
            on_device: std::sync::OnceLock::new(),
        }
    }

    /// n and d.
    pub(super) fn dims(&self) -> [usize; 2] {
        match &self.form {
            Form::Dense { d, elements } => [elements.len() / d, *d],
            Form::Fastfood { dims, .. } => *dims,
        }
    }

    /// 1/√(S n).
    pub(super) fn scale(&self) -> f64 {
        let [n, d] = self.dims();
        ((d.next_power_of_two() * n) as f64).sqrt().recip()
    }

    /// Adds P z to y.
    fn add_image<S: Accum>(&self, z: &[S], y: &mut [S]) {
        match &self.form {
            Form::Dense { d, elements } => {
                let rows = y.iter_mut().zip(elements.chunks_exact(*d));
                rows.for_each(|(y, row)| *y += row.iter().zip(z).map(|(&p, &z)| S::of(p.into()) * z).fold(S::ZERO, |s, x| s + x));
            }
            Form::Fastfood { dims: [_, d], signs, permutation, gauss } => {
                let (size, scale) = (d.next_power_of_two(), S::of(self.scale()));
                rows::for_chunks(y, size, true, |block, y| {
                    let at = block * size..(block + 1) * size;
                    let (mut first, mut second) = (zeroed::<S>(size), alloc::<S>(size));
                    first.iter_mut().zip(z).zip(&signs[at.clone()]).for_each(|((x, &z), &s)| *x = z * S::of(s.into()));
                    hadamard(&mut first);
                    let draws = permutation[at.clone()].iter().zip(&gauss[at]);
                    second.iter_mut().zip(draws).for_each(|(x, (&p, &g))| *x = first[usize::from(p)] * S::of(g.into()));
                    hadamard(&mut second);
                    y.iter_mut().zip(&*second).for_each(|(y, &x)| *y += scale * x);
                });
            }
        }
    }

    /// Pᵀ g.
    fn transposed<S: Accum>(&self, g: &[S]) -> Pooled<S> {
        let d = self.dims()[1];
        let mut z = zeroed::<S>(d);
        match &self.form {
            Form::Dense { elements, .. } => {
                for (&g, row) in g.iter().zip(elements.chunks_exact(d)) {
                    z.iter_mut().zip(row).for_each(|(z, &p)| *z += S::of(p.into()) * g);
                }
            }
            Form::Fastfood { signs, permutation, gauss, .. } => {
                let (size, scale) = (d.next_power_of_two(), S::of(self.scale()));
                let parts = rows::map(g.chunks(size).enumerate().collect(), |(block, g): (usize, &[S])| {
                    let at = block * size..(block + 1) * size;
                    let (mut first, mut second) = (zeroed::<S>(size), alloc::<S>(size));
                    first[..g.len()].copy_from_slice(g);
                    hadamard(&mut first);
                    let draws = permutation[at.clone()].iter().zip(&gauss[at.clone()]);
                    first.iter().zip(draws).for_each(|(&x, (&p, &g))| second[usize::from(p)] = x * S::of(g.into()));
                    hadamard(&mut second);
                    second.iter_mut().zip(&signs[at]).for_each(|(x, &s)| *x *= scale * S::of(s.into()));
                    second
                });
                // In order: the sum does not depend on the threads.
                parts.iter().for_each(|part| z.iter_mut().zip(&**part).for_each(|(z, &x)| *z += x));
            }
        }
        z
    }
}

/// H x in place, H of elements ±1; the length is a power of two.
fn hadamard<S: Accum>(x: &mut [S]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
        }
        half *= 2;
    }
}

impl Subspace {
    /// z, if all fits.
    fn check<'a>(&self, inputs: &[&'a Tensor]) -> Result<&'a Tensor> {
        let (z, [n, d]) = (inputs[0], self.projection.dims());
        match z.dims() == [d] && self.origin.shape().len() == n {
            true => Ok(z),
            false => Err(Error::shape("subspace", "z [d] and an origin of n elements", &[z.shape(), self.origin.shape(), &[n, d].into()])),
        }
    }
}

impl Op for Subspace {
    fn name(&self) -> &'static str {
        "subspace"
    }

    fn forward(&self, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        let z = self.check(inputs)?;
        dispatch_float!("subspace", z.dtype(), T => {
            let mut y = self.origin.to_accum::<T>()?;
            self.projection.add_image(z.host::<T>()?, &mut y);
            Tensor::new(y, self.origin.shape())
        })
    }

    fn backward(&self, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        dispatch_float!("subspace", dy.dtype(), T => {
            let z = self.projection.transposed(dy.host::<T>()?);
            Ok(vec![Some(Tensor::new(z, [self.projection.dims()[1]])?)])
        })
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        let z = self.check(inputs)?;
        let origin = if self.origin.dtype() == DType::BF16 { self.origin.clone() } else { self.origin.to_dtype(DType::F32)? };
        self.projection.image_on(device, &origin.to_device(device)?, z)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.projection.transposed_on(device, &dy)?)])
    }
}

impl Tape<'_> {
    /// origin + P z; see [`Subspace`].
    ///
    /// # Errors
    /// If z or the origin have not the dimensions of P.
    pub fn subspace(&mut self, z: &Var, origin: &Tensor, projection: &Arc<Projection>) -> Result<Var> {
        self.apply(Subspace { origin: origin.clone(), projection: projection.clone() }, &[z])
    }
}

pub(super) fn suite() -> Suite {
    Suite {
        op: "Subspace",
        tolerance: 1e-8,
        case: |random| {
            let (rows, cols, d) = (random_size(random, 5), random_size(random, 6), random_size(random, 5));
            let origin = random_tensor(random, &[rows, cols])?;
            let (n, seed) = (rows * cols, u64::from(random.word()));
            // The large form at small sizes too.
            let projection = match random.below(2) {
                0 => Projection::new(n, d, seed, "P")?,
                _ => {
                    let size = d.next_power_of_two();
                    let drawn = n.div_ceil(size) * size;
                    let mut permutation = Vec::new();
                    for _ in 0..drawn / size {
                        let mut block: Vec<u16> = (0..size as u16).collect();
                        random.shuffle(&mut block);
                        permutation.extend(block);
                    }
                    let signs = (0..drawn).map(|_| if random.below(2) == 0 { 1 } else { -1 }).collect();
                    let gauss = (0..drawn).map(|_| random.normal() as f32).collect();
                    Projection::of(Form::Fastfood { dims: [n, d], signs, permutation, gauss })
                }
            };
            let z = random_tensor(random, &[d])?;
            Ok(Case { op: Rc::new(Subspace { origin, projection: Arc::new(projection) }), inputs: vec![z] })
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_unit_length_and_are_nearly_orthogonal() {
        for (n, d) in [(3000, 20), (40_000, 100), (1_000, 3_000)] {
            let projection = Projection::new(n, d, 3, "P").unwrap();
            assert_eq!(matches!(projection.form, Form::Dense { .. }), n * d <= DENSE);
            let column = |j: usize| {
                let (mut z, mut y) = (vec![0.0f64; d], vec![0.0; n]);
                z[j] = 1.0;
                projection.add_image(&z, &mut y);
                y
            };
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (a, b) = (column(0), column(d - 1));
            let slack = 6.0 / (n as f64).sqrt();
            assert!((dot(&a, &a) - 1.0).abs() < 1.5 * slack && dot(&a, &b).abs() < slack, "{} {}", dot(&a, &a), dot(&a, &b));
        }
        assert!(Projection::new(10, 0, 0, "P").is_err() && Projection::new(10, 70_000, 0, "P").is_err());
    }
}
