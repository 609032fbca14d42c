//! The random matrix P of a subspace, dense or as Fastfood.

#[cfg(feature = "cuda")]
use super::projection_cuda::OnDevice;
use crate::tensor::philox::Stream;
use crate::tensor::{Accum, Pooled, alloc, rows, zeroed};
use crate::{Error, Result};
#[cfg(feature = "cuda")]
use crate::{cuda::Device, tensor::Tensor};
#[cfg(feature = "cuda")]
use std::sync::{Arc, OnceLock};
#[cfg(feature = "cuda")]
use zerocopy::IntoBytes;

/// A random P `[n, d]` whose columns have length 1 on average.
///
/// A small P is dense, with elements N(0, 1/n). A large one is never formed: it consists of blocks H G Π H B / √(S n) of S rows, S the next
/// power of two from d. B is diagonal with random signs, H is the Walsh-Hadamard matrix, Π is a permutation, and G is diagonal with elements
/// N(0, 1). Le et al. 2013, "Fastfood", <https://arxiv.org/abs/1408.3060>, equation 7. A product then takes n log d steps, and P 7 bytes a row.
pub struct Projection {
    /// n and d.
    pub(super) dims: [usize; 2],
    form: Form,
    #[cfg(feature = "cuda")]
    on_device: OnceLock<OnDevice>,
}

/// The random numbers of a P.
enum Form {
    /// The elements `[n, d]`.
    Dense(Vec<f32>),
    /// Enough blocks for n rows.
    Fastfood(Vec<Block>),
}

/// The random numbers of one block of S rows: one of each kind for each row.
struct Block {
    /// The diagonal of B.
    signs: Vec<i8>,
    /// Π: row i takes this row.
    permutation: Vec<u16>,
    /// The diagonal of G.
    gauss: Vec<f32>,
}

/// The most elements of a dense P.
const DENSE: usize = 1 << 16;

impl Projection {
    /// P `[n, d]`, drawn from `seed` and `name`.
    ///
    /// # Errors
    /// If d is 0 or above 2¹⁶, or n is above 2³².
    pub fn new(n: usize, d: usize, seed: u64, name: &str) -> Result<Projection> {
        if d == 0 || d > 1 << 16 {
            return Err(Error::invalid(format!("a subspace of dimension {d}: it must lie between 1 and {}", 1 << 16)));
        }
        if n > 1 << 32 {
            return Err(Error::invalid(format!("a projection to {n} numbers: the largest weight has {}", 1_u64 << 32)));
        }
        if n.checked_mul(d).is_some_and(|elements| elements <= DENSE) {
            let mut stream = Stream::new(seed, name);
            let std = (n as f64).sqrt().recip();
            let elements = (0..n * d).map(|_| (std * stream.normal()) as f32).collect();
            return Ok(Projection::of([n, d], Form::Dense(elements)));
        }
        let size = d.next_power_of_two();
        let draw = |block: usize| Block::draw(size, &mut Stream::new(seed, &format!("{name} {block}")));
        let blocks = rows::map((0..n.div_ceil(size)).collect(), draw);
        Ok(Projection::of([n, d], Form::Fastfood(blocks)))
    }

    fn of(dims: [usize; 2], form: Form) -> Projection {
        Projection {
            dims,
            form,
            #[cfg(feature = "cuda")]
            on_device: OnceLock::new(),
        }
    }

    /// A Fastfood P of a size for which [`Projection::new`] makes a dense one, for tests.
    pub(super) fn small_fastfood([n, d]: [usize; 2], random: &mut Stream) -> Projection {
        let size = d.next_power_of_two();
        let blocks = (0..n.div_ceil(size)).map(|_| Block::draw(size, random)).collect();
        Projection::of([n, d], Form::Fastfood(blocks))
    }

    /// S, the rows of a block of a Fastfood P.
    fn size(&self) -> usize {
        self.dims[1].next_power_of_two()
    }

    /// 1/√(S n).
    fn scale(&self) -> f64 {
        ((self.size() * self.dims[0]) as f64).sqrt().recip()
    }

