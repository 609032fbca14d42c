//! Records a few ops on a `autograd::Tape` in f32 and in f64, and compares all values and gradients. The bytes of the input are the program.
//!
//! How far rounding may change a result is measured. The same graph is computed in f64 with noise: each input and each result of an op is
//! multiplied by 1 + u, where u is below [`NOISE`], which is far more than the rounding of f32. And an op rounds relative to the gradient that
//! arrives at it, even if it passes on a small part of it: 1 - y² of tanh is off by the rounding of 1. So the largest gradient that arrives anywhere is
//! measured too. The bound is a multiple of both.

use super::input::Bytes;
use lowrank::Result;
use lowrank::autograd::ops::{Attention, EmbeddingLayerNorm, GroupedLinear, Linear, ResidualLayerNorm, Term};
use lowrank::autograd::{Parameter, Tape, Var};
use lowrank::tensor::{DType, Mask, Sequences, Tensor};
use std::sync::Arc;

const NOISE: f64 = 1e-5;
/// Runs with noise.
const NOISY: usize = 3;
/// Values above this bound go through tanh.
const LARGEST: f64 = 64.0;
/// Most ops of a graph.
const STEPS: usize = 10;

/// How far a gradient may be off, as a part of the largest that arrives anywhere: a few roundings of f32, times [`LARGEST`].
const OF_ARRIVING: f64 = 1e-5;

/// What the name of a gradient begins with.
const GRADIENT: &str = "gradient of";

/// Values and gradients of a run, or an error, each with its name.
type Results = Vec<(String, Result<Tensor>)>;

pub fn run(data: &[u8]) {
    let (all_narrow, all_wide) = (results(data, DType::F32, None, &[]), results(data, DType::F64, None, &[]));
    assert_eq!(all_narrow.len(), all_wide.len(), "as many results in f32 as in f64");
    // Most results need no measured bound.
    let mut allowed: Vec<f64> = Vec::new();
    for (i, ((name, narrow), (_, wide))) in all_narrow.iter().zip(&all_wide).enumerate() {
        let (narrow, wide) = match (narrow, wide) {
            (Ok(narrow), Ok(wide)) => (numbers(narrow), numbers(wide)),
            (Err(_), Err(_)) => continue,
            (narrow, wide) => panic!("{name}: {narrow:?} in f32, and {wide:?} in f64"),
        };
        assert_eq!(narrow.len(), wide.len(), "{name}");
        let bound = 1e-5 * (1.0 + largest(&wide));
        if narrow.iter().zip(&wide).all(|(narrow, wide)| (narrow - wide).abs() <= bound) {
            continue;
        }
        if allowed.is_empty() {
            allowed = measured(data, &all_wide);
        }
        let bound = allowed[i] + bound;
        for (at, (narrow, wide)) in narrow.iter().zip(&wide).enumerate() {
            assert!((narrow - wide).abs() <= bound, "{name}[{at}]: {narrow} in f32, {wide} in f64, and {bound} is allowed");
        }
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f64().expect("a tensor of floats")
}

fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// How far rounding may change each result. `wide` holds the results in f64.
fn measured(data: &[u8], wide: &Results) -> Vec<f64> {
    let mut changes = vec![0.0; wide.len()];
    for seed in 0..NOISY {
        let noisy = results(data, DType::F64, Some(seed as u64), &[]);
        for (change, ((_, noisy), (_, wide))) in changes.iter_mut().zip(noisy.iter().zip(wide)) {
            let (Ok(noisy), Ok(wide)) = (noisy, wide) else { continue };
            let differences: Vec<f64> = numbers(noisy).iter().zip(numbers(wide)).map(|(noisy, wide)| noisy - wide).collect();
            *change = largest(&differences).max(*change);
        }
    }
    // The gradient that arrives at a value is that of zeros added to it.
    let values = wide.iter().filter(|(name, _)| !is_gradient(name)).filter_map(|(_, value)| value.as_ref().ok());
    let zeros: Vec<Parameter> = values.map(|value| Parameter::new("zeros", Tensor::zeros(DType::F64, value.dims()))).collect();
    let all = results(data, DType::F64, None, &zeros);
    let gradients = all.iter().filter(|(name, _)| is_gradient(name)).filter_map(|(_, gradient)| gradient.as_ref().ok());
    let arriving = gradients.map(|gradient| largest(&numbers(gradient))).fold(0.0, f64::max);
    let bound = |((name, _), change): (&(String, _), f64)| 16.0 * change + if is_gradient(name) { OF_ARRIVING * arriving } else { 0.0 };
    wide.iter().zip(changes).map(bound).collect()
}

fn is_gradient(name: &str) -> bool {
    name.starts_with(GRADIENT)
}

/// A generator of random numbers.
struct Random(u64);

impl Random {
    /// A number in [-1, 1).
    fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 23) - 1.0
    }
}

