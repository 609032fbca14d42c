//! The random matrix P of a subspace, dense or as Fastfood.

#[cfg(feature = "cuda")]
use super::projection_cuda::OnDevice;
use crate::tensor::philox::Stream;
use crate::tensor::{Accum, Pooled, alloc, rows, zeroed};
use crate::{Error, Result};
#[cfg(feature = "cuda")]
use crate::{
    cuda::Device,
    tensor::{DType, Tensor},
};
#[cfg(feature = "cuda")]
use std::sync::{Arc, OnceLock};

/// A random P `[n, d]` whose columns have length 1 on average.
///
/// A small P is dense, with elements N(0, 1/n). A large one is never formed: it consists of blocks H G Π H B / √(S n) of S rows, S the next
/// power of two from d. B is diagonal with random signs, H is the Walsh-Hadamard matrix, Π is a permutation, and G is diagonal with elements
/// N(0, 1). Le et al. 2013, "Fastfood", <https://arxiv.org/abs/1408.3060>, equation 7. A product then takes n log d steps, and P 7 bytes a row.
pub struct Projection {
    form: Form,
    #[cfg(feature = "cuda")]
    on_device: OnceLock<OnDevice>,
}

/// The random numbers of a P.
enum Form {
    Dense {
        d: usize,
        /// `[n, d]`.
        elements: Vec<f32>,
    },
    /// One entry for each row of each block: n rounded up to whole blocks.
    Fastfood {
        /// n and d.
        dims: [usize; 2],
        /// The diagonal of B.
        signs: Vec<i8>,
        /// Π: row i of a block takes this row of the block.
        permutation: Vec<u16>,
        /// The diagonal of G.
        gauss: Vec<f32>,
    },
}

/// The most elements of a dense P.
const DENSE: usize = 1 << 16;

impl Projection {
    /// P `[n, d]`, drawn from `seed` and `name`.
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
            Block::draw(size, &mut Stream::new(seed, &format!("{name} {block}")))
        });
        Ok(Projection::fastfood([n, d], blocks))
    }

    fn of(form: Form) -> Projection {
        Projection {
            form,
            #[cfg(feature = "cuda")]
            on_device: OnceLock::new(),
        }
    }

    fn fastfood(dims: [usize; 2], blocks: Vec<Block>) -> Projection {
        let (mut signs, mut permutation, mut gauss) = (Vec::new(), Vec::new(), Vec::new());
        for block in blocks {
            signs.extend(block.signs);
            permutation.extend(block.permutation);
            gauss.extend(block.gauss);
        }
        Projection::of(Form::Fastfood { dims, signs, permutation, gauss })
    }

    /// A Fastfood P of a size for which [`Projection::new`] makes a dense one, for tests.
    pub(super) fn small_fastfood([n, d]: [usize; 2], random: &mut Stream) -> Projection {
        let size = d.next_power_of_two();
        Projection::fastfood([n, d], (0..n.div_ceil(size)).map(|_| Block::draw(size, random)).collect())
    }

    /// n and d.
    pub(super) fn dims(&self) -> [usize; 2] {
        match &self.form {
            Form::Dense { d, elements } => [elements.len() / d, *d],
            Form::Fastfood { dims, .. } => *dims,
        }
    }

    /// Adds P z `[n]` to y.
    pub(super) fn add_image<S: Accum>(&self, z: &[S], y: &mut [S]) {
        match &self.form {
            Form::Dense { d, elements } => {
                let rows = y.iter_mut().zip(elements.chunks_exact(*d));
                rows.for_each(|(y, row)| *y += row.iter().zip(z).map(|(&p, &z)| S::of(p.into()) * z).fold(S::ZERO, |s, x| s + x));
            }
            Form::Fastfood { dims, signs, permutation, gauss } => {
                let (size, scale) = (dims[1].next_power_of_two(), S::of(scale(*dims)));
                rows::for_chunks(y, size, true, |block, y| {
                    let at = block * size..(block + 1) * size;
                    let (mut first, mut second) = (zeroed::<S>(size), alloc::<S>(size));
                    // first = H B z, z padded with zeros to S; second = H G Π first.
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

    /// Pᵀ g `[d]`.
    pub(super) fn transposed<S: Accum>(&self, g: &[S]) -> Pooled<S> {
        let d = self.dims()[1];
        let mut z = zeroed::<S>(d);
        match &self.form {
            Form::Dense { elements, .. } => {
                for (&g, row) in g.iter().zip(elements.chunks_exact(d)) {
                    z.iter_mut().zip(row).for_each(|(z, &p)| *z += S::of(p.into()) * g);
                }
            }
            Form::Fastfood { dims, signs, permutation, gauss } => {
                let (size, scale) = (d.next_power_of_two(), S::of(scale(*dims)));
                let parts = rows::map(g.chunks(size).enumerate().collect(), |(block, g): (usize, &[S])| {
                    let at = block * size..(block + 1) * size;
                    let (mut first, mut second) = (zeroed::<S>(size), alloc::<S>(size));
                    // The transposed factors in reverse order: H and the diagonals are their own transposes, Πᵀ writes where Π reads.
                    first[..g.len()].copy_from_slice(g);
                    hadamard(&mut first);
                    let draws = permutation[at.clone()].iter().zip(&gauss[at.clone()]);
                    first.iter().zip(draws).for_each(|(&x, (&p, &g))| second[usize::from(p)] = x * S::of(g.into()));
                    hadamard(&mut second);
                    second.iter_mut().zip(&signs[at]).for_each(|(x, &s)| *x *= scale * S::of(s.into()));
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
    fn on(&self, device: &Arc<Device>) -> Result<&OnDevice> {
        if let Some(found) = self.on_device.get() {
            return Ok(found);
        }
        let new = match &self.form {
            Form::Dense { d, elements } => OnDevice::Dense(Tensor::new(elements.clone(), [elements.len() / d, *d])?.to_device(device)?),
            Form::Fastfood { dims, signs, permutation, gauss } => {
                OnDevice::fastfood(device, *dims, scale(*dims), signs, permutation, gauss)?
            }
        };
        Ok(self.on_device.get_or_init(|| new))
    }

    /// origin + P z on a device, f32.
    #[cfg(feature = "cuda")]
    pub(super) fn image_on(&self, device: &Arc<Device>, origin: &Tensor, z: &Tensor) -> Result<Tensor> {
        let origin = if origin.dtype() == DType::BF16 { origin.clone() } else { origin.to_dtype(DType::F32)? };
        self.on(device)?.image(device, &origin.to_device(device)?, z)
    }

    /// Pᵀ g on a device, f32.
    #[cfg(feature = "cuda")]
    pub(super) fn transposed_on(&self, device: &Arc<Device>, g: &Tensor) -> Result<Tensor> {
        self.on(device)?.transposed(device, g)
    }
}

/// The random numbers of one block of S rows.
struct Block {
    signs: Vec<i8>,
    permutation: Vec<u16>,
    gauss: Vec<f32>,
}

impl Block {
    fn draw(size: usize, stream: &mut Stream) -> Block {
        let signs = (0..size).map(|_| if stream.word() & 1 == 0 { 1 } else { -1 }).collect();
        let mut permutation: Vec<u16> = (0..size).map(|i| i as u16).collect();
        stream.shuffle(&mut permutation);
        Block { signs, permutation, gauss: (0..size).map(|_| stream.normal() as f32).collect() }
    }
}

/// 1/√(S n).
fn scale([n, d]: [usize; 2]) -> f64 {
    ((d.next_power_of_two() * n) as f64).sqrt().recip()
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
