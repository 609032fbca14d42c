//! The device against the host: every op forward and backward, and training steps. Runs where a driver is found: a GPU's, or the stand-ins of
//! `tests/cuda` that run the same kernels on the CPU (`scripts/device-stand-ins`). Elsewhere each test says that it is skipped.
#![cfg(feature = "cuda")]

#[path = "device/faults.rs"]
mod faults;

use lowrank::autograd::gradcheck::random_tensor;
use lowrank::autograd::{Grads, Op, Parameter, Saved, Tape, ops};
use lowrank::cuda::Device;
use lowrank::data::{Targets, Tokenized};
use lowrank::lora::subspace::{Projection, Subspace};
use lowrank::lora::{LoraConfig, Method, Placement, all_suites};
use lowrank::nn::{Architecture, Config, DistilBert, Outputs, Pass};
use lowrank::tensor::math::largest;
use lowrank::tensor::philox::Stream;
use lowrank::tensor::{DType, Sequences, Tensor};
use lowrank::train::{AdamW, Observer, Recipe, StepReport, Training, fit, load_checkpoint, save_checkpoint};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

fn device() -> Option<Arc<Device>> {
    static DEVICE: OnceLock<Option<Arc<Device>>> = OnceLock::new();
    let open = || match Device::count() {
        Ok(1..) => Some(Device::open(0).unwrap()),
        _ => None,
    };
    let found = DEVICE.get_or_init(open).clone();
    if found.is_none() {
        eprintln!("skipped: there is no GPU and no stand-in");
    }
    found
}

/// Output of `op`, and the gradients that are needed, on a device if one is given.
fn run(op: &Rc<dyn Op>, inputs: &[Tensor], needs: &[bool], dy: &Tensor, device: Option<&Arc<Device>>) -> lowrank::Result<Vec<Tensor>> {
    let place = |t: &Tensor| match device {
        // Integers are checked on the host, and go to the device by themselves.
        Some(device) if t.dtype() != DType::U32 => t.to_device(device),
        _ => Ok(t.clone()),
    };
    let inputs = inputs.iter().map(place).collect::<lowrank::Result<Vec<_>>>()?;
    let (mut saved, inputs) = (Saved::default(), inputs.iter().collect::<Vec<_>>());
    let y = op.forward(&inputs, needs, &mut saved)?;
    let dy = place(&dy.to_dtype(y.dtype())?)?;
    let grads = if needs.contains(&true) { op.backward(saved, dy, needs)? } else { Vec::new() };
    Ok([vec![y], grads.into_iter().flatten().collect()].concat())
}

/// [`run`] with every number in `dtype`, each needing a gradient.
fn run_in(dtype: DType, op: &Rc<dyn Op>, inputs: &[Tensor], dy: &Tensor, device: Option<&Arc<Device>>) -> lowrank::Result<Vec<Tensor>> {
    let needs: Vec<bool> = inputs.iter().map(|t| t.dtype() != DType::U32).collect();
    run(op, &inputs.iter().map(|t| typed(t, dtype)).collect::<Vec<_>>(), &needs, dy, device)
}

/// `t` in `dtype`, but for integers.
fn typed(t: &Tensor, dtype: DType) -> Tensor {
    if t.dtype() == DType::U32 { t.clone() } else { t.to_dtype(dtype).unwrap() }
}

/// `t` in f64, with numbers that `dtype` holds.
fn exact(t: &Tensor, dtype: DType) -> Tensor {
    typed(&typed(t, dtype), DType::F64)
}

/// No number may be further off than `bound` times the largest of its tensor, or times `least` if all are smaller.
fn assert_close(found: &[Tensor], wanted: &[Tensor], bound: f64, least: f64, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(found.shape(), wanted.shape(), "{what}, tensor {i}");
        let (found, wanted) = (found.to_f64().unwrap(), wanted.to_f64().unwrap());
        let scale = wanted.iter().fold(least, |m: f64, x| m.max(x.abs()));
        for (a, b) in found.iter().zip(&wanted) {
            assert!((a - b).abs() <= bound * scale, "{what}, tensor {i}: {a} {b}, at most {scale}");
        }
    }
}

/// Ops that a GPU does not have: they are for toys.
const HOST_ONLY: [&str; 2] = ["Mul", "Sum"];

/// Whether the op of a suite can be had in `dtype`. Others are told their type, and it is f64 there; or they compute in f32.
fn in_type(op: &str, dtype: DType) -> bool {
    !["Embedding", "EmbeddingLayerNorm", "Cast"].contains(&op) && (dtype == DType::F32 || !["CrossEntropy", "Subspace"].contains(&op))
}

/// Two would have a stream each, and tensors of one would not wait for those of the other.
#[test]
fn a_gpu_is_opened_once() {
    let Some(device) = device() else { return };
    assert!(Arc::ptr_eq(&device, &Device::open(0).unwrap()));
    assert!(Device::open(9).is_err_and(|e| e.to_string().contains("there is no GPU 9")));
}

