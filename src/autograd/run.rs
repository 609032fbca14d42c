//! Runs an op, and checks what it returns. Errors name the op.

use super::{Op, Saved};
use crate::tensor::{DType, Shape, Tensor};
use crate::{Error, Result};

/// Runs forward of `op`.
pub fn forward(op: &dyn Op, inputs: &[&Tensor], needs: &[bool], saved: &mut Saved) -> Result<Tensor> {
    op.forward(inputs, needs, saved).map_err(|e| without_kernel(e, op.name()))
}

/// Runs backward of `op` for dy + `more`, and checks that each gradient that is needed is there and looks like its input.
pub fn backward(
    op: &dyn Op,
    saved: Saved,
    (dy, more): (Tensor, Option<Tensor>),
    inputs: &[Option<usize>],
    like: &[(Shape, DType)],
) -> Result<Vec<Option<Tensor>>> {
    let (name, needs) = (op.name(), inputs.iter().map(Option::is_some).collect::<Vec<_>>());
    let contributions = match more {
        Some(more) => op.backward_of_two(saved, dy, more, &needs),
        None => op.backward(saved, dy, &needs),
    };
    let contributions = contributions.map_err(|e| without_kernel(e, name))?;
    if contributions.len() != needs.len() {
        return Err(Error::shape(name, "one contribution per input", &[&[needs.len()], &[contributions.len()]]));
    }
    for ((need, g), (shape, dtype)) in needs.into_iter().zip(&contributions).zip(like) {
        match g {
            Some(g) if need => check(name, shape, *dtype, g)?,
            None if need => return Err(Error::invalid(format!("{name}: backward returned no gradient where one is needed"))),
            _ => {}
        }
    }
    Ok(contributions)
}

/// # Errors
/// If `g` is not a gradient of a value of `shape` and `dtype`.
pub fn check(name: &'static str, shape: &Shape, dtype: DType, g: &Tensor) -> Result<()> {
    if g.shape() != shape {
        return Err(Error::shape(name, "a gradient shaped like its value", &[shape, g.shape()]));
    }
    if g.dtype() != dtype {
        return Err(Error::dtype(name, "a gradient of its value's type", &[dtype, g.dtype()]));
    }
    Ok(())
}

/// An op that reads a tensor of a GPU as if it were on the host has no kernel: the error names the op.
fn without_kernel(error: Error, op: &'static str) -> Error {
    match error {
        Error::OnGpu => Error::invalid(format!("{op}: has no kernel for a GPU; compute with --device cpu")),
        other => other,
    }
}
