//! Checkpointing: less memory for more time. Chen et al. 2016, "Training deep nets with sublinear memory cost",
//! <https://arxiv.org/abs/1604.06174>.
//!
//! A segment of a model runs, and its saved tensors are dropped: only its inputs stay. Backward runs the segment once more, on a tape of its own,
//! and differentiates that tape. The second run must compute the same numbers; dropout does, because its masks are drawn from counters.

use super::tape::{Node, Tape, Var};
use super::{Grads, ParamId};
use crate::Result;
use crate::tensor::Tensor;

/// On the tape of a segment, each input that a gradient must reach is a leaf. Returns the inputs there, and the identities of their leaves.
fn add_leaves(tape: &mut Tape, inputs: &[Var]) -> (Vec<ParamId>, Vec<Var>) {
    let leaf = |v: &Var| {
        let id = ParamId::fresh();
        (id, if v.needs_grad() { tape.leaf(id, &v.value) } else { v.clone() })
    };
    inputs.iter().map(leaf).unzip()
}

impl<'m> Tape<'m> {
    /// Runs `segment`, keeps its inputs alone, and runs it again in backward. It must compute the same both times.
    ///
    /// # Errors
    /// Those of the segment.
    pub fn checkpoint(&mut self, inputs: &[&Var], segment: impl Fn(&mut Tape<'m>, &[Var]) -> Result<Var> + 'm) -> Result<Var> {
        let inputs: Vec<Var> = inputs.iter().map(|v| (*v).clone()).collect();
        let mut first = Tape { substitute: self.substitute.clone(), ..Tape::new() };
        let (_, leaves) = add_leaves(&mut first, &inputs);
        // The ledger is lent to the first run, and comes back even if that fails.
        first.ledger = self.ledger.take();
        let value = segment(&mut first, &leaves);
        self.ledger = first.ledger.take();
        let value = value?;
        if !value.needs_grad() {
            return Ok(value);
        }
        let kept = inputs.clone();
        let backward = move |dy: Tensor, result: &mut Grads| {
            let mut tape = Tape::new();
            let (ids, leaves) = add_leaves(&mut tape, &kept);
            let y = segment(&mut tape, &leaves)?;
            let mut grads = tape.vjp(&y, dy)?;
            let contributions = ids.into_iter().map(|id| grads.take_id(id)).collect();
            result.add(grads)?;
            Ok(contributions)
        };
        Ok(self.push(Node::Segment { inputs, backward: Box::new(backward) }, value.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::autograd::Parameter;

    #[test]
    fn a_failing_segment_leaves_ledger_and_layer() {
        let p = Parameter::new("p", Tensor::new(vec![1.0], [1]).unwrap());
        let mut tape = Tape::with_ledger();
        tape.enter("layer");
        let x = tape.parameter(&p);
        assert!(tape.checkpoint(&[&x], |tape, x| tape.tanh(&x[0]).and(Err(Error::invalid("stop")))).is_err());
        tape.tanh(&x).unwrap();
        let found: Vec<_> = tape.ledger().iter().map(|r| (r.op, r.layer.as_str())).collect();
        assert_eq!(found, [("tanh", "layer"); 2]);
    }
}