#[test]
fn every_op_agrees_with_the_host() {
    let Some(device) = device() else { return };
    let mut on_device = 0;
    for (dtype, bound) in [(DType::F32, 3e-5), (DType::BF16, 5e-2)] {
        for suite in all_suites().into_iter().filter(|s| !HOST_ONLY.contains(&s.op) && in_type(s.op, dtype)) {
            let mut random = Stream::new(5, suite.op);
            for _ in 0..25 {
                let case = (suite.case)(&mut random).unwrap();
                let inputs: Vec<Tensor> = case.inputs.iter().map(|t| exact(t, dtype)).collect();
                let needs = vec![true; inputs.len()];
                let shape = case.op.forward(&inputs.iter().collect::<Vec<_>>(), &needs, &mut Saved::default()).unwrap().shape().clone();
                let dy = exact(&random_tensor(&mut random, shape.dims()).unwrap(), dtype);
                let wanted = run_in(DType::F64, &case.op, &inputs, &dy, None).unwrap();
                let found = run_in(dtype, &case.op, &inputs, &dy, Some(&device)).unwrap_or_else(|e| panic!("{} {dtype}: {e}", suite.op));
                assert_close(&found, &wanted, bound, 1.0, &format!("{} {dtype}", suite.op));
            }
            on_device += 1;
        }
    }
    assert!(on_device > 20, "{on_device}");
}

/// Puts a NaN in each input in turn, and in dy, the last of `clean`. Where the number in its place has a say in the output or in a gradient, as two values
/// of it tell on the host, the device must give NaN; returns in how many places.
fn assert_nans_show(device: &Arc<Device>, op: &Rc<dyn Op>, clean: &[Tensor], dtype: DType, random: &mut Stream) -> usize {
    let mut nans = 0;
    for i in (0..clean.len()).filter(|&i| clean[i].dtype() != DType::U32) {
        let at = random.below(clean[i].shape().len());
        let with = |value: f64, dtype, device| {
            let (mut tensors, mut values) = (clean.to_vec(), clean[i].to_f64().unwrap());
            values[at] = value;
            tensors[i] = Tensor::new(values, clean[i].shape()).unwrap();
            let (dy, inputs) = tensors.split_last().unwrap();
            let found = run_in(dtype, op, inputs, dy, device).unwrap();
            found.iter().flat_map(|t| t.to_f64().unwrap()).collect::<Vec<_>>()
        };
        let [low, high] = [-2.0, 3.0].map(|value| with(value, DType::F64, None));
        let found = with(f64::NAN, dtype, Some(device));
        assert_eq!(found.len(), low.len());
        for (j, x) in found.iter().enumerate().filter(|&(j, _)| low[j] != high[j]) {
            assert!(x.is_nan(), "{} {dtype}: a NaN in tensor {i} at {at} became {x} in result {j}", op.name());
            nans += 1;
        }
    }
    nans
}

#[test]
fn every_op_shows_a_nan() {
    let Some(device) = device() else { return };
    for dtype in [DType::F32, DType::BF16] {
        for suite in all_suites().into_iter().filter(|s| !HOST_ONLY.contains(&s.op) && in_type(s.op, dtype)) {
            let (mut random, mut nans) = (Stream::new(8, suite.op), 0);
            for _ in 0..10 {
                let case = (suite.case)(&mut random).unwrap();
                let needs = vec![true; case.inputs.len()];
                let y = case.op.forward(&case.inputs.iter().collect::<Vec<_>>(), &needs, &mut Saved::default()).unwrap();
                let clean = [&case.inputs[..], &[random_tensor(&mut random, y.dims()).unwrap()]].concat();
                nans += assert_nans_show(&device, &case.op, &clean, dtype, &mut random);
            }
            assert!(nans >= 10, "{} {dtype}: {nans}", suite.op);
        }
    }
}

/// Rows that are wider than a warp or a block of threads takes at once, and ranks beyond what a thread holds.
#[test]
fn every_wide_row_agrees_with_the_host() {
    let Some(device) = device() else { return };
    let sequences = Arc::new(Sequences::new(&[30, 1, 40], vec![7, 8, 3]).unwrap());
    let (t, d, out, rank) = (sequences.tokens(), 300, 290, 10);
    let mask = lowrank::tensor::Mask { p: 0.2, seed: 5, site: 4 };
    let member = || ops::GroupedLinear {
        bias: true,
        terms: vec![ops::Term { scale: 0.5, mask: Some(mask.clone()) }, ops::Term { scale: 2.0, mask: None }],
    };
    let ids = Tensor::new((0..t as u32).map(|i| i * 7 % 20).collect::<Vec<_>>(), [t]).unwrap();
    let projection = Arc::new(Projection::new(30 * 70, 700, 3, "P").unwrap());
    let mut random = Stream::new(8, "wide");
    let mut draw = |dims: &[usize]| random_tensor(&mut random, dims).unwrap();
    let term = [vec![rank, d], vec![out, rank]];
    let shapes = [vec![out, d], vec![out]].into_iter().chain(term.clone()).chain(term);
    let origin = draw(&[30, 70]).to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap();
    let cases: Vec<(Rc<dyn Op>, Vec<Tensor>)> = vec![
        (
            Rc::new(ops::ResidualLayerNorm { eps: 0.1, mask: Some(mask.clone()), sequences: sequences.clone() }),
            vec![draw(&[t, d]), draw(&[t, d]), draw(&[d]), draw(&[d])],
        ),
        (Rc::new(ops::FirstRow { sequences: sequences.clone() }), vec![draw(&[t, d])]),
        (
            Rc::new(ops::Linear { members: vec![member(), member()], sequences: Some(sequences.clone()) }),
            [draw(&[t, d])].into_iter().chain(shapes.clone().chain(shapes).map(|dims| draw(&dims))).collect(),
        ),
        (
            Rc::new(ops::EmbeddingLayerNorm {
                dtype: DType::F32,
                eps: 0.1,
                sequences: sequences.clone(),
                prompt: 0,
                mask: Some(mask.clone()),
            }),
            vec![ids, draw(&[20, d]), draw(&[40, d]), draw(&[d]), draw(&[d])],
        ),
        (Rc::new(Subspace { origin, projection }), vec![draw(&[700])]),
    ];
    for (op, inputs) in &cases {
        for (dtype, bound) in [(DType::F32, 3e-5), (DType::BF16, 5e-2)] {
            let of_sums = ["embedding_layer_norm", "subspace"].contains(&op.name());
            if of_sums && dtype == DType::BF16 {
                continue;
            }
            let inputs: Vec<Tensor> = inputs.iter().map(|t| exact(t, dtype)).collect();
            // The host in f64, but for the lookups, which are told to give f32.
            let wide = if op.name() == "embedding_layer_norm" { DType::F32 } else { DType::F64 };
            let shape = match op.name() {
                "linear" => vec![2, t, out],
                "first_row" => vec![3, d],
                "subspace" => vec![30, 70],
                _ => vec![t, d],
            };
            let dy = exact(&random_tensor(&mut Stream::new(9, op.name()), &shape).unwrap(), dtype);
            let wanted = run_in(wide, op, &inputs, &dy, None).unwrap();
            let found = run_in(dtype, op, &inputs, &dy, Some(&device)).unwrap();
            assert_close(&found, &wanted, bound, 0.0, &format!("{} {dtype}", op.name()));
        }
    }
}

