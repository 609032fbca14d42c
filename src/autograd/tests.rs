//! Tests of all ops at once: a NaN must not vanish.
//!
//! If an element of an input, or of dy, influences an element of the output or of a gradient, then a NaN in the first must make the second NaN. Whether
//! it does influence it is found out in f64, with two values of the first.

use super::gradcheck::{Case, random_tensor};
use super::{Op, Saved, ops};
use crate::tensor::philox::Stream;
use crate::tensor::{DType, Sequences, Tensor};
use std::rc::Rc;
use std::sync::Arc;

/// Elements of the output and of the gradients of an op, in `dtype`. The last input is dy. `None` if the op does not compute in that type.
fn run(op: &Rc<dyn Op>, inputs: &[Vec<f64>], shapes: &[Tensor], dtype: DType) -> Option<Vec<f64>> {
    let typed = |(values, like): (&Vec<f64>, &Tensor)| match like.dtype() {
        DType::U32 => like.clone(),
        _ => Tensor::from_f64(values.clone(), dtype, like.shape()).unwrap(),
    };
    let inputs: Vec<Tensor> = inputs.iter().zip(shapes).map(typed).collect();
    let (dy, inputs) = inputs.split_last().unwrap();
    let needs: Vec<bool> = inputs.iter().map(|t| t.dtype() != DType::U32).collect();
    let mut saved = Saved::default();
    let y = op.forward(&inputs.iter().collect::<Vec<_>>(), &needs, &mut saved).ok()?;
    let grads = op.backward(saved, dy.to_dtype(y.dtype()).unwrap(), &needs).unwrap();
    let all = [y].into_iter().chain(grads.into_iter().flatten());
    Some(all.flat_map(|t| t.to_f64().unwrap()).collect())
}

/// Puts a NaN in some places of each input and of dy, one at a time. Returns how many elements had to become NaN in `dtype`.
fn check(name: &str, case: &Case, dtype: DType, random: &mut Stream) -> usize {
    let needs = vec![true; case.inputs.len()];
    let y = case.op.forward(&case.inputs.iter().collect::<Vec<_>>(), &needs, &mut Saved::default()).unwrap();
    let shapes = [&case.inputs[..], &[random_tensor(random, y.dims()).unwrap()]].concat();
    let values: Vec<Vec<f64>> = shapes.iter().map(|t| if t.dtype() == DType::U32 { Vec::new() } else { t.to_f64().unwrap() }).collect();
    let mut demanded = 0;
    for input in (0..values.len()).filter(|&i| !values[i].is_empty()) {
        for _ in 0..3 {
            let at = random.below(values[input].len());
            let with = |value: f64, dtype| {
                let mut values = values.clone();
                values[input][at] = value;
                run(&case.op, &values, &shapes, dtype)
            };
            let Some(found) = with(f64::NAN, dtype) else { return 0 };
            let [low, high] = [-2.0, 3.0].map(|value| with(value, DType::F64).unwrap());
            assert_eq!(found.len(), low.len());
            for (i, x) in found.iter().enumerate().filter(|&(i, _)| low[i] != high[i]) {
                assert!(x.is_nan(), "{name} {dtype}: a NaN in tensor {input} at {at} of {shapes:?} became {x} in result {i}");
                demanded += 1;
            }
        }
    }
    demanded
}

#[test]
fn every_op_shows_a_nan() {
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        for suite in crate::testing::suites() {
            let mut random = Stream::new(3, suite.op);
            let demanded: usize = (0..20).map(|_| check(suite.op, &(suite.case)(&mut random).unwrap(), dtype, &mut random)).sum();
            // Lookups and subspaces have a type of their own, which is f64 here. The loss is not computed in bf16.
            let exempt = match dtype {
                DType::F64 => &[][..],
                DType::F32 => &["Embedding", "EmbeddingLayerNorm", "Subspace"],
                _ => &["Embedding", "EmbeddingLayerNorm", "CrossEntropy", "Subspace"],
            };
            assert!(demanded > 20 || exempt.contains(&suite.op), "{}: no NaN was looked for in {dtype}", suite.op);
        }
    }
}

/// An op, and the shapes of its inputs.
type Wide = (Rc<dyn Op>, Vec<Vec<usize>>);

/// Larger than in the suites: rows fill vectors, and products fill the tiles of the micro-kernels.
#[test]
fn wide_ops_show_a_nan() {
    let mut random = Stream::new(4, "wide");
    let sequences = Arc::new(Sequences::new(&[75, 3], vec![1, 2]).unwrap());
    let (t, d) = (sequences.tokens(), 70);
    let mask = crate::tensor::Mask { p: 0.3, seed: 5, site: 4 };
    let term = ops::Term { scale: 2.0, mask: Some(mask.clone()) };
    let member = ops::GroupedLinear { bias: true, terms: vec![term] };
    let all: [Wide; 8] = [
        (Rc::new(ops::Relu), vec![vec![t, d]]),
        (Rc::new(ops::Gelu), vec![vec![t, d]]),
        (Rc::new(ops::Tanh), vec![vec![t, d]]),
        (Rc::new(ops::LayerNorm { eps: 0.1 }), vec![vec![t, d], vec![d], vec![d]]),
        (
            Rc::new(ops::ResidualLayerNorm { eps: 0.1, mask: Some(mask.clone()), sequences: sequences.clone() }),
            vec![vec![t, d], vec![t, d], vec![d], vec![d]],
        ),
        (
            Rc::new(ops::Linear { members: vec![member], sequences: Some(sequences.clone()) }),
            vec![vec![t, d], vec![100, d], vec![100], vec![9, d], vec![100, 9]],
        ),
        (
            Rc::new(ops::Attention { heads: 2, queries: sequences.clone(), keys: sequences.clone(), extra: true, mask: Some(mask) }),
            vec![vec![3, t, d], vec![2, d], vec![2, d]],
        ),
        (Rc::new(ops::CrossEntropy::plain(t)), vec![vec![t, 40]]),
    ];
    for (op, dims) in all {
        let mut inputs: Vec<Tensor> = dims.iter().map(|dims| random_tensor(&mut random, dims).unwrap()).collect();
        if op.name() == "cross_entropy" {
            inputs.push(Tensor::new((0..t).map(|i| (i % 40) as u32).collect::<Vec<_>>(), [t]).unwrap());
        }
        let case = Case { op, inputs };
        for dtype in [DType::F64, DType::F32, DType::BF16] {
            let demanded = check(case.op.name(), &case, dtype, &mut random);
            assert!(demanded > 0 || (case.op.name(), dtype) == ("cross_entropy", DType::BF16));
        }
    }
}
