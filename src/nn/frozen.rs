//! The lowest layers of a model, if they are frozen: their output can be computed once and used in every epoch.

use super::{DistilBert, Pass, Weight};
use crate::autograd::{Tape, Var};
use crate::tensor::{Sequences, Tensor};
use crate::{AtLayer, Result};
use std::sync::Arc;

impl DistilBert {
    /// Number of the lowest layers in and below which nothing trains. Without dropout their output is the same in every epoch.
    pub fn frozen_layers(&self) -> usize {
        let mut embeddings = self.tables().chain([&self.layer_norm.gamma, &self.layer_norm.beta]);
        if self.prompt.is_some() || embeddings.any(Weight::trains) {
            return 0;
        }
        let frozen = self.blocks.iter().take_while(|block| !block.parts().into_iter().any(|part| part.weight().trains()));
        frozen.count()
    }

    /// Output `[T, D]` of the [`DistilBert::frozen_layers`] for packed ids `[T]`, without dropout. If all layers are frozen, only the first rows
    /// are computed: `[B, D]`.
    ///
    /// # Errors
    /// As [`DistilBert::forward`].
    pub fn frozen_features(&self, ids: &[u32], sequences: &Arc<Sequences>) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let pass = self.prepare(&mut tape, ids, &Pass::evaluation(sequences.clone()))?;
        let h = self.embed(&mut tape, ids, &pass).at(|| self.embeddings_name())?;
        Ok(self.layers(&mut tape, h, 0..self.frozen_layers(), &pass, &mut |_, _| {})?.value().clone())
    }

    /// Logits `[B, C]` of the output of [`DistilBert::frozen_features`] for the same sequences.
    ///
    /// # Errors
    /// If `features` are of other sequences.
    pub fn forward_on_features<'m>(&'m self, tape: &mut Tape<'m>, features: &Tensor, pass: &Pass) -> Result<Var> {
        let pass = self.with_shared(tape, pass)?;
        let layers = self.frozen_layers()..self.blocks.len();
        // The features go to the device of the model, which any weight that is not computed tells.
        let h = tape.constant(&features.to_device_of(&self.layer_norm.gamma.value()?)?);
        let cls = self.layers(tape, h, layers, &pass, &mut |_, _| {})?;
        self.head(tape, &cls, &pass.first_rows())
    }
}
