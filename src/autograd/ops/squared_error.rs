//! The squared error: the loss of regression. It is composed of other ops.

use crate::Result;
use crate::autograd::{Tape, Var};
use crate::tensor::Tensor;

impl Tape<'_> {
    /// `L = (1/N) Σ (z − y)²` of numbers z and targets y, both `[B, C]`, with N = `divisor`. dz = 2 (z − y) dL / N. With N = B · C it is PyTorch's
    /// `MSELoss`, which transformers chooses for `problem_type` "regression".
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn squared_error(&mut self, z: &Var, targets: &Tensor, divisor: f64) -> Result<Var> {
        let minus: Vec<f64> = targets.to_f64()?.into_iter().map(|y| -y).collect();
        let minus = Tensor::from_f64(minus, z.value().dtype(), targets.shape())?.to_device_of(z.value())?;
        let minus = self.constant(&minus);
        let error = self.add(z, &minus)?;
        let squares = self.mul(&error, &error)?;
        let sum = self.sum(&squares)?;
        self.scale(&sum, 1.0 / divisor)
    }
}

#[cfg(test)]
mod tests {
    use crate::autograd::gradcheck::{self, random_tensor};
    use crate::tensor::philox::Stream;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn its_gradient_is_that_of_differences(b in 1usize..6, c in 1usize..4, seed: u64) {
            let mut random = Stream::new(seed, "squared error");
            let [z, y] = [(); 2].map(|()| random_tensor(&mut random, &[b, c]).unwrap());
            let found = gradcheck::check(|tape, z| tape.squared_error(z[0], &y, 1.7), &[z]).unwrap();
            prop_assert!(found.error < 1e-8, "{:?}", found);
        }
    }
}
