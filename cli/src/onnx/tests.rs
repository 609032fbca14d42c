//! Runs the exported graph with plain loops, as the operators' definitions have it (<https://onnx.ai/onnx/operators/>), against the engine.

use super::encode;
use super::proto::{self, FLOAT, Graph, Node};
use lowrank::autograd::Tape;
use lowrank::lora::{LoraConfig, Method, merge};
use lowrank::nn::{Architecture, Config, DistilBert, Pass};
use lowrank::tensor::{DType, Sequences};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A value: sizes and numbers. Whole numbers are kept as f64, too.
#[derive(Clone)]
struct Value {
    dims: Vec<usize>,
    x: Vec<f64>,
}

fn strides(dims: &[usize]) -> Vec<usize> {
    (0..dims.len()).map(|i| dims[i + 1..].iter().product()).collect()
}

/// The place in a value of `dims` that broadcasts to the place `at` of `out`.
fn broadcast(at: usize, out: &[usize], dims: &[usize]) -> usize {
    let skipped = out.len() - dims.len();
    let index = strides(out).into_iter().zip(out).map(|(stride, n)| at / stride % n).skip(skipped);
    index.zip(strides(dims)).zip(dims).map(|((i, stride), n)| if *n == 1 { 0 } else { i * stride }).sum()
}

fn zip(a: &Value, b: &Value, f: impl Fn(f64, f64) -> f64) -> Value {
    let rank = a.dims.len().max(b.dims.len());
    let size = |v: &Value, i: usize| (i + v.dims.len()).checked_sub(rank).map_or(1, |i| v.dims[i]);
    let dims: Vec<usize> = (0..rank).map(|i| size(a, i).max(size(b, i))).collect();
    assert!((0..rank).all(|i| [size(a, i), size(b, i)].iter().all(|n| *n == 1 || *n == dims[i])), "{:?} {:?}", a.dims, b.dims);
    let x = (0..dims.iter().product()).map(|at| f(a.x[broadcast(at, &dims, &a.dims)], b.x[broadcast(at, &dims, &b.dims)])).collect();
    Value { dims, x }
}

/// a [.., m, k] times b [.., k, n], or [k, n].
fn product(a: &Value, b: &Value) -> Value {
    let ([.., m, k], [.., k2, n]) = (&a.dims[..], &b.dims[..]) else { panic!("{:?} {:?}", a.dims, b.dims) };
    assert_eq!(k, k2);
    let groups: usize = a.dims[..a.dims.len() - 2].iter().product();
    let mut x = Vec::new();
    for g in 0..groups {
        let of_b = if b.dims.len() == 2 { &b.x[..] } else { &b.x[g * k * n..][..k * n] };
        for i in 0..*m {
            x.extend((0..*n).map(|j| (0..*k).map(|l| a.x[(g * m + i) * k + l] * of_b[l * n + j]).sum::<f64>()));
        }
    }
    let dims = a.dims[..a.dims.len() - 1].iter().copied().chain([*n]).collect();
    Value { dims, x }
}

/// f of each row of the last axis.
fn rows(v: &Value, f: impl Fn(&[f64]) -> Vec<f64>) -> Value {
    Value { dims: v.dims.clone(), x: v.x.chunks_exact(*v.dims.last().unwrap()).flat_map(f).collect() }
}

