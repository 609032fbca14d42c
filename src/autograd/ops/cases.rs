//! The gradient checks of the ops: for each op a tolerance, and a function that draws its settings and its inputs.
//!
//! Sizes are small, with 1 and odd numbers among them. Inputs stay away from places without a derivative.

use super::{
    Add, Attention, BceWithLogits, Cast, CrossEntropy, Dropout, Embedding, EmbeddingLayerNorm, FirstRow, Gelu, GroupedLinear, LayerNorm,
    Linear, Mul, Relu, ResidualLayerNorm, Scale, SquaredError, Sum, Tanh, Term,
};
use crate::Result;
use crate::autograd::Op;
use crate::autograd::gradcheck::{Case, Suite, random_size, random_tensor};
use crate::tensor::philox::Stream;
use crate::tensor::{DType, Mask, Sequences, Tensor};
use std::sync::Arc;

/// The gradient checks of every op. For the tolerances see [`Suite::tolerance`].
pub fn suites() -> Vec<Suite> {
    vec![
        Suite { op: "Add", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Add, 2, random) },
        Suite { op: "Mul", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Mul, 2, random) },
        Suite { op: "Scale", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Scale(-1.7), 1, random) },
        Suite { op: "Sum", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Sum, 1, random) },
        Suite { op: "Relu", tolerance: 1e-8, case: relu },
        Suite { op: "Tanh", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Tanh, 1, random) },
        Suite { op: "Gelu", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Gelu, 1, random) },
        Suite { op: "Dropout", tolerance: 1e-8, case: dropout },
        Suite { op: "LayerNorm", tolerance: 1e-6, case: layer_norm },
        Suite { op: "ResidualLayerNorm", tolerance: 1e-6, case: residual_layer_norm },
        Suite { op: "Linear", tolerance: 1e-8, case: |random| linear(random).map(|(op, x)| Case::new(op, x)) },
        Suite { op: "Embedding", tolerance: 1e-8, case: embedding },
        Suite { op: "EmbeddingLayerNorm", tolerance: 1e-6, case: embedding_layer_norm },
        Suite { op: "Attention", tolerance: 1e-6, case: |random| attention(random).map(|(op, x)| Case::new(op, x)) },
        Suite { op: "FirstRow", tolerance: 1e-8, case: first_row },
        Suite { op: "CrossEntropy", tolerance: 1e-8, case: cross_entropy },
        Suite { op: "BceWithLogits", tolerance: 1e-8, case: |random| target_loss(BceWithLogits { divisor: 3.7 }, random) },
        Suite { op: "SquaredError", tolerance: 1e-8, case: |random| target_loss(SquaredError { divisor: 3.7 }, random) },
        Suite { op: "Cast", tolerance: 1e-8, case: |random| Case::of_equal_shapes(Cast { dtype: DType::F64 }, 1, random) },
    ]
}

/// Numbers away from 0, where relu has no derivative.
fn relu(random: &mut Stream) -> Result<Case> {
    let mut case = Case::of_equal_shapes(Relu, 1, random)?;
    let away = case.inputs[0].host::<f64>()?.iter().map(|x| x + 0.1 * x.signum()).collect::<Vec<_>>();
    case.inputs[0] = Tensor::new(away, case.inputs[0].shape())?;
    Ok(case)
}

/// A few sequences.
fn dropout(random: &mut Stream) -> Result<Case> {
    let sequences = random_sequences(random, 5)?;
    let d = random_size(random, 9);
    let x = random_tensor(random, &[sequences.tokens(), d])?;
    let mask = Mask { p: 0.3, seed: u64::from(random.word()), site: 3 };
    Ok(Case::new(Dropout { mask, sequences }, vec![x]))
}

/// A few rows.
fn layer_norm(random: &mut Stream) -> Result<Case> {
    // Two columns or more, and a visible eps: with one column, or two equal ones, y does not depend on x.
    let (n, d) = (random_size(random, 5), 2 + random.below(9));
    let inputs = vec![random_tensor(random, &[n, d])?, random_tensor(random, &[d])?, random_tensor(random, &[d])?];
    Ok(Case::new(LayerNorm { eps: 0.1 }, inputs))
}

/// A few sequences, with and without dropout.
fn residual_layer_norm(random: &mut Stream) -> Result<Case> {
    let sequences = random_sequences(random, 4)?;
    let (t, d) = (sequences.tokens(), 2 + random.below(9));
    let mut draw = |dims: &[usize]| random_tensor(random, dims);
    let inputs = vec![draw(&[t, d])?, draw(&[t, d])?, draw(&[d])?, draw(&[d])?];
    let mask = Mask { p: 0.3, seed: u64::from(random.word()), site: 1 };
    let mask = (random.below(2) == 0).then_some(mask);
    Ok(Case::new(ResidualLayerNorm { eps: 0.1, mask, sequences }, inputs))
}