/// Elementwise kernels move eight neighbours at a time where addresses allow it: here they do not.
#[test]
fn every_place_of_an_array_will_do() {
    let Some(device) = device() else { return };
    let both = random_tensor(&mut Stream::new(8, "places"), &[2, 45]).unwrap();
    for (dtype, bound) in [(DType::F32, 1e-6), (DType::BF16, 1e-2)] {
        let host = both.to_dtype(dtype).unwrap();
        let there = host.to_device(&device).unwrap();
        let of = |x: &Tensor| {
            let (mut tape, x) = (Tape::inference(), x.index(1).unwrap());
            let x = tape.constant(&x);
            let y = tape.gelu(&x).unwrap();
            tape.add(&x, &y).unwrap().value().clone()
        };
        assert_close(&[of(&there)], &[of(&host)], bound, 0.0, &format!("{dtype}"));
    }
}

/// Where two ops read the output of a layer norm, its backward takes both cotangents, and gives the gradients of their sum; widths with and without vectors.
#[test]
fn every_pair_of_cotangents_is_added_on_the_way() {
    let Some(device) = device() else { return };
    let sequences = Arc::new(Sequences::new(&[5, 1, 7], vec![7, 8, 3]).unwrap());
    let (t, mut random) = (sequences.tokens(), Stream::new(8, "cotangents"));
    for (d, dropped, needs) in [
        (300, true, [true, true, false, false]),
        (64, true, [true; 4]),
        (64, false, [false, true, false, false]),
        (64, true, [true, false, false, false]),
    ] {
        let mask = dropped.then_some(lowrank::tensor::Mask { p: 0.2, seed: 5, site: 4 });
        let op = ops::ResidualLayerNorm { eps: 0.1, mask, sequences: sequences.clone() };
        for (dtype, bound) in [(DType::F32, 3e-5), (DType::BF16, 5e-2)] {
            let inputs: Vec<Tensor> = [vec![t, d], vec![t, d], vec![d], vec![d]]
                .iter()
                .map(|dims| exact(&random_tensor(&mut random, dims).unwrap(), dtype))
                .collect();
            let parts = [0, 1].map(|_| exact(&random_tensor(&mut random, &[t, d]).unwrap(), dtype));
            let run = |dtype, device: Option<&Arc<Device>>| {
                let place = |x: &Tensor| device.map_or(typed(x, dtype), |device| typed(x, dtype).to_device(device).unwrap());
                let (inputs, mut saved) = (inputs.iter().map(place).collect::<Vec<_>>(), Saved::default());
                op.forward(&inputs.iter().collect::<Vec<_>>(), &needs, &mut saved).unwrap();
                let [dy, more] = parts.each_ref().map(place);
                op.backward_of_two(saved, dy, more, &needs).unwrap().into_iter().flatten().collect::<Vec<_>>()
            };
            assert_close(&run(dtype, Some(&device)), &run(DType::F64, None), bound, 0.0, &format!("{d} {dropped} {dtype}"));
        }
    }
}

