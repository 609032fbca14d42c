//! Finds the weight that makes a model answer NaN.

use super::{DistilBert, Origin, Pass};
use crate::Result;
use crate::autograd::Tape;
use crate::tensor::Sequences;
use std::sync::Arc;

impl DistilBert {
    /// The first weight that holds a NaN or an infinity, as `tensor "classifier.bias" holds NaN at [0]`; `None` if all numbers are finite.
    /// It reads the whole model, for the message of an error.
    ///
    /// # Errors
    /// If a computed weight cannot be computed, or a device fails.
    pub fn not_finite(&self) -> Result<Option<String>> {
        let mut tape = Tape::inference();
        // Weights do not depend on the sequences.
        let pass = self.with_shared(&mut tape, &Pass::evaluation(Arc::new(Sequences::new(&[], Vec::new())?)))?;
        for weight in self.parts().into_iter().map(Origin::weight) {
            if let Some(what) = weight.var(&mut tape, &pass)?.value().not_finite()? {
                return Ok(Some(format!("tensor {:?} {what}", weight.name())));
            }
        }
        Ok(None)
    }
}