/// One to three linears with up to two terms each, and their inputs.
pub(super) fn linear(random: &mut Stream) -> Result<(Linear, Vec<Tensor>)> {
    let sequences = random_sequences(random, 3)?;
    let (input, output) = (random_size(random, 6), random_size(random, 6));
    let mut inputs = vec![random_tensor(random, &[sequences.tokens(), input])?];
    let mut members = Vec::new();
    for m in 0..1 + random.below(3) {
        let bias = random.below(2) == 0;
        inputs.push(random_tensor(random, &[output, input])?);
        if bias {
            inputs.push(random_tensor(random, &[output])?);
        }
        let mut terms = Vec::new();
        for t in 0..random.below(3) {
            let r = random_size(random, 3);
            inputs.push(random_tensor(random, &[r, input])?);
            inputs.push(random_tensor(random, &[output, r])?);
            let mask = Mask { p: 0.4, seed: u64::from(random.word()), site: (10 * m + t) as u32 };
            terms.push(Term { scale: 2.0, mask: (random.below(2) == 0).then_some(mask) });
        }
        members.push(GroupedLinear { bias, terms });
    }
    Ok((Linear { members, sequences: Some(sequences) }, inputs))
}

/// A small table, with rows that are taken several times.
fn embedding(random: &mut Stream) -> Result<Case> {
    let (v, t, d) = (random_size(random, 4), random_size(random, 6), random_size(random, 5));
    let indices: Vec<u32> = (0..t).map(|_| random.below(v) as u32).collect();
    Ok(Case::new(Embedding { dtype: DType::F64 }, vec![random_tensor(random, &[v, d])?, Tensor::new(indices, [t])?]))
}

/// A few texts, with and without a prompt and dropout.
pub(super) fn embedding_layer_norm(random: &mut Stream) -> Result<Case> {
    let text = random_sequences(random, 4)?;
    let (v, d, prompt) = (random_size(random, 6), 2 + random.below(9), random.below(3));
    let ids: Vec<u32> = (0..text.tokens()).map(|_| random.below(v) as u32).collect();
    let ids = Tensor::new(ids, [text.tokens()])?;
    let mut inputs = vec![ids, random_tensor(random, &[v, d])?, random_tensor(random, &[4 + prompt, d])?];
    inputs.extend([random_tensor(random, &[d])?, random_tensor(random, &[d])?]);
    if prompt > 0 {
        inputs.push(random_tensor(random, &[prompt, d])?);
    }
    let sequences = Arc::new(text.lengthened(prompt));
    let mask = Mask { p: 0.3, seed: u64::from(random.word()), site: 1 };
    let mask = (random.below(2) == 0).then_some(mask);
    Ok(Case::new(EmbeddingLayerNorm { dtype: DType::F64, eps: 0.1, sequences, prompt, mask }, inputs))
}

/// A few short sequences, with the inputs in one, two or three tensors, with and without extra keys and dropout.
pub(super) fn attention(random: &mut Stream) -> Result<(Attention, Vec<Tensor>)> {
    let keys = random_sequences(random, 5)?;
    let (heads, width) = (1 + random.below(2), 1 + random.below(4));
    let d = heads * width;
    let (tensors, extra) = (1 + random.below(3), random.below(3) == 0);
    let queries = if tensors > 1 { Arc::new(keys.first_rows()) } else { keys.clone() };
    let t = keys.tokens();
    let shapes: &[&[usize]] = match tensors {
        1 => &[&[3, t, d]],
        2 => &[&[queries.tokens(), d], &[2, t, d]],
        _ => &[&[queries.tokens(), d], &[t, d], &[t, d]],
    };
    let mut inputs = shapes.iter().map(|dims| random_tensor(random, dims)).collect::<Result<Vec<_>>>()?;
    if extra {
        inputs.extend([random_tensor(random, &[2, d])?, random_tensor(random, &[2, d])?]);
    }
    let mask = Mask { p: 0.3, seed: u64::from(random.word()), site: 1 };
    let mask = (random.below(2) == 0).then_some(mask);
    Ok((Attention { heads, queries, keys, extra, mask }, inputs))
}

/// A few sequences.
fn first_row(random: &mut Stream) -> Result<Case> {
    let (sequences, d) = (random_sequences(random, 4)?, random_size(random, 5));
    let x = random_tensor(random, &[sequences.tokens(), d])?;
    Ok(Case::new(FirstRow { sequences }, vec![x]))
}

/// Half of the cases are without weights and smoothing.
fn cross_entropy(random: &mut Stream) -> Result<Case> {
    let (b, c) = (random_size(random, 5), 2 + random.below(4));
    let labels: Vec<u32> = (0..b).map(|_| random.below(c) as u32).collect();
    let inputs = vec![random_tensor(random, &[b, c])?, Tensor::new(labels, [b])?];
    let mut op = CrossEntropy::plain(b);
    if random.below(2) == 1 {
        op.weights = (0..c).map(|_| 0.1 + 3.0 * random.uniform()).collect();
        op.smoothing = random.uniform();
    }
    Ok(Case::new(op, inputs))
}

/// Half of the cases have large logits.
fn target_loss(op: impl Op, random: &mut Stream) -> Result<Case> {
    let dims = [random_size(random, 5), random_size(random, 4)];
    let large = if random.below(2) == 1 { 9.0 } else { 1.0 };
    let z = random_tensor(random, &dims)?.to_f64()?.into_iter().map(|z| large * z).collect::<Vec<f64>>();
    Ok(Case::new(op, vec![Tensor::new(z, dims)?, random_tensor(random, &dims)?]))
}

/// One to three sequences of up to `most` rows.
pub(super) fn random_sequences(random: &mut Stream, most: usize) -> Result<Arc<Sequences>> {
    let lengths: Vec<usize> = (0..1 + random.below(3)).map(|_| random_size(random, most)).collect();
    let examples = lengths.iter().map(|_| random.word()).collect();
    Ok(Arc::new(Sequences::new(&lengths, examples)?))
}
