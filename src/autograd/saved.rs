//! What forward keeps for backward.

use crate::{Error, Result, tensor::Tensor};

/// Tensors by name. Keeping a tensor shares its storage; the storage is freed when backward has taken it and no one else holds it.
#[derive(Default, Debug)]
pub struct Saved {
    tensors: Vec<(&'static str, Tensor)>,
}

impl Saved {
    /// Keeps `tensor` as `name`.
    pub fn keep(&mut self, name: &'static str, tensor: &Tensor) {
        self.tensors.push((name, tensor.clone()));
    }

    /// Keeps `tensor` only if `needed`.
    pub fn keep_if(&mut self, needed: bool, name: &'static str, tensor: &Tensor) {
        if needed {
            self.keep(name, tensor);
        }
    }

    /// Takes the first tensor that was kept as `name` and is still there.
    ///
    /// # Errors
    /// If there is none: forward and backward of an op disagree.
    pub fn take(&mut self, name: &'static str) -> Result<Tensor> {
        match self.tensors.iter().position(|(n, _)| *n == name) {
            Some(i) => Ok(self.tensors.remove(i).1),
            None => Err(Error::invalid(format!("saved: backward asks for {name:?}, which forward did not keep"))),
        }
    }

    /// [`Saved::take`] if `needed`, else nothing.
    ///
    /// # Errors
    /// As for [`Saved::take`].
    pub fn take_if(&mut self, needed: bool, name: &'static str) -> Result<Option<Tensor>> {
        needed.then(|| self.take(name)).transpose()
    }

    /// Names and tensors, in the order in which they were kept.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.tensors.iter().map(|(name, t)| (*name, t))
    }
}