/// The sizes of a graph.
struct Sizes {
    sequences: Arc<Sequences>,
    /// T, D, and B.
    tokens: usize,
    width: usize,
    count: usize,
    classes: usize,
}

/// The values so far.
struct Graph<'m, 'b> {
    tape: Tape<'m>,
    bytes: Bytes<'b>,
    sizes: Sizes,
    dtype: DType,
    noise: Option<Random>,
    /// Zeros that the next values get added.
    zeros: std::slice::Iter<'m, Parameter>,
    /// Each value, and a bound of its elements.
    values: Vec<(Var, f64)>,
}

fn tensor(dims: &[usize], dtype: DType, random: &mut Random, noise: &mut Option<Random>) -> Result<Tensor> {
    let length = dims.iter().product();
    // Multiples of 1/16 in [-2, 2) are exact in f32.
    let values = (0..length).map(|_| (random.draw() * 32.0).floor() / 16.0);
    let values = values.map(|x| x * noise.as_mut().map_or(1.0, |noise| 1.0 + NOISE * noise.draw()));
    Tensor::from_f64(values.collect(), dtype, dims)
}

/// The results of a run. Each value gets one of `zeros` added, as long as there are any.
fn results(data: &[u8], dtype: DType, noise: Option<u64>, zeros: &[Parameter]) -> Results {
    let mut bytes = Bytes(data);
    let lengths: Vec<usize> = (0..1 + bytes.below(3)).map(|_| 1 + bytes.below(4)).collect();
    let examples = (0..lengths.len() as u32).collect();
    let sequences = Arc::new(Sequences::new(&lengths, examples).expect("no sequence is empty"));
    let (tokens, count) = (sequences.tokens(), sequences.count());
    let (d, c, r) = ([1, 2, 3, 4, 6, 8, 17, 12][bytes.below(8)], 2 + bytes.below(3), 1 + bytes.below(2));
    let (seed, trained) = (u64::from(bytes.byte()), u16::from(bytes.byte()) << 8 | u16::from(bytes.byte()));
    let mut noise = noise.map(|seed| Random(seed.wrapping_mul(977) + 1));
    let shapes: [&[usize]; 14] = [
        &[tokens, d],
        &[tokens, d],
        &[d, d],
        &[d],
        &[d],
        &[r, d],
        &[d, r],
        &[c, d],
        &[c],
        &[5, d],
        &[2, d],
        &[2, d],
        &[3, tokens, d],
        &[c, c],
    ];
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let inputs = shapes.iter().map(|dims| tensor(dims, dtype, &mut random, &mut noise).expect("as many elements as the shape has"));
    let parameters: Vec<Parameter> = inputs.enumerate().map(|(i, value)| Parameter::new(format!("input {i}"), value)).collect();
    let mut tape = Tape::new();
    let leaf = |(i, p)| if trained >> i & 1 == 0 { tape.parameter(p) } else { tape.constant(Parameter::value(p)) };
    let values = parameters.iter().enumerate().map(leaf).map(|var| (var, 2.1)).collect();
    let sizes = Sizes { sequences, tokens, width: d, count, classes: c };
    let mut graph = Graph { tape, bytes, sizes, dtype, noise, zeros: zeros.iter(), values };
    let mut results = Results::new();
    for _ in 0..STEPS {
        if graph.bytes.is_empty() {
            break;
        }
        let (name, made) = graph.step();
        let value = made.and_then(|(var, bound)| graph.finished(var, bound).map(|var| var.value().clone()));
        results.push((name.to_string(), value));
    }
    let grads = graph.loss(&mut random).and_then(|loss| graph.tape.backward(&loss));
    match grads {
        Ok(grads) => {
            let none = Tensor::zeros(dtype, [0]);
            let of = |p: &Parameter| (format!("{GRADIENT} {}", p.name()), Ok(grads.get(p).unwrap_or(&none).clone()));
            results.extend(parameters.iter().chain(zeros).map(of));
        }
        Err(e) => results.push(("backward".to_string(), Err(e))),
    }
    results
}

