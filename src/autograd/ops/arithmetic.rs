//! Four small ops: a + b and a ⊙ b of two tensors of equal shapes, a multiple of a tensor, and the sum of its elements. `elementwise_op.rs`
//! has three functions for them: `zip_in_place` combines two tensors element by element, `add` adds them, and `equal_shapes` checks their
//! shapes.

use super::elementwise_op::{add, equal_shapes, zip_in_place};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::launch;
use crate::tensor::{Accum, Scalar, Tensor, alloc, on_device, rows, simd};
use crate::{Error, Result, dispatch};

/// y = a + b. da = dy, db = dy.
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn forward(&self, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        let &[a, b] = inputs else { return Err(Error::invalid("add: takes two inputs")) };
        add("add", a.clone(), b)
    }

    fn backward(&self, _saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(needs.iter().map(|&need| need.then(|| dy.clone())).collect())
    }
}

/// y = a ⊙ b, the product of each pair of elements. da = dy ⊙ b, db = dy ⊙ a.
pub struct Mul;

/// a ⊙ b on the host: no kernel for a GPU multiplies tensors.
fn times(a: Tensor, b: &Tensor) -> Result<Tensor> {
    dispatch!("mul", a.dtype(), T => zip_in_place::<T>(a, b, |a, b| a * b))
}

impl Op for Mul {
    fn name(&self) -> &'static str {
        "mul"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let &[a, b] = inputs else { return Err(Error::invalid("mul: takes two inputs")) };
        equal_shapes("mul", a, b)?;
        saved.keep_if(needs[1], "a", a);
        saved.keep_if(needs[0], "b", b);
        times(a.clone(), b)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (a, b) = (saved.take_if(needs[1], "a")?, saved.take_if(needs[0], "b")?);
        let times_dy = |t: Option<Tensor>| t.map(|t| times(t, &dy)).transpose();
        Ok(vec![times_dy(b)?, times_dy(a)?])
    }
}

/// y = c·a for a constant c. da = c·dy.
pub struct Scale(
    /// The constant.
    pub f64,
);

impl Scale {
    fn scaled(&self, a: &Tensor) -> Result<Tensor> {
        on_device!(
            a,
            |device| launch::scaled(device, a, self.0),
            dispatch!("scale", a.dtype(), T => {
                let (from, c) = (a.host::<T>()?, <T as Scalar>::Acc::of(self.0));
                let mut y = alloc::<T>(from.len());
                // `for_each` splits y over threads: each gets the part of y from element `at` on. `vectorised` compiles its loop for wide
                // vectors.
                rows::for_each(&mut y, 1, |at, y| {
                    simd::vectorised(|| y.iter_mut().zip(&from[at..]).for_each(|(y, a)| *y = T::narrow(c * a.widen())));
                });
                Tensor::new(y, a.shape())
            })
        )
    }
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn forward(&self, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        self.scaled(inputs[0])
    }

    fn backward(&self, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.scaled(&dy)?)])
    }
}

/// y = Σ a, one element. da = dy in every element.
pub struct Sum;

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        // For its shape alone. Its storage is the caller's, so it costs nothing.
        saved.keep_if(needs[0], "a", inputs[0]);
        dispatch!("sum", inputs[0].dtype(), T => {
            let sum = inputs[0].host::<T>()?.iter().map(|a| a.widen()).sum();
            Tensor::new(vec![T::narrow(sum)], [1])
        })
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let a = saved.take("a")?;
        dispatch!("sum", dy.dtype(), T => Ok(vec![Some(Tensor::new(vec![dy.host::<T>()?[0]; a.shape().len()], a.shape())?)]))
    }
}

impl Tape<'_> {
    /// a + b; see [`Add`].
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.apply(Add, &[a, b])
    }

    /// a ⊙ b; see [`Mul`].
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn mul(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.apply(Mul, &[a, b])
    }

    /// c·a; see [`Scale`].
    ///
    /// # Errors
    /// If `a` is not a float.
    pub fn scale(&mut self, a: &Var, c: f64) -> Result<Var> {
        self.apply(Scale(c), &[a])
    }

    /// Σ a; see [`Sum`].
    ///
    /// # Errors
    /// If `a` is not a float.
    pub fn sum(&mut self, a: &Var) -> Result<Var> {
        self.apply(Sum, &[a])
    }
}