    /// Adds P z `[n]` to y.
    pub(super) fn add_image<S: Accum>(&self, z: &[S], y: &mut [S]) {
        match &self.form {
            Form::Dense(elements) => {
                let rows = y.iter_mut().zip(elements.chunks_exact(self.dims[1]));
                rows.for_each(|(y, row)| *y += row.iter().zip(z).map(|(&p, &z)| S::of(p.into()) * z).fold(S::ZERO, |s, x| s + x));
            }
            Form::Fastfood(blocks) => {
                let (size, scale) = (self.size(), S::of(self.scale()));
                rows::for_chunks(y, size, true, |block, y| {
                    let Block { signs, permutation, gauss } = &blocks[block];
                    let (mut first, mut second) = (zeroed::<S>(size), alloc::<S>(size));
                    // first = H B z, z padded with zeros to S; second = H G Π first.
                    first.iter_mut().zip(z).zip(signs).for_each(|((x, &z), &s)| *x = z * S::of(s.into()));
                    hadamard(&mut first);
                    let draws = permutation.iter().zip(gauss);
                    second.iter_mut().zip(draws).for_each(|(x, (&p, &g))| *x = first[usize::from(p)] * S::of(g.into()));
                    hadamard(&mut second);
                    y.iter_mut().zip(&*second).for_each(|(y, &x)| *y += scale * x);
                });
            }
        }
    }

    /// Pᵀ g `[d]`.
    pub(super) fn transposed<S: Accum>(&self, g: &[S]) -> Pooled<S> {
        let mut z = zeroed::<S>(self.dims[1]);
        match &self.form {
            Form::Dense(elements) => {
                for (&g, row) in g.iter().zip(elements.chunks_exact(self.dims[1])) {
                    z.iter_mut().zip(row).for_each(|(z, &p)| *z += S::of(p.into()) * g);
                }
            }
            Form::Fastfood(blocks) => {
                let (size, scale) = (self.size(), S::of(self.scale()));
                let parts = rows::map(g.chunks(size).zip(blocks).collect(), |(g, block): (&[S], &Block)| {
                    let (mut first, mut second) = (zeroed::<S>(size), alloc::<S>(size));
                    // The transposed factors in reverse order: H and the diagonals are their own transposes, Πᵀ writes where Π reads.
                    first[..g.len()].copy_from_slice(g);
                    hadamard(&mut first);
                    let draws = block.permutation.iter().zip(&block.gauss);
                    first.iter().zip(draws).for_each(|(&x, (&p, &g))| second[usize::from(p)] = x * S::of(g.into()));
                    hadamard(&mut second);
                    second.iter_mut().zip(&block.signs).for_each(|(x, &s)| *x *= scale * S::of(s.into()));
                    second
                });
                // Added in the order of the blocks, so that the sum does not depend on the number of threads.
                parts.iter().for_each(|part| z.iter_mut().zip(&**part).for_each(|(z, &x)| *z += x));
            }
        }
        z
    }

    /// P on a device, copied there on the first call.
    #[cfg(feature = "cuda")]
    pub(super) fn on(&self, device: &Arc<Device>) -> Result<&OnDevice> {
        if let Some(found) = self.on_device.get() {
            return Ok(found);
        }
        let new = match &self.form {
            Form::Dense(elements) => OnDevice::Dense(Tensor::new(elements.clone(), self.dims)?.to_device(device)?),
            Form::Fastfood(blocks) => {
                let signs: Vec<i8> = blocks.iter().flat_map(|block| &block.signs).copied().collect();
                let permutation: Vec<u16> = blocks.iter().flat_map(|block| &block.permutation).copied().collect();
                let gauss: Vec<f32> = blocks.iter().flat_map(|block| &block.gauss).copied().collect();
                OnDevice::fastfood(device, self.dims, self.scale(), [signs.as_bytes(), permutation.as_bytes(), gauss.as_bytes()])?
            }
        };
        Ok(self.on_device.get_or_init(|| new))
    }
}

impl Block {
    fn draw(size: usize, stream: &mut Stream) -> Block {
        let signs = (0..size).map(|_| if stream.word() & 1 == 0 { 1 } else { -1 }).collect();
        let mut permutation: Vec<u16> = (0..size).map(|i| i as u16).collect();
        stream.shuffle(&mut permutation);
        Block { signs, permutation, gauss: (0..size).map(|_| stream.normal() as f32).collect() }
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