/// The way around cuBLASLt gives the same numbers: that it is not taken has to be looked at. An algorithm exists for certain only for sizes and places
/// that are multiples of 16 bytes; for others cuBLASLt may say no, in any way.
#[test]
fn every_bias_is_added_by_cublaslt() {
    let Some(device) = device() else { return };
    let mut random = Stream::new(3, "bias");
    for (dtype, bound) in [(DType::F32, 1e-5), (DType::BF16, 2e-2)] {
        // Odd sizes and even ones, and a place that is aligned to 2 or 4 bytes alone.
        for ((n, input, out), count) in [(5, 3, 7), (16, 32, 64), (1, 8, 1)].into_iter().flat_map(|size| [1, 3].map(|count| (size, count)))
        {
            let [x, w, b] = [vec![n, input], vec![count, out, input], vec![count, out]]
                .map(|dims| random_tensor(&mut random, &dims).unwrap().to_dtype(dtype).unwrap());
            let [x_there, w_there, b_there] = [&x, &w, &b].map(|t| t.to_device(&device).unwrap());
            let y = Tensor::empty_on(&device, dtype, [2, count, n, out]).unwrap().index(1).unwrap();
            let [x_first, w_first, y_first] = [&x_there, &w_there.index(0).unwrap(), &y.index(0).unwrap()].map(|t| t.matrix().unwrap());
            let done = device.gemm_bias(x_first, w_first.t(), b_there.address().unwrap(), y_first, count).unwrap();
            let (refused, certain) = (std::env::var("SHIM_LT").is_ok(), n == 16);
            assert!(done || refused || !certain, "{dtype} {n} {input} {out} {count}");
            assert!(!done || !refused, "{dtype} {n} {input} {out} {count}");
            let [x, w, b, y] = [&x, &w, &b, &y].map(|t| t.to_f64().unwrap());
            for (i, y) in y.iter().enumerate().filter(|_| done) {
                // Of all products of the batch, one after another.
                let (row, col) = (i / out % n, i / (n * out) * out + i % out);
                let sum: f64 = (0..input).map(|k| x[row * input + k] * w[col * input + k]).sum::<f64>() + b[col];
                assert!((sum - y).abs() <= bound * sum.abs().max(1.0), "{dtype} {n} {input} {out} {count}: {sum} {y}");
            }
        }
    }
}

/// What each lane holds, by the tables of the PTX ISA: <https://docs.nvidia.com/cuda/parallel-thread-execution/>, sections 9.7.14.5.8 and 9.7.14.5.15.
/// With g = lane / 4 and t = lane % 4.
#[test]
fn every_tensor_core_instruction_does_what_its_table_says() {
    let Some(device) = device() else { return };
    let mut random = Stream::new(7, "probe");
    // Few bits each, so that every sum is exact in any order.
    let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| random.below(33) as f32 / 8.0 - 2.0).collect() };
    let (mut tile, f) = (draw(256), draw(128));
    let [there, f_there] = [(&tile, DType::BF16, 256), (&f, DType::F32, 128)]
        .map(|(values, dtype, n)| Tensor::new(values.clone(), [n]).unwrap().to_dtype(dtype).unwrap().to_device(&device).unwrap());
    let out = Tensor::empty_on(&device, DType::U32, [6, 32, 4]).unwrap();
    device
        .launch("mma_probe", [1, 1, 1], 32, 512, &[there.argument().unwrap(), f_there.argument().unwrap(), out.argument().unwrap()])
        .unwrap();
    let out = out.to_host().unwrap();
    let out = out.host::<u32>().unwrap();
    // The last lane copies zeros: row 15, columns 8 to 15.
    tile[248..].fill(0.0);
    let bits = |x: f32| half::bf16::from_f32(x).to_bits();
    let at = |row: usize, col: usize| tile[16 * row + col];
    let two = |low: f32, high: f32| u32::from(bits(low)) | u32::from(bits(high)) << 16;
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for i in 0..4 {
            let found = |part: usize| out[(part * 32 + lane) * 4 + i];
            // Quarter i begins here.
            let (row, col) = (i % 2 * 8, i / 2 * 8);
            assert_eq!(found(0), two(at(row + g, col + 2 * t), at(row + g, col + 2 * t + 1)), "ldmatrix, lane {lane}, {i}");
            assert_eq!(found(1), two(at(row + 2 * t, col + g), at(row + 2 * t + 1, col + g)), "ldmatrix.trans, lane {lane}, {i}");
            assert_eq!(found(2), two(tile[8 * lane + 2 * i], tile[8 * lane + 2 * i + 1]), "cp.async, lane {lane}, {i}");
            // B [16, 8] is the left half of the tile.
            let (row, col) = (g + i / 2 * 8, 2 * t + i % 2);
            let product = (0..16).fold(f[4 * lane + i], |sum, k| sum + at(row, k) * at(k, col));
            assert_eq!(f32::from_bits(found(3)), product, "mma, lane {lane}, {i}");
            let packed = if i < 2 { two(f[4 * lane + 2 * i], f[4 * lane + 2 * i + 1]) } else { 0 };
            assert_eq!(found(4), packed, "cvt, lane {lane}, {i}");
            let power = f[4 * lane + i].exp2();
            assert!((f32::from_bits(found(5)) - power).abs() <= 1e-6 * power, "ex2, lane {lane}, {i}");
        }
    }
}

/// Head widths that tensor cores take, sequences of more than one tile, and what else changes the way through a kernel.
#[test]
fn every_attention_kernel_agrees_with_the_host() {
    let Some(device) = device() else { return };
    let lengths = [70, 1, 131];
    for (dtype, bound) in [(DType::BF16, 3e-2), (DType::F32, 3e-5)] {
        for (heads, width) in [(2, 32), (1, 64), (1, 40)] {
            for (split, extra, dropped) in [(false, 0, false), (false, 3, true), (true, 2, true), (true, 0, false)] {
                let keys = Arc::new(Sequences::new(&lengths, vec![7, 8, 3]).unwrap());
                let queries = if split { Arc::new(keys.first_rows()) } else { keys.clone() };
                let (d, t, tq) = (heads * width, keys.tokens(), queries.tokens());
                let mut random = Stream::new(9, "attention");
                let mut draw = |dims: &[usize]| exact(&random_tensor(&mut random, dims).unwrap(), dtype);
                let mut inputs = if split { vec![draw(&[tq, d]), draw(&[2, t, d])] } else { vec![draw(&[3, t, d])] };
                if extra > 0 {
                    inputs.extend([draw(&[extra, d]), draw(&[extra, d])]);
                }
                let dy = draw(&[tq, d]);
                let mask = dropped.then_some(lowrank::tensor::Mask { p: 0.2, seed: 5, site: 4 });
                let op: Rc<dyn Op> = Rc::new(ops::Attention { heads, queries, keys, extra: extra > 0, mask });
                let wanted = run_in(DType::F64, &op, &inputs, &dy, None).unwrap();
                let found = run_in(dtype, &op, &inputs, &dy, Some(&device)).unwrap();
                assert_close(&found, &wanted, bound, 0.0, &format!("{dtype} width {width} split {split} extra {extra}"));
            }
        }
    }
}