impl<'m> Graph<'m, '_> {
    /// A value: usually one of these dimensions, sometimes any.
    fn pick(&mut self, dims: &[usize]) -> (Var, f64) {
        let byte = usize::from(self.bytes.byte());
        let fitting: Vec<usize> = (0..self.values.len()).rev().filter(|&i| self.values[i].0.value().dims() == dims).collect();
        let at = if byte < 240 && !fitting.is_empty() { fitting[byte % fitting.len()] } else { byte % self.values.len() };
        self.values[at].clone()
    }

    fn rows(&mut self) -> (Var, f64) {
        self.pick(&[self.sizes.tokens, self.sizes.width])
    }

    fn vector(&mut self) -> (Var, f64) {
        self.pick(&[self.sizes.width])
    }

    fn mask(&mut self) -> Option<Mask> {
        let p = [0.0, 0.25, 0.5, 0.9][self.bytes.below(4)];
        (p > 0.0).then_some(Mask { p, seed: 7, site: 3 })
    }

    fn eps(&mut self) -> f64 {
        [1e-5, 0.1, 1.0][self.bytes.below(3)]
    }

    /// Keeps a new value: with noise if the run has it, and within [`LARGEST`].
    fn finished(&mut self, mut var: Var, mut bound: f64) -> Result<Var> {
        if bound > LARGEST {
            (var, bound) = (self.tape.tanh(&var)?, 1.0);
        }
        if let Some(noise) = &mut self.noise {
            let factors = (0..var.shape().len()).map(|_| 1.0 + NOISE * noise.draw()).collect();
            let factors = self.tape.constant(&Tensor::from_f64(factors, self.dtype, var.shape().dims())?);
            var = self.tape.mul(&var, &factors)?;
        }
        if let Some(zeros) = self.zeros.next() {
            let zeros = self.tape.parameter(zeros);
            var = self.tape.add(&var, &zeros)?;
        }
        self.values.push((var.clone(), bound));
        Ok(var)
    }

    /// One op, and a bound of its result.
    fn step(&mut self) -> (&'static str, Result<(Var, f64)>) {
        match self.bytes.below(16) {
            0 => {
                let ((a, most_a), (b, most_b)) = (self.rows(), self.rows());
                ("add", self.tape.add(&a, &b).map(|y| (y, most_a + most_b)))
            }
            1 => {
                let ((a, most_a), (b, most_b)) = (self.rows(), self.rows());
                ("mul", self.tape.mul(&a, &b).map(|y| (y, most_a * most_b)))
            }
            2 => {
                let ((a, most), c) = (self.rows(), f64::from(self.bytes.byte()) / 64.0 - 2.0);
                ("scale", self.tape.scale(&a, c).map(|y| (y, 2.0 * most)))
            }
            3 => {
                let (a, _) = self.rows();
                ("tanh", self.tape.tanh(&a).map(|y| (y, 1.0)))
            }
            4 => {
                let (a, most) = self.rows();
                ("gelu", self.tape.gelu(&a).map(|y| (y, most)))
            }
            5 => {
                let (a, most) = self.rows();
                ("relu", self.tape.relu(&a).map(|y| (y, most)))
            }
            6 => ("linear", self.linear()),
            7 => {
                let ((x, _), (gamma, most_gamma), (beta, most_beta), eps) = (self.rows(), self.vector(), self.vector(), self.eps());
                let most = (self.sizes.width as f64).sqrt() * most_gamma + most_beta;
                ("layer_norm", self.tape.layer_norm(&x, &gamma, &beta, eps).map(|y| (y, most)))
            }
            8 => {
                let ((x, most), mask, sequences) = (self.rows(), self.mask(), self.sizes.sequences.clone());
                ("dropout", self.tape.dropout(&x, mask, &sequences).map(|y| (y, 10.0 * most)))
            }
            9 => ("attention", self.attention()),
            10 => ("residual_layer_norm", self.residual_layer_norm()),
            11 => ("embedding", self.embedding()),
            12 => ("linear with a term", self.low_rank()),
            13 => {
                let ((x, most), sequences) = (self.rows(), self.sizes.sequences.clone());
                ("first_row", self.tape.first_row(&x, &sequences).map(|y| (y, most)))
            }
            14 => ("head", self.head()),
            _ => ("embedding_layer_norm", self.embedding_layer_norm()),
        }
    }

    fn linear(&mut self) -> Result<(Var, f64)> {
        let d = self.sizes.width;
        let ((x, most_x), (w, most_w), (b, most_b)) = (self.rows(), self.pick(&[d, d]), self.vector());
        let bias = if self.bytes.flag() { Some(&b) } else { None };
        let y = self.tape.linear(&x, &w, bias)?;
        Ok((y, x.shape().cols() as f64 * most_x * most_w + most_b))
    }

    fn attention(&mut self) -> Result<(Var, f64)> {
        let (t, d, sequences) = (self.sizes.tokens, self.sizes.width, self.sizes.sequences.clone());
        let (heads, form, mask) = (1 + self.bytes.below(3), self.bytes.byte(), self.mask());
        let (joined, extra, first) = (form & 1 == 1, form & 2 == 2, form & 5 == 4);
        let queries = if first { Arc::new(sequences.first_rows()) } else { sequences.clone() };
        let mut inputs = match joined {
            true => vec![self.pick(&[3, t, d])],
            false => vec![self.pick(&[queries.tokens(), d]), self.rows(), self.rows()],
        };
        if extra {
            inputs.extend([self.pick(&[2, d]), self.pick(&[2, d])]);
        }
        let most = inputs.iter().map(|(_, most)| *most).fold(0.0, f64::max);
        let inputs: Vec<&Var> = inputs.iter().map(|(var, _)| var).collect();
        let y = self.tape.apply(Attention { heads, queries, keys: sequences, extra, mask }, &inputs)?;
        Ok((y, 10.0 * most))
    }

    fn residual_layer_norm(&mut self) -> Result<(Var, f64)> {
        let ((x, _), (residual, _), (gamma, most_gamma), (beta, most_beta)) = (self.rows(), self.rows(), self.vector(), self.vector());
        let op = ResidualLayerNorm { eps: self.eps(), mask: self.mask(), sequences: self.sizes.sequences.clone() };
        let y = self.tape.apply(op, &[&x, &residual, &gamma, &beta])?;
        Ok((y, (self.sizes.width as f64).sqrt() * most_gamma + most_beta))
    }

    /// Token ids; one in 64 is not in the table.
    fn ids(&mut self, n: usize) -> Result<Tensor> {
        let ids = (0..n).map(|_| self.bytes.byte()).map(|byte| if byte % 64 == 63 { 9 } else { u32::from(byte % 5) });
        Tensor::new(ids.collect::<Vec<u32>>(), [n])
    }

    fn embedding(&mut self) -> Result<(Var, f64)> {
        let ((table, most), ids) = (self.pick(&[5, self.sizes.width]), self.ids(self.sizes.tokens)?);
        Ok((self.tape.embedding(&table, &ids, self.dtype)?, most))
    }

    fn embedding_layer_norm(&mut self) -> Result<(Var, f64)> {
        let (d, prompt) = (self.sizes.width, [0, 0, 0, 2][self.bytes.below(4)]);
        let ((words, _), (positions, _), (gamma, most_gamma)) = (self.pick(&[5, d]), self.pick(&[5, d]), self.vector());
        let ((beta, most_beta), (rows, _)) = (self.vector(), self.pick(&[2, d]));
        let n = self.sizes.tokens.saturating_sub(prompt * self.sizes.count);
        let ids = self.ids(n)?;
        let ids = self.tape.constant(&ids);
        // Without dropout: recorded inputs keep their meaning.
        let (sequences, mask) = (self.sizes.sequences.clone(), None);
        let op = EmbeddingLayerNorm { dtype: self.dtype, eps: self.eps(), sequences, prompt, mask };
        let inputs: Vec<&Var> = [&ids, &words, &positions, &gamma, &beta].into_iter().chain((prompt > 0).then_some(&rows)).collect();
        let y = self.tape.apply(op, &inputs)?;
        Ok((y, (d as f64).sqrt() * most_gamma + most_beta))
    }

    fn low_rank(&mut self) -> Result<(Var, f64)> {
        let d = self.sizes.width;
        let rank = self.values[5].0.shape().rows();
        let ((x, most_x), (w, most_w), (b, most_b)) = (self.rows(), self.pick(&[d, d]), self.vector());
        let ((down, most_down), (up, most_up)) = (self.pick(&[rank, d]), self.pick(&[d, rank]));
        let (bias, scale) = (self.bytes.flag(), f64::from(self.bytes.byte()) / 64.0);
        let member = GroupedLinear { bias, terms: vec![Term { scale, mask: self.mask() }] };
        let op = Linear { members: vec![member], sequences: Some(self.sizes.sequences.clone()) };
        let inputs: Vec<&Var> = [&x, &w].into_iter().chain(bias.then_some(&b)).chain([&down, &up]).collect();
        let y = self.tape.apply(op, &inputs)?;
        let width = d as f64;
        Ok((y, width * most_x * most_w + most_b + 40.0 * width * rank as f64 * most_x * most_down * most_up))
    }

    /// A classifier over the first rows, and its loss.
    fn head(&mut self) -> Result<(Var, f64)> {
        let (b, c, d) = (self.sizes.count, self.sizes.classes, self.sizes.width);
        let ((x, _), (w, _), (bias, _)) = (self.pick(&[b, d]), self.pick(&[c, d]), self.pick(&[c]));
        let logits = self.tape.linear(&x, &w, Some(&bias))?;
        let labels: Vec<u32> = (0..b).map(|_| self.bytes.below(c + 1) as u32 % (c as u32)).collect();
        let loss = self.tape.cross_entropy(&logits, &labels, b)?;
        Ok((loss, 4.0 * LARGEST))
    }

    /// A weighted sum of the elements of the last value.
    fn loss(&mut self, random: &mut Random) -> Result<Var> {
        let (last, _) = self.values[self.values.len() - 1].clone();
        let weights = tensor(last.value().dims(), self.dtype, random, &mut None)?;
        let weighted = self.tape.mul(&last, &self.tape.constant(&weights))?;
        self.tape.sum(&weighted)
    }
}
