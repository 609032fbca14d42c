//! The tape: operations in execution order, which is a topological order.

use super::{Grads, Op, ParamId, Parameter, Saved, backward, forward, grads};
use crate::tensor::{DType, Shape, Tensor};
use crate::{Error, Result};
use std::collections::{BTreeSet, HashMap};

/// A value, and its place on the tape if a gradient must reach it.
#[derive(Clone, Debug)]
pub struct Var {
    value: Tensor,
    node: Option<usize>,
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

    /// Whether a gradient will be computed for it. `false` for frozen weights and all that depends on nothing else.
    pub fn needs_grad(&self) -> bool {
        self.node.is_some()
    }
}

/// What one operation did, for `lowrank explain` and for tests of what is saved.
#[derive(Clone, Debug)]
pub struct Record {
    /// Name of the op.
    pub op: &'static str,
    /// The layer it ran in, if the tape was told.
    pub layer: String,
    /// Shape of the output.
    pub output: Shape,
    /// Which inputs a gradient must reach.
    pub needs: Vec<bool>,
    /// Name, bytes and identity of the storage of each saved tensor.
    pub saved: Vec<(&'static str, usize, usize)>,
    /// Floating-point operations of forward, of backward, and those that backward is spared.
    pub flops: [u64; 3],
}

enum Node<'m> {
    Leaf(ParamId),
    Op { op: Box<dyn Op>, saved: Saved, inputs: Vec<Option<usize>>, wanted: Vec<(Shape, DType)> },
    Checkpoint { segment: Segment<'m>, inputs: Vec<Var> },
}

/// Operations that are run again in backward.
type Segment<'m> = Box<dyn Fn(&mut Tape<'m>, &[Var]) -> Result<Var> + 'm>;

/// The operations of one forward pass, in order. Borrows the model (`'m`), so no parameter changes under it.
#[derive(Default)]
pub struct Tape<'m> {
    nodes: Vec<Node<'m>>,
    leaves: HashMap<ParamId, usize>,
    ledger: Option<Vec<Record>>,
    layer: String,
    shared: Option<&'m Parameter>,
    frozen: bool,
}

impl<'m> Tape<'m> {
    /// An empty tape.
    pub fn new() -> Self {
        Tape::default()
    }

    /// A tape on which nothing trains: it stays empty, operations save nothing, and there are no gradients.
    pub fn inference() -> Self {
        Tape { frozen: true, ..Tape::default() }
    }

    /// An empty tape that also keeps a [`Record`] of every operation.
    pub fn with_ledger() -> Self {
        Tape { ledger: Some(Vec::new()), ..Tape::default() }
    }

    /// A value no gradient is computed for: inputs and frozen weights.
    pub fn constant(&self, value: &Tensor) -> Var {
        Var { value: value.clone(), node: None }
    }

    /// A trained tensor, the only source of gradients. The same parameter gives the same leaf.
    pub fn parameter(&mut self, p: &'m Parameter) -> Var {
        if self.frozen {
            return self.constant(p.value());
        }
        let node = *self.leaves.entry(p.id()).or_insert_with(|| {
            self.nodes.push(Node::Leaf(p.id()));
            self.nodes.len() - 1
        });
        Var { value: p.value().clone(), node: Some(node) }
    }

    /// Names the parameter that [`Tape::shared`] gives.
    pub fn share(&mut self, p: &'m Parameter) {
        self.shared = Some(p);
    }

    /// The leaf of the parameter that many weights are computed from, if the model has one.
    pub fn shared(&mut self) -> Option<Var> {
        self.shared.map(|p| self.parameter(p))
    }

    /// Runs `op`, and records it only if a gradient must reach one of its inputs.
    ///
    /// # Errors
    /// Those of the op.
    pub fn apply(&mut self, op: impl Op, inputs: &[&Var]) -> Result<Var> {
        let nodes: Vec<Option<usize>> = inputs.iter().map(|v| v.node).collect();
        let needs: Vec<bool> = nodes.iter().map(Option::is_some).collect();
        let values: Vec<&Tensor> = inputs.iter().map(|v| &v.value).collect();
        let mut saved = Saved::default();
        let value = forward(&op, &values, &needs, &mut saved)?;
        let recorded = needs.contains(&true);
        if let Some(ledger) = &mut self.ledger {
            let (forward, backward) = op.flops(&values, &needs);
            ledger.push(Record {
                op: op.name(),
                layer: self.layer.clone(),
                output: value.shape().clone(),
                saved: saved.iter().map(|(name, t)| (name, t.bytes(), t.storage_id())).collect(),
                flops: [forward, if recorded { backward } else { 0 }, op.flops_frozen(&values, &needs)],
                needs,
            });
        }
        if !recorded {
            return Ok(Var { value, node: None });
        }
        let wanted = values.iter().map(|v| (v.shape().clone(), v.dtype())).collect();
        self.nodes.push(Node::Op { op: Box::new(op), saved, inputs: nodes, wanted });
        Ok(Var { value, node: Some(self.nodes.len() - 1) })
    }