fn run(node: &Node, inputs: &[&Value]) -> Value {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name.as_deref() == Some(name)).unwrap();
    let each = |f: fn(f64) -> f64| Value { dims: inputs[0].dims.clone(), x: inputs[0].x.iter().map(|x| f(*x)).collect() };
    let whole = |i: usize| inputs[i].x.iter().map(|x| *x as usize).collect::<Vec<_>>();
    match node.op_type.as_deref().unwrap() {
        "Add" => zip(inputs[0], inputs[1], |a, b| a + b),
        "Sub" => zip(inputs[0], inputs[1], |a, b| a - b),
        "Mul" => zip(inputs[0], inputs[1], |a, b| a * b),
        "MatMul" => product(inputs[0], inputs[1]),
        "Tanh" => each(f64::tanh),
        "Relu" => each(|x| x.max(0.0)),
        "Erf" => each(erf),
        "Cast" | "Identity" => inputs[0].clone(),
        "Shape" => {
            let [from, to] = ["start", "end"].map(|name| attribute(name).i.unwrap() as usize);
            let x: Vec<f64> = inputs[0].dims[from..to].iter().map(|n| *n as f64).collect();
            Value { dims: vec![x.len()], x }
        }
        "Slice" => {
            assert_eq!((whole(1), whole(3)), (vec![0], vec![0]), "the first rows");
            let n = whole(2)[0];
            Value { dims: [&[n][..], &inputs[0].dims[1..]].concat(), x: inputs[0].x[..n * inputs[0].dims[1]].to_vec() }
        }
        "Gather" => {
            let axis = node.attribute.first().map_or(0, |a| a.i.unwrap() as usize);
            let dims = &inputs[0].dims;
            let (outer, inner): (usize, usize) = (dims[..axis].iter().product(), dims[axis + 1..].iter().product());
            let place = |o: usize, i: usize| (o * dims[axis] + i) * inner;
            let picked = (0..outer).flat_map(|o| whole(1).into_iter().map(move |i| (o, i)));
            let x = picked.flat_map(|(o, i)| inputs[0].x[place(o, i)..][..inner].to_vec()).collect();
            Value { dims: [&dims[..axis], &inputs[1].dims, &dims[axis + 1..]].concat(), x }
        }
        "Squeeze" => {
            let mut dims = inputs[0].dims.clone();
            whole(1).into_iter().rev().for_each(|axis| assert_eq!(dims.remove(axis), 1));
            Value { dims, x: inputs[0].x.clone() }
        }
        "Unsqueeze" => {
            let mut dims = inputs[0].dims.clone();
            whole(1).into_iter().for_each(|axis| dims.insert(axis, 1));
            Value { dims, x: inputs[0].x.clone() }
        }
        "Reshape" => {
            let dims: Vec<usize> = whole(1).into_iter().enumerate().map(|(i, n)| if n == 0 { inputs[0].dims[i] } else { n }).collect();
            assert_eq!(dims.iter().product::<usize>(), inputs[0].x.len());
            Value { dims, x: inputs[0].x.clone() }
        }
        "Transpose" => {
            let axes: Vec<usize> = attribute("perm").ints.iter().map(|a| *a as usize).collect();
            let (from, dims): (Vec<usize>, Vec<usize>) = axes.iter().map(|&a| (strides(&inputs[0].dims)[a], inputs[0].dims[a])).unzip();
            let own = strides(&dims);
            let place = |at: usize| (0..dims.len()).map(|i| at / own[i] % dims[i] * from[i]).sum::<usize>();
            let x = (0..inputs[0].x.len()).map(|at| inputs[0].x[place(at)]).collect();
            Value { dims, x }
        }
        "Softmax" => rows(inputs[0], |row| {
            let most = row.iter().fold(f64::NEG_INFINITY, |m, x| m.max(*x));
            let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
            row.iter().map(|x| (x - most).exp() / sum).collect()
        }),
        "LayerNormalization" => {
            let eps = f64::from(attribute("epsilon").f.unwrap());
            rows(inputs[0], |row| {
                let n = row.len() as f64;
                let mean = row.iter().sum::<f64>() / n;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                let weights = inputs[1].x.iter().zip(&inputs[2].x);
                row.iter().zip(weights).map(|(x, (gamma, beta))| (x - mean) / (variance + eps).sqrt() * gamma + beta).collect()
            })
        }
        other => panic!("{other}"),
    }
}