#[test]
fn every_attention_kernel_shows_a_nan() {
    let Some(device) = device() else { return };
    let sequences = Arc::new(Sequences::new(&[70, 3], vec![7, 8]).unwrap());
    for (dtype, (heads, width)) in [DType::BF16, DType::F32].into_iter().flat_map(|t| [(2, 32), (1, 64), (1, 40)].map(|size| (t, size))) {
        let mut random = Stream::new(10, "attention");
        let (d, t) = (heads * width, sequences.tokens());
        let clean = [vec![3, t, d], vec![3, d], vec![3, d], vec![t, d]].map(|dims| random_tensor(&mut random, &dims).unwrap());
        let mask = Some(lowrank::tensor::Mask { p: 0.2, seed: 5, site: 4 });
        let op: Rc<dyn Op> = Rc::new(ops::Attention { heads, queries: sequences.clone(), keys: sequences.clone(), extra: true, mask });
        assert!(assert_nans_show(&device, &op, &clean, dtype, &mut random) > 1000);
    }
}

/// Every pair of a table's type and that of the result. A table in bf16 is frozen.
#[test]
fn every_lookup_agrees_with_the_host() {
    let Some(device) = device() else { return };
    let (stored, computed) = ([DType::F32, DType::BF16], [(DType::F32, 1e-5), (DType::BF16, 2e-2)]);
    for (op, stored, (dtype, bound)) in
        ["Embedding", "EmbeddingLayerNorm"].into_iter().flat_map(|op| stored.map(|s| computed.map(|c| (op, s, c))).concat())
    {
        let suite = all_suites().into_iter().find(|s| s.op == op).unwrap();
        let mut random = Stream::new(6, op);
        for _ in 0..25 {
            let case = (suite.case)(&mut random).unwrap();
            let ids = case.inputs.iter().position(|t| t.dtype() == DType::U32).unwrap();
            let (op, tables): (Rc<dyn Op>, Vec<usize>) = match op {
                "Embedding" => (Rc::new(ops::Embedding { dtype }), vec![0]),
                _ => {
                    let prompt = case.inputs.get(5).map_or(0, |p| p.shape().rows());
                    let longest = case.inputs[2].shape().rows() - prompt;
                    // Sequences of all lengths that there are positions for, as many as there are ids.
                    let n = case.inputs[0].shape().len();
                    let lengths = (0..n).scan(n, |left, i| {
                        let n = (*left).min(1 + i % longest);
                        *left -= n;
                        (n > 0).then_some(n)
                    });
                    let lengths: Vec<usize> = lengths.collect();
                    let examples = vec![0; lengths.len()];
                    let sequences = Arc::new(Sequences::new(&lengths, examples).unwrap().lengthened(prompt));
                    let mask = Some(lowrank::tensor::Mask { p: 0.2, seed: 5, site: 4 });
                    (Rc::new(ops::EmbeddingLayerNorm { dtype, eps: 0.1, sequences, prompt, mask }), vec![1, 2])
                }
            };
            let inputs: Vec<Tensor> = (case.inputs.iter().enumerate())
                .map(|(i, t)| match i {
                    _ if i == ids => t.clone(),
                    _ if tables.contains(&i) => t.to_dtype(stored).unwrap(),
                    _ => t.to_dtype(DType::F32).unwrap(),
                })
                .collect();
            let needs: Vec<bool> = inputs.iter().map(|t| t.dtype() == DType::F32).collect();
            let rows = op.forward(&inputs.iter().collect::<Vec<_>>(), &needs, &mut Saved::default()).unwrap();
            let dy = random_tensor(&mut random, rows.dims()).unwrap().to_dtype(dtype).unwrap();
            let [wanted, found] = [None, Some(&device)].map(|device| run(&op, &inputs, &needs, &dy, device).unwrap());
            assert_close(&found, &wanted, bound, 1.0, &format!("{} {stored} {dtype}", op.name()));
        }
    }
}

#[test]
fn an_op_without_a_kernel_is_named() {
    let Some(device) = device() else { return };
    let mut tape = Tape::inference();
    let x = tape.constant(&Tensor::new(vec![1f32, 2.0], [2]).unwrap().to_device(&device).unwrap());
    for (op, result) in [("sum", tape.sum(&x)), ("mul", tape.mul(&x, &x))] {
        let message = format!("{op}: has no kernel for a GPU; compute with --device cpu");
        assert!(result.is_err_and(|e| e.to_string() == message));
    }
}