    /// Runs `segment` and keeps only its inputs: backward runs it again to get back what it would have saved. Chen et al. 2016, "Training deep
    /// nets with sublinear memory cost", <https://arxiv.org/abs/1604.06174>. The second run must compute the same: dropout that is drawn
    /// from counters does.
    ///
    /// # Errors
    /// Those of the segment.
    pub fn checkpoint(&mut self, inputs: &[&Var], segment: impl Fn(&mut Tape<'m>, &[Var]) -> Result<Var> + 'm) -> Result<Var> {
        let inputs: Vec<Var> = inputs.iter().map(|v| (*v).clone()).collect();
        let (mut trial, leaves) = Tape::of_leaves(&inputs, self.shared);
        (trial.ledger, trial.layer, trial.frozen) = (self.ledger.take(), std::mem::take(&mut self.layer), self.frozen);
        let value = segment(&mut trial, &leaves)?;
        (self.ledger, self.layer) = (trial.ledger.take(), std::mem::take(&mut trial.layer));
        if !value.needs_grad() {
            return Ok(Var { node: None, ..value });
        }
        self.nodes.push(Node::Checkpoint { segment: Box::new(segment), inputs });
        Ok(Var { value: value.value, node: Some(self.nodes.len() - 1) })
    }

    /// A tape of its own for a segment: a leaf for each input that a gradient must reach.
    fn of_leaves(inputs: &[Var], shared: Option<&'m Parameter>) -> (Tape<'m>, Vec<Var>) {
        let mut tape = Tape { shared, ..Tape::new() };
        let mut leaf = |v: &Var| {
            v.node?;
            tape.nodes.push(Node::Leaf(ParamId::fresh()));
            Some(tape.nodes.len() - 1)
        };
        let leaves = inputs.iter().map(|v| Var { value: v.value.clone(), node: leaf(v) }).collect();
        (tape, leaves)
    }

    fn leaf_id(&self, v: &Var) -> Option<ParamId> {
        match self.nodes.get(v.node?)? {
            Node::Leaf(id) => Some(*id),
            _ => None,
        }
    }

    /// Bytes that are kept for backward, each storage counted once, but for those in `own`: the model's.
    pub fn kept_bytes(&self, own: &BTreeSet<usize>) -> usize {
        let mut seen = own.clone();
        let mut count = |t: &Tensor| if seen.insert(t.storage_id()) { t.storage().bytes() } else { 0 };
        let kept = self.nodes.iter().map(|node| match node {
            Node::Leaf(_) => 0,
            Node::Op { saved, .. } => saved.iter().map(|(_, t)| count(t)).sum::<usize>(),
            Node::Checkpoint { inputs, .. } => inputs.iter().map(|v| count(&v.value)).sum(),
        });
        kept.sum()
    }

    /// Names the layer that the next operations belong to, for the ledger.
    pub fn enter(&mut self, layer: &str) {
        if self.ledger.is_some() {
            self.layer = layer.to_string();
        }
    }

    /// The records so far; empty without a ledger.
    pub fn ledger(&self) -> &[Record] {
        self.ledger.as_deref().unwrap_or_default()
    }

    /// How many leaves and operations are recorded.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if nothing is recorded, as after inference.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Gradients of the scalar `loss`. Consumes the tape, freeing what was saved as it goes.
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
        check("vjp", y.shape(), y.value.dtype(), &dy)?;
        let mut result = Grads::default();
        let Some(last) = y.node else { return Ok(result) };
        let mut pending: Vec<Option<Tensor>> = self.nodes.iter().map(|_| None).collect();
        pending[last] = Some(dy);
        for (i, node) in self.nodes.into_iter().enumerate().rev() {
            let Some(dy) = pending[i].take() else { continue };
            match node {
                Node::Leaf(id) => result.insert(id, dy)?,
                Node::Op { op, saved, inputs, wanted } => {
                    let name = op.name();
                    let needs: Vec<bool> = inputs.iter().map(Option::is_some).collect();
                    let contributions = backward(&*op, saved, dy, &needs)?;
                    if contributions.len() != inputs.len() {
                        return Err(Error::shape(
                            name,
                            "one contribution per input",
                            &[&[inputs.len()], &[contributions.len()]],
                        ));
                    }
                    for ((input, g), (shape, dtype)) in inputs.into_iter().zip(contributions).zip(&wanted) {
                        match (input, g) {
                            (Some(input), Some(g)) => {
                                check(name, shape, *dtype, &g)?;
                                add(&mut pending[input], g)?;
                            }
                            (Some(_), None) => {
                                return Err(Error::invalid(format!("{name}: backward returned no gradient where one is needed")));
                            }
                            (None, _) => {}
                        }
                    }
                }
                Node::Checkpoint { segment, inputs } => {
                    let (mut tape, leaves) = Tape::of_leaves(&inputs, self.shared);
                    let y = segment(&mut tape, &leaves)?;
                    let ids: Vec<Option<ParamId>> = leaves.iter().map(|v| tape.leaf_id(v)).collect();
                    let mut grads = tape.vjp(&y, dy)?;
                    for (input, id) in inputs.iter().zip(ids) {
                        if let (Some(input), Some(g)) = (input.node, id.and_then(|id| grads.take_id(id))) {
                            add(&mut pending[input], g)?;
                        }
                    }
                    result.add(grads)?;
                }
            }
        }
        Ok(result)
    }
}

/// The one place where the contributions to a gradient are summed.
fn add(sum: &mut Option<Tensor>, g: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(old) => grads::sum(old, &g)?,
        None => g,
    });
    Ok(())
}

fn check(name: &'static str, shape: &Shape, dtype: DType, g: &Tensor) -> Result<()> {
    if g.shape() != shape {
        return Err(Error::shape(name, "a gradient shaped like its value", &[shape, g.shape()]));
    }
    if g.dtype() != dtype {
        return Err(Error::dtype(name, "a gradient of its value's type", &[dtype, g.dtype()]));
    }
    Ok(())
}
