//! Checks of a model's weights: numbers that are not finite, and files that another program changed.

use super::{DistilBert, Origin, Pass, Weight};
use crate::Result;
use crate::autograd::Tape;
use crate::tensor::{MappedFile, Sequences};
use std::sync::Arc;

impl DistilBert {
    /// Checks that no other program wrote to the mapped files of the weights, of the base and of an adapter, since they were opened. What was computed
    /// with them may be used only after this.
    ///
    /// # Errors
    /// If one did; the message names the file.
    pub fn check_unchanged(&self) -> Result<()> {
        let mut last = None;
        for weight in self.weights() {
            let file = match weight {
                Weight::Frozen { value, .. } => value.mapped_file(),
                Weight::Trained(parameter) => parameter.value().mapped_file(),
                Weight::Computed { .. } => None,
            };
            // Neighbours are mostly from one file.
            if file.map(std::ptr::from_ref) != last {
                file.map_or(Ok(()), MappedFile::check_unchanged)?;
                last = file.map(std::ptr::from_ref);
            }
        }
        Ok(())
    }

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