#[test]
fn casts_agree_with_the_host() {
    let Some(device) = device() else { return };
    let values = random_tensor(&mut Stream::new(1, "x"), &[6, 24]).unwrap();
    for (from, to) in [(DType::F32, DType::BF16), (DType::BF16, DType::F32)] {
        let op = ops::Cast { dtype: to };
        let x = values.to_dtype(from).unwrap();
        let y = op.forward(&[&x.to_device(&device).unwrap()], &[true], &mut Saved::default()).unwrap();
        assert_eq!((y.dtype(), y.to_f64().unwrap()), (to, x.to_dtype(to).unwrap().to_f64().unwrap()));
    }
}

#[test]
fn every_row_norm_agrees_with_the_host() {
    let Some(device) = device() else { return };
    let mut random = Stream::new(4, "row norms");
    for (out, input, rank) in [(1, 1, 1), (9, 33, 2), (20, 70, 8)] {
        let [w, a, b] = [[out, input], [rank, input], [out, rank]].map(|dims| random_tensor(&mut random, &dims).unwrap());
        let [whole, a_wide, b_wide] = [&w, &a, &b].map(|t| t.to_f64().unwrap());
        let norm = |row: usize| {
            let square = |c: usize| {
                let low: f64 = (0..rank).map(|k| b_wide[row * rank + k] * a_wide[k * input + c]).sum();
                (whole[row * input + c] + 0.5 * low).powi(2)
            };
            (0..input).map(square).sum::<f64>().sqrt()
        };
        for (dtype, bound) in [(DType::F32, 1e-5), (DType::BF16, 1e-2)] {
            let w = w.to_dtype(dtype).unwrap().to_device(&device).unwrap();
            let [a, b] = [&a, &b].map(|t| t.to_dtype(DType::F32).unwrap().to_device(&device).unwrap());
            let before = w.to_f64().unwrap();
            let found = lowrank::cuda::launch::row_norms(&device, &w, &a, &b, 0.5).unwrap().to_f64().unwrap();
            assert_eq!(found.len(), out);
            assert!(found.iter().enumerate().all(|(row, n)| (n - norm(row)).abs() <= bound * norm(row)), "{out} {input} {rank} {dtype}");
            assert_eq!(w.to_f64().unwrap(), before);
        }
    }
}

/// Parameters of sizes below, at and above what a block of threads takes, and an optimizer with two learning rates.
fn parameters(device: Option<&Arc<Device>>) -> (Vec<Parameter>, AdamW) {
    let mut random = Stream::new(2, "parameters");
    let new = |(i, n)| {
        let value = random_tensor(&mut random, &[n]).unwrap().to_dtype(DType::F32).unwrap();
        Parameter::new(format!("p{i}"), device.map_or(value.clone(), |device| value.to_device(device).unwrap()))
    };
    let parameters = [1, 255, 4096, 4097, 10_000].into_iter().enumerate().map(new).collect();
    let mut adamw = AdamW::new(0.1);
    adamw.lr_factor = Box::new(|name| if name == "p1" { 3.0 } else { 1.0 });
    (parameters, adamw)
}

/// One step with random gradients times `scale`; returns their norm.
fn step((parameters, adamw): &mut (Vec<Parameter>, AdamW), seed: u64, scale: f64) -> f64 {
    let (mut random, mut grads) = (Stream::new(seed, "gradients"), Grads::default());
    for p in parameters.iter() {
        let g = random_tensor(&mut random, p.value().dims()).unwrap().to_f64().unwrap();
        let g = Tensor::new(g.iter().map(|x| (x * scale) as f32).collect::<Vec<_>>(), p.value().dims()).unwrap();
        let mut tape = Tape::new();
        let y = tape.parameter(p);
        grads.add(tape.vjp(&y, g.to_device_of(p.value()).unwrap()).unwrap()).unwrap();
    }
    let norm = adamw.update(&mut parameters.iter_mut().collect::<Vec<_>>(), grads, 1e-2, 1.0).unwrap();
    norm.item().unwrap()
}

fn values((parameters, _): &(Vec<Parameter>, AdamW)) -> Vec<f64> {
    parameters.iter().flat_map(|p| p.value().to_f64().unwrap()).collect()
}

#[test]
fn every_parameter_is_updated_as_on_the_host() {
    let Some(device) = device() else { return };
    let (mut host, mut found) = (parameters(None), parameters(Some(&device)));
    // Clipped, and not.
    for (seed, scale) in [(1, 1.0), (2, 1e-4), (3, 10.0)] {
        let before = (values(&host), found.0.iter().map(|p| p.value().clone()).collect::<Vec<_>>());
        let norms = [&mut host, &mut found].map(|side| step(side, seed, scale));
        assert!((norms[0] - norms[1]).abs() <= 1e-12 * norms[0] && (norms[0] > 1.0) == (scale >= 1.0), "{norms:?}");
        for (i, (a, b)) in values(&host).iter().zip(values(&found)).enumerate() {
            assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "step {seed}, element {i}: {a} {b}");
        }
        // What someone kept of the step before is as it was.
        let kept: Vec<f64> = before.1.iter().flat_map(|t| t.to_f64().unwrap()).collect();
        assert!(before.0 != values(&host) && kept.iter().zip(&before.0).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1.0)));
    }
}

