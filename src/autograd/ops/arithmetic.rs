//! y = a + b, y = a ⊙ b, y = c·a and y = Σ a, of equal shapes.

use super::elementwise;
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::autograd::{Op, Saved, Tape, Var};
#[cfg(feature = "cuda")]
use crate::cuda::{Device, launch};
use crate::tensor::{Accum, Scalar, Tensor};
use crate::{Error, Result, dispatch};
use std::rc::Rc;
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// f(a, b), elementwise, in whatever type a has.
macro_rules! zip {
    ($op:expr, $a:expr, $b:expr, $f:expr) => {{
        let (a, b): (&Tensor, &Tensor) = ($a, $b);
        if a.shape() != b.shape() {
            return Err(Error::shape($op, "equal shapes", &[a.shape(), b.shape()]));
        }
        dispatch!($op, a.dtype(), T => elementwise::zip_in_place::<T>(a, b.clone(), $f))
    }};
}

/// y = a + b; a and b of one shape. da = dy, db = dy.
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn forward(&self, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        let [a, b] = inputs else { return Err(Error::invalid("add: takes two inputs")) };
        zip!("add", a, b, |a, b, _| a + b)
    }

    fn backward(&self, _saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(needs.iter().map(|&need| need.then(|| dy.clone())).collect())
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        let [a, b] = inputs else { return Err(Error::invalid("add: takes two inputs")) };
        launch::elementwise(device, "add", ["add_f32", "add_bf16"], &[a, b])
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, _device: &Arc<Device>, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        self.backward(saved, dy, needs)
    }
}

/// y = a ⊙ b, elementwise; a and b of one shape. da = dy ⊙ b, db = dy ⊙ a.
pub struct Mul;

impl Op for Mul {
    fn name(&self) -> &'static str {
        "mul"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        let [a, b] = inputs else { return Err(Error::invalid("mul: takes two inputs")) };
        let y = (|| zip!("mul", a, b, |a, b, _| a * b))()?;
        saved.keep_if(needs[1], "a", a);
        saved.keep_if(needs[0], "b", b);
        Ok(y)
    }

    fn backward(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let mut times = |name| -> Result<Tensor> { zip!("mul", &dy, &saved.take(name)?, |a, b, _| a * b) };
        let da = needs[0].then(|| times("b")).transpose()?;
        let db = needs[1].then(|| times("a")).transpose()?;
        Ok(vec![da, db])
    }
}

/// y = c·a for a constant c. da = c·dy.
pub struct Scale(
    /// The constant.
    pub f64,
);

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn forward(&self, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        dispatch!("scale", inputs[0].dtype(), T => elementwise::map::<T>(inputs[0], |a, _| <T as Scalar>::Acc::of(self.0) * a))
    }

    fn backward(&self, saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let mut unused = saved;
        Ok(vec![Some(self.forward(&[&dy], &[false], &mut unused)?)])
    }

    #[cfg(feature = "cuda")]
    fn forward_cuda(&self, device: &Arc<Device>, inputs: &[&Tensor], _needs: &[bool], _saved: &mut Saved) -> Result<Tensor> {
        launch::scaled(device, inputs[0], self.0)
    }

    #[cfg(feature = "cuda")]
    fn backward_cuda(&self, device: &Arc<Device>, _saved: Saved, dy: Tensor, _needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(launch::scaled(device, &dy, self.0)?)])
    }
}

/// y = Σ a: one element. da = dy everywhere.
pub struct Sum;

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn forward(&self, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
        // Only the shape is needed, but the tensor costs nothing: its storage is the caller's.
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

pub(super) fn suites() -> Vec<Suite> {
    fn two(op: impl Op, random: &mut crate::tensor::philox::Stream) -> Result<Case> {
        let dims = [random_size(random, 5), random_size(random, 7)];
        Ok(Case { op: Rc::new(op), inputs: vec![random_tensor(random, &dims)?, random_tensor(random, &dims)?] })
    }
    fn one(op: impl Op, random: &mut crate::tensor::philox::Stream) -> Result<Case> {
        let dims = [random_size(random, 5), random_size(random, 7)];
        Ok(Case { op: Rc::new(op), inputs: vec![random_tensor(random, &dims)?] })
    }
    vec![
        Suite { op: "Add", tolerance: 1e-8, case: |random| two(Add, random) },
        Suite { op: "Mul", tolerance: 1e-8, case: |random| two(Mul, random) },
        Suite { op: "Scale", tolerance: 1e-8, case: |random| one(Scale(-1.7), random) },
        Suite { op: "Sum", tolerance: 1e-8, case: |random| one(Sum, random) },
    ]
}
