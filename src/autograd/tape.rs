//! The tape: reverse-mode differentiation, and nothing else. Linnainmaa 1970; Griewank & Walther 2008, "Evaluating derivatives", chapter 3.
//!
//! Forward records each operation after the operations that made its inputs. Backward walks the record from the end. When it reaches a
//! node, every use of the node's value has already added its contribution, so the sum is dL/d(value), the cotangent of that value. The
//! node's op turns it into contributions for its own inputs.
//!
//! `run.rs` calls an op and checks what it returns. A first reader can skip the ledger and segments: they serve `lowrank explain` and
//! checkpointing.

use super::grads::Cotangent;
use super::record::Ledger;
use super::{Grads, Op, ParamId, Parameter, Saved, run};
use crate::tensor::{DType, Shape, Tensor};
use crate::{Error, Result};
use std::collections::HashMap;
use std::rc::Rc;

/// A value, and its node on the tape if a gradient must reach it.
#[derive(Clone, Debug)]
pub struct Var {
    pub(super) value: Tensor,
    /// `None`: no gradient, ever.
    pub(super) node: Option<usize>,
}

impl Var {
    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        self.value.shape()
    }

    /// Whether a gradient will be computed for it. `false` for frozen weights and for values that depend on constants alone.
    pub fn needs_grad(&self) -> bool {
        self.node.is_some()
    }
}

/// Where a gradient goes.
pub(super) enum Node<'m> {
    /// A parameter: its gradient is a result.
    Leaf(ParamId),
    /// An operation, shared (`Rc`) because a gradient check records one op on several tapes. `inputs[i]` is the node of input i, if a
    /// gradient must reach it. `like[i]` is the shape and type of input i: `run.rs` checks that its gradient has the same.
    Op { op: Rc<dyn Op>, saved: Saved, inputs: Vec<Option<usize>>, like: Vec<(Shape, DType)> },
    /// A checkpointed part of a model: its operations run again in backward (`checkpoint.rs`). The tape keeps only its inputs.
    Segment { inputs: Vec<Var>, backward: Box<SegmentBackward<'m>> },
}

/// From dy, the contribution to each input of a segment, if a gradient must reach it. Gradients of parameters are added to the [`Grads`].
pub(super) type SegmentBackward<'m> = dyn FnOnce(Tensor, &mut Grads) -> Result<Vec<Option<Tensor>>> + 'm;

/// On a tape on which nothing trains: the value of a trained tensor, from its identity and its own value. Inference takes its own value. A
/// gradient check computes y at several places near x, and so moves it by a small step.
pub(super) type Substitute = Rc<dyn Fn(ParamId, &Tensor) -> Tensor>;

/// The operations of one forward pass, in order. Borrows the model (`'m`), so no parameter changes under it.
#[derive(Default)]
pub struct Tape<'m> {
    pub(super) nodes: Vec<Node<'m>>,
    pub(super) leaves: HashMap<ParamId, usize>,
    pub(super) ledger: Option<Ledger>,
    pub(super) substitute: Option<Substitute>,
}

impl<'m> Tape<'m> {
    /// An empty tape.
    pub fn new() -> Self {
        Tape::default()
    }

    /// A tape on which nothing trains: it stays empty, operations save nothing, and there are no gradients.
    pub fn inference() -> Self {
        Tape::with_constants(Rc::new(|_, value| value.clone()))
    }

    /// A tape on which nothing trains, and each trained tensor has the value that `substitute` gives.
    pub(super) fn with_constants(substitute: Substitute) -> Self {
        Tape { substitute: Some(substitute), ..Tape::default() }
    }

    /// A value that gets no gradient: an input, or a frozen weight.
    pub fn constant(&self, value: &Tensor) -> Var {
        Var { value: value.clone(), node: None }
    }

    /// A trained tensor, the only source of gradients. The same parameter gives the same leaf.
    pub fn parameter(&mut self, p: &'m Parameter) -> Var {
        self.leaf(p.id(), p.value())
    }