/// The host reads a norm late: until it does, the device must change nothing.
#[test]
fn a_norm_that_is_not_finite_ends_training() {
    let Some(device) = device() else { return };
    for device in [None, Some(&device)] {
        let mut side = parameters(device);
        step(&mut side, 1, 1.0);
        let before = values(&side);
        assert!(step(&mut side, 2, f64::NAN).is_nan());
        assert_eq!(values(&side), before);
        if device.is_some() {
            assert!(step(&mut side, 3, 1.0).is_finite());
            assert_eq!(values(&side), before);
        }
    }
}

fn small() -> Config {
    let mut config = Config::distilbert_base();
    // Heads of 32: the width that tensor cores take.
    (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (64, 2, 96, 2, 40);
    config.initializer_range = 0.1;
    config
}

fn methods() -> Vec<Method> {
    vec![
        Method::Lora(LoraConfig::new(4, &["q_lin", "v_lin", "lin2"])),
        Method::Lora(LoraConfig { dora: true, ..LoraConfig::new(2, &["q_lin", "lin1"]) }),
        Method::Full,
        Method::Head { pre_classifier: false },
        Method::Bottleneck { size: 8, placement: Placement::Houlsby },
        Method::Prompt { tokens: 2 },
        Method::Prefix { tokens: 3 },
        // A dense projection for the small weights, a Fastfood one for the large.
        Method::Intrinsic { dimension: 40, seed: 1 },
    ]
}

#[test]
fn a_model_has_the_same_logits_on_the_device() {
    let Some(device) = device() else { return };
    for (dtype, bound) in [(DType::F32, 1e-5), (DType::BF16, 2e-2)] {
        let mut bert = small();
        (bert.architecture, bert.type_vocab_size) = (Architecture::Bert, 2);
        let of_bert = [Method::Full, Method::Lora(LoraConfig::new(4, &["query", "dense"])), Method::Prompt { tokens: 2 }];
        let of_bert = of_bert.map(|method| (bert.clone(), method));
        for (config, method) in methods().into_iter().map(|method| (small(), method)).chain(of_bert) {
            let mut model = DistilBert::random(&config, 3, dtype, 1).unwrap();
            method.apply(&mut model, 4).unwrap();
            let lengths = [5, 1, 70, 2];
            let sequences = Arc::new(Sequences::new(&lengths, vec![7, 8, 9, 3]).unwrap());
            let ids: Vec<u32> = (0..78).map(|i| i * 7 % 40).collect();
            let logits = |model: &DistilBert| {
                let pass = Pass::training(sequences.clone(), 5);
                model.forward(&mut Tape::new(), &ids, &pass).unwrap().value().to_f64().unwrap()
            };
            let host = logits(&model);
            model.to_device(&device).unwrap();
            let scale = host.iter().fold(1e-3, |m: f64, x| m.max(x.abs()));
            for (a, b) in host.iter().zip(logits(&model)) {
                assert!((a - b).abs() <= bound * scale, "{method:?} {dtype}: {a} {b}");
            }
        }
    }
}

/// On a device, batches are cut by tokens, and logits are read once. Order and numbers are those of the host.
#[test]
fn an_evaluation_has_the_same_logits_on_the_device() {
    let Some(device) = device() else { return };
    let mut model = DistilBert::random(&small(), 3, DType::F32, 1).unwrap();
    let texts: Vec<Vec<u32>> = (0..23).map(|i| (0..1 + i * 7 % 40).map(|j| (i + j * 3) % 40).collect()).collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let host = lowrank::train::logits(&model, &texts, 3).unwrap().concat();
    model.to_device(&device).unwrap();
    for batch in [1, 3, 100] {
        let found = lowrank::train::logits(&model, &texts, batch).unwrap().concat();
        assert_eq!(found.len(), 3 * texts.len());
        assert!(host.iter().zip(&found).all(|(a, b)| (a - b).abs() <= 1e-5), "{batch}: {host:?} {found:?}");
    }
    assert!(lowrank::train::logits(&model, &[&[][..]; 0], 3).unwrap().is_empty());
    // A weight that is not finite is named here too.
    let bad = Tensor::new(vec![f32::NAN; 3], [3]).unwrap().to_device(&device).unwrap();
    model.classifier.bias.as_mut().unwrap().set(bad).unwrap();
    let message = lowrank::train::logits(&model, &texts, 3).unwrap_err().to_string();
    assert!(message.contains("the model answers NaN") && message.contains("classifier.bias"), "{message}");
}

/// Losses and gradient norms of the steps.
#[derive(Default)]
struct Losses(Vec<[f64; 2]>);

impl Observer for Losses {
    fn step(&mut self, report: &StepReport) -> bool {
        self.0.push([report.loss, report.grad_norm]);
        true
    }
}

/// Six texts of small and large lengths.
fn six_texts() -> Tokenized {
    let offsets = vec![0, 5, 38, 45, 49, 115, 116];
    let ids = (0..116).map(|i| i * 11 % 40).collect();
    Tokenized { ids, offsets, labels: vec![0, 1, 1, 0, 1, 0], label_names: vec!["a".into(), "b".into()], ..Tokenized::default() }
}

/// K's bias adds the same to all scores of a query, which the softmax takes away again: its gradient is zero but for rounding, and Adam makes steps of
/// random signs of that. Where it goes does not matter, and only chance would make host and device agree.
fn is_arbitrary(parameter: &str) -> bool {
    parameter.ends_with("k_lin.bias")
}

#[test]
fn training_on_the_device_is_training_on_the_host() {
    let Some(device) = device() else { return };
    let data = six_texts();
    for method in methods() {
        let recompute = matches!(method, Method::Full);
        let recipe = Recipe { batch: 2, accumulate: 2, lr: 1e-3, seed: 3, recompute, ..Recipe::default() };
        let trained = |device: Option<&Arc<Device>>| {
            let mut model = DistilBert::random(&small(), 2, DType::F32, 1).unwrap();
            method.apply(&mut model, 0).unwrap();
            if let Some(device) = device {
                model.to_device(device).unwrap();
            }
            let mut losses = Losses::default();
            fit(&mut model, &data, &recipe, &mut AdamW::new(0.01), &mut losses).unwrap();
            let parameters = model.parameters();
            let told = parameters.iter().filter(|p| !is_arbitrary(p.name()));
            let values: Vec<f64> = told.flat_map(|p| p.value().to_f64().unwrap()).collect();
            // One for each layer, if all is trained.
            let arbitrary = parameters.iter().filter(|p| is_arbitrary(p.name())).count();
            assert_eq!(arbitrary, if recompute { small().n_layers } else { 0 }, "{method:?}");
            (losses.0, values)
        };
        let ((losses, values), (on_device, device_values)) = (trained(None), trained(Some(&device)));
        assert_eq!(losses.len(), 6);
        for ([loss, norm], [device_loss, device_norm]) in losses.iter().zip(&on_device) {
            assert!(
                (loss - device_loss).abs() <= 1e-4 * loss && (norm - device_norm).abs() <= 1e-3 * norm,
                "{method:?}: {losses:?} {on_device:?}"
            );
        }
        let far = largest(values.iter().zip(&device_values).map(|(a, b)| (a - b).abs()));
        assert!(far < 2e-3, "{method:?}: {far}");
    }
}

#[test]
fn every_kind_of_labels_trains_on_the_device_as_on_the_host() {
    let Some(device) = device() else { return };
    for (outputs, names) in [(Outputs::Labels, vec!["a", "b", "c"]), (Outputs::Numbers, vec!["LABEL_0"])] {
        let rows = (0..6).map(|i| (0..names.len()).map(|c| f64::from((i + 2 * c as u32) % 3 / 2)).collect()).collect();
        let data = Tokenized {
            labels: (0..6).collect(),
            label_names: names.iter().map(|name| name.to_string()).collect(),
            targets: Some(Targets { outputs, rows }),
            ..six_texts()
        };
        let recipe = Recipe { batch: 2, accumulate: 2, lr: 1e-3, seed: 3, ..Recipe::default() };
        for (dtype, bound) in [(DType::F32, 1e-5), (DType::BF16, 3e-2)] {
            let [host, found] = [None, Some(&device)].map(|device| {
                let mut model = DistilBert::random(&small(), names.len(), dtype, 1).unwrap();
                Method::Lora(LoraConfig::new(2, &["q_lin", "lin1"])).apply(&mut model, 0).unwrap();
                if let Some(device) = device {
                    model.to_device(device).unwrap();
                }
                let mut losses = Losses::default();
                fit(&mut model, &data, &recipe, &mut AdamW::new(0.01), &mut losses).unwrap();
                losses.0
            });
            assert_eq!(host.len(), 6, "{outputs:?}");
            assert!(host.iter().all(|[loss, norm]| *loss > 0.0 && *norm > 0.0), "{outputs:?}: {host:?}");
            for (i, bound) in [bound, 10.0 * bound].into_iter().enumerate() {
                let most = largest(host.iter().map(|step| step[i]));
                let far = largest(host.iter().zip(&found).map(|(a, b)| (a[i] - b[i]).abs()));
                assert!(far <= bound * most, "{outputs:?} {dtype}: {host:?} {found:?}");
            }
        }
    }
}

#[test]
fn a_run_on_the_device_goes_on_where_it_stopped() {
    let Some(device) = device() else { return };
    let (folder, data) = (tempfile::tempdir().unwrap(), six_texts());
    let file = folder.path().join("checkpoint.safetensors");
    let recipe = Recipe { batch: 2, lr: 1e-3, seed: 3, ..Recipe::default() };
    let start = || {
        let mut model = DistilBert::random(&small(), 2, DType::F32, 1).unwrap();
        Method::Lora(LoraConfig::new(2, &["q_lin", "lin1"])).apply(&mut model, 0).unwrap();
        model.to_device(&device).unwrap();
        (model, AdamW::new(0.01))
    };
    let values = |model: &DistilBert| -> Vec<f64> { model.parameters().iter().flat_map(|p| p.value().to_f64().unwrap()).collect() };
    let (mut whole, mut adamw) = start();
    assert!(fit(&mut whole, &data, &recipe, &mut adamw, &mut Losses::default()).unwrap());
    let (mut stopped, mut adamw) = start();
    assert!(!Training::new(&stopped, &data, &recipe).unwrap().run(&mut stopped, &mut adamw, 4, &mut ()).unwrap());
    assert_eq!(adamw.steps(), 4);
    save_checkpoint(&file, &stopped, &adamw, "").unwrap();
    let (mut resumed, adamw) = start();
    // A norm that was not finite before does not matter any more.
    let mut side = (parameters(Some(&device)).0, adamw);
    assert!(step(&mut side, 1, f64::NAN).is_nan());
    let mut adamw = side.1;
    load_checkpoint(&file, &mut resumed, &mut adamw, "").unwrap();
    assert!(fit(&mut resumed, &data, &recipe, &mut adamw, &mut Losses::default()).unwrap());
    assert_eq!(values(&resumed), values(&whole));
}
