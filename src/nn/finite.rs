//! Looks for what makes a model answer NaN.

use super::{DistilBert, Weight};
use crate::Result;
use crate::autograd::Tape;

impl DistilBert {
    /// The first weight that holds a NaN or an infinity, as `tensor "classifier.bias" holds NaN at [0]`; `None` if all numbers are finite. It reads
    /// the whole model, for the message of an error.
    ///
    /// # Errors
    /// If a computed weight cannot be computed, or a device fails.
    pub fn not_finite(&self) -> Result<Option<String>> {
        let (mut tape, mut all) = (Tape::inference(), Vec::new());
        self.shared.iter().flat_map(Weight::parameters).for_each(|p| tape.share(p));
        self.visit(&mut |part| all.push(part.weight()));
        for weight in all {
            if let Some(what) = weight.var(&mut tape)?.value().not_finite()? {
                return Ok(Some(format!("tensor {:?} {what}", weight.name())));
            }
        }
        Ok(None)
    }
}