    /// The leaf whose gradient is found under `id`.
    pub(super) fn leaf(&mut self, id: ParamId, value: &Tensor) -> Var {
        if let Some(substitute) = &self.substitute {
            return self.constant(&substitute(id, value));
        }
        let node = *self.leaves.entry(id).or_insert_with(|| {
            self.nodes.push(Node::Leaf(id));
            self.nodes.len() - 1
        });
        Var { value: value.clone(), node: Some(node) }
    }

    /// Runs `op`, and records it only if a gradient must reach one of its inputs.
    ///
    /// # Errors
    /// Those of the op, and if its inputs are on a GPU and it has no code for one.
    pub fn apply(&mut self, op: impl Op, inputs: &[&Var]) -> Result<Var> {
        self.apply_shared(Rc::new(op), inputs)
    }

    /// [`Tape::apply`] for an op that several tapes share: a gradient check runs one op many times.
    pub(super) fn apply_shared(&mut self, op: Rc<dyn Op>, inputs: &[&Var]) -> Result<Var> {
        let nodes: Vec<Option<usize>> = inputs.iter().map(|v| v.node).collect();
        let needs: Vec<bool> = nodes.iter().map(Option::is_some).collect();
        let values: Vec<&Tensor> = inputs.iter().map(|v| &v.value).collect();
        let mut saved = Saved::default();
        let value = run::forward(&*op, &values, &needs, &mut saved)?;
        if let Some(ledger) = &mut self.ledger {
            ledger.record(&*op, &values, &needs, &saved, &value);
        }
        if !needs.contains(&true) {
            return Ok(Var { value, node: None });
        }
        let like = values.iter().map(|v| (v.shape().clone(), v.dtype())).collect();
        Ok(self.push(Node::Op { op, saved, inputs: nodes, like }, value))
    }

    /// Records the node of `value`.
    pub(super) fn push(&mut self, node: Node<'m>, value: Tensor) -> Var {
        self.nodes.push(node);
        Var { value, node: Some(self.nodes.len() - 1) }
    }

    /// How many leaves and operations are recorded.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if nothing is recorded, as after inference.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// dL/dp of the scalar loss L for every parameter p. Consumes the tape, and frees what was saved as it goes.
    ///
    /// # Errors
    /// If `loss` has more than one element, or an op fails.
    pub fn backward(self, loss: &Var) -> Result<Grads> {
        if loss.shape().len() != 1 {
            return Err(Error::shape("backward", "a loss of one element", &[loss.shape()]));
        }
        let one = Tensor::from_f64(vec![1.0], loss.value.dtype(), loss.shape())?.to_device_of(&loss.value)?;
        self.vjp(loss, one)
    }

    /// The vector-Jacobian product dyᵀ·∂y/∂p for every parameter p. Consumes the tape.
    ///
    /// # Errors
    /// If `dy` is not shaped like `y`, or an op fails.
    pub fn vjp(self, y: &Var, dy: Tensor) -> Result<Grads> {
        run::check("vjp", y.shape(), y.value.dtype(), &dy)?;
        let mut result = Grads::default();
        let Some(last) = y.node else { return Ok(result) };
        let op_adds = |node: &Node| matches!(node, Node::Op { op, .. } if op.adds_cotangents());
        let start = |node| Cotangent { op_adds: op_adds(node), ..Cotangent::default() };
        let mut cotangents: Vec<Cotangent> = self.nodes.iter().map(start).collect(); // one for each node
        cotangents[last].sum = Some(dy);
        for (i, node) in self.nodes.into_iter().enumerate().rev() {
            let Cotangent { sum: Some(dy), unadded, .. } = std::mem::take(&mut cotangents[i]) else { continue };
            let (inputs, contributions) = match node {
                Node::Leaf(id) => {
                    result.insert(id, dy)?;
                    continue;
                }
                Node::Op { op, saved, inputs, like } => {
                    let contributions = run::backward(&*op, saved, (dy, unadded), &inputs, &like)?;
                    (inputs, contributions)
                }
                Node::Segment { inputs, backward } => (inputs.iter().map(|v| v.node).collect(), backward(dy, &mut result)?),
            };
            for (input, contribution) in inputs.into_iter().zip(contributions) {
                if let (Some(input), Some(g)) = (input, contribution) {
                    cotangents[input].add(g)?;
                }
            }
        }
        Ok(result)
    }
}