/// The series 2/√π Σ (−1)ⁿ x²ⁿ⁺¹ / (n! (2n + 1)), for small x.
fn erf(x: f64) -> f64 {
    assert!(x.abs() < 5.0, "{x}");
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// Logits of a padded batch. Every value must be there before it is used.
fn logits(graph: &Graph, texts: &[Vec<u32>], seconds: &[usize]) -> Vec<f64> {
    let longest = texts.iter().map(Vec::len).max().unwrap();
    let padded = |f: &dyn Fn(&[u32], usize) -> f64| Value {
        dims: vec![texts.len(), longest],
        x: texts.iter().flat_map(|text| (0..longest).map(|i| f(text, i)).collect::<Vec<_>>()).collect(),
    };
    let mut values = BTreeMap::new();
    values.insert("input_ids".to_string(), padded(&|text, i| text.get(i).copied().map_or(0.0, f64::from)));
    values.insert("attention_mask".to_string(), padded(&|text, i| f64::from(u8::from(i < text.len()))));
    if graph.input.len() == 3 {
        let second = |text: &[u32]| seconds[texts.iter().position(|of| of == text).unwrap()];
        let of_type = |text: &[u32], i: usize| f64::from(u8::from(i < text.len() && i + second(text) >= text.len()));
        values.insert("token_type_ids".to_string(), padded(&of_type));
    }
    assert!(graph.input.iter().all(|input| values.contains_key(input.name.as_ref().unwrap())) && graph.input.len() == values.len());
    for tensor in &graph.initializer {
        let raw = tensor.raw_data.as_ref().unwrap();
        let x = match tensor.data_type {
            Some(FLOAT) => raw.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect::<Vec<_>>(),
            _ => raw.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        };
        let dims: Vec<usize> = tensor.dims.iter().map(|n| *n as usize).collect();
        assert_eq!(dims.iter().product::<usize>(), x.len(), "{:?}", tensor.name);
        assert!(values.insert(tensor.name.clone().unwrap(), Value { dims, x }).is_none(), "{:?} twice", tensor.name);
    }
    for node in &graph.node {
        let inputs: Vec<&Value> =
            node.input.iter().map(|name| values.get(name).unwrap_or_else(|| panic!("{name} is not there yet"))).collect();
        let value = run(node, &inputs);
        assert!(values.insert(node.output[0].clone(), value).is_none(), "{:?} twice", node.output);
    }
    values[graph.output[0].name.as_ref().unwrap()].x.clone()
}

#[test]
fn the_graph_computes_what_the_engine_does() {
    for architecture in [Architecture::DistilBert, Architecture::Bert] {
        let mut config = if architecture == Architecture::Bert { Config::bert_base() } else { Config::distilbert_base() };
        (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (12, 3, 20, 2, 30);
        (config.max_position_embeddings, config.initializer_range) = (9, 0.2);
        let mut model = DistilBert::random(&config, 3, DType::F32, 1).unwrap();
        Method::Lora(LoraConfig::new(2, &["all-linear"])).apply(&mut model, 2).unwrap();
        for p in model.parameters_mut() {
            let moved = p.value().to_f64().unwrap().iter().enumerate().map(|(i, x)| x + 0.1 * (i as f64).sin()).collect();
            p.set(lowrank::tensor::Tensor::from_f64(moved, DType::F32, p.value().shape()).unwrap());
        }
        assert!(encode(&model, false).unwrap_err().to_string().contains("merge low-rank terms"));
        merge(&mut model).unwrap();
        let texts = [vec![1, 5, 29, 7, 2, 8, 9, 10, 11], vec![3], vec![4, 4, 20, 1]];
        let mut both = Vec::new();
        for seconds in [[0, 0, 0], [4, 0, 1]] {
            let file = proto::Model::decode(&encode(&model, seconds != [0; 3]).unwrap()[..]).unwrap();
            assert_eq!(file.opset_import[0].version, Some(17));
            let found = logits(file.graph.as_ref().unwrap(), &texts, &seconds);
            let sequences = Sequences::new(&texts.iter().map(Vec::len).collect::<Vec<_>>(), vec![0; 3]).unwrap();
            let pass = Pass::evaluation(Arc::new(sequences.with_second_lengths(seconds.to_vec()).unwrap()));
            let wanted = model.forward(&mut Tape::inference(), &texts.concat(), &pass).unwrap().value().to_f64().unwrap();
            assert_eq!(found.len(), wanted.len());
            for (a, b) in found.iter().zip(&wanted) {
                assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{architecture:?}: {found:?} {wanted:?}");
            }
            both.push(wanted);
        }
        assert_eq!(both[0] == both[1], architecture == Architecture::DistilBert, "only BERT knows token types");
    }
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let mut config = Config::distilbert_base();
    (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (8, 2, 12, 1, 20);
    for method in [Method::Prompt { tokens: 2 }, Method::Prefix { tokens: 2 }, Method::Intrinsic { dimension: 3, seed: 0 }] {
        let mut model = DistilBert::random(&config, 2, DType::F32, 1).unwrap();
        method.apply(&mut model, 0).unwrap();
        assert!(encode(&model, false).unwrap_err().to_string().contains("only a plain model"), "{method:?}");
    }
}
