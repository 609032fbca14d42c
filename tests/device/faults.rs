//! Faults that only a card would show, and the shapes of production.

use super::*;
use lowrank::cuda::{Argument, Buffer, DataType, Matrix};

/// `work` on a thread that has no context yet.
fn afresh<T: Send>(work: impl FnOnce() -> lowrank::Result<T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap()).unwrap()
}

/// A context is bound to a thread: each call must bind its own, because no other may have done it.
#[test]
fn every_call_binds_the_context() {
    let Some(device) = device() else { return };
    let ones: Vec<u8> = [1f32; 16].iter().flat_map(|x| x.to_le_bytes()).collect();
    let [a, b] = [0, 1].map(|_| afresh(|| Buffer::upload(&device, &ones)));
    let c = afresh(|| Buffer::zeroed(&device, 64));
    let matrix = |of: &Buffer| Matrix { address: of.address(), dtype: DataType::F32, dims: [4, 4], stride: 4, transposed: false };
    let downloaded = |of: &Buffer| {
        let mut bytes = [0; 64];
        afresh(|| of.download(0, &mut bytes));
        bytes.chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect::<Vec<_>>()
    };
    afresh(|| device.gemm(1.0, matrix(&a), matrix(&b), 0.0, matrix(&c)));
    afresh(|| device.synchronize());
    assert_eq!(downloaded(&c), [4.0; 16]);
    if afresh(|| device.gemm_bias(matrix(&a), matrix(&b), a.address(), matrix(&c), 1)) {
        assert_eq!(downloaded(&c), [5.0; 16]);
    }
    // Sums of two rows of eight.
    let arguments =
        [Argument::Address(a.address()), Argument::Address(0), Argument::Address(c.address()), Argument::U32(2), Argument::U32(8)];
    afresh(|| device.launch("column_sums_finish", [1, 1, 1], 256, 0, &arguments));
    assert_eq!(downloaded(&c)[..8], [2.0; 8]);
    assert_eq!(downloaded(&afresh(|| b.copy(0, 64))), [1.0; 16]);
}

/// More than the pinned buffers hold, before the device has copied any of it.
#[test]
fn every_upload_arrives() {
    let Some(device) = device() else { return };
    let values = |seed: usize, bytes: usize| (0..bytes).map(|i| ((i + seed) * 167 / 8) as u8).collect::<Vec<u8>>();
    let sizes = [5 << 20, 3, 100_001, 5 << 20, 1, 2 << 20, 64, (3 << 20) + 7, 0];
    let there: Vec<Buffer> = sizes.iter().enumerate().map(|(i, &n)| Buffer::upload(&device, &values(i, n)).unwrap()).collect();
    for (i, (&n, buffer)) in sizes.iter().zip(&there).enumerate() {
        let mut found = vec![0; n];
        buffer.download(0, &mut found).unwrap();
        assert!(found == values(i, n), "upload {i} of {n} bytes");
    }
}

/// Attention of DistilBERT's heads in bf16, with dropout, against the host in f64.
fn attends(device: &Arc<Device>, queries: &Arc<Sequences>, keys: &Arc<Sequences>) {
    let (heads, d) = (12, 12 * 64);
    let mut random = Stream::new(12, "production");
    let mut draw = |dims: &[usize]| exact(&random_tensor(&mut random, dims).unwrap(), DType::BF16);
    let split = !Arc::ptr_eq(queries, keys);
    let inputs = if split { vec![draw(&[queries.tokens(), d]), draw(&[2, keys.tokens(), d])] } else { vec![draw(&[3, keys.tokens(), d])] };
    let dy = draw(&[queries.tokens(), d]);
    let mask = Some(lowrank::tensor::Mask { p: 0.1, seed: 5, site: 4 });
    let op: Rc<dyn Op> = Rc::new(ops::Attention { heads, queries: queries.clone(), keys: keys.clone(), extra: false, mask });
    let wanted = run_in(DType::F64, &op, &inputs, &dy, None).unwrap();
    let found = run_in(DType::BF16, &op, &inputs, &dy, Some(device)).unwrap();
    assert_close(&found, &wanted, 3e-2, 0.0, &format!("12 heads of 64, {} tokens", keys.tokens()));
}

/// The last layer, where only the first token asks: 32 sequences of 512 tokens.
#[test]
fn production_attention_of_a_full_batch_agrees_with_the_host() {
    let Some(device) = device() else { return };
    let keys = Arc::new(Sequences::new(&[512; 32], (0..32).collect()).unwrap());
    attends(&device, &Arc::new(keys.first_rows()), &keys);
}

/// Any other layer: 32 sequences, the longest of 512 tokens, the others short, so that the stand-ins take seconds.
#[test]
fn production_attention_of_unequal_lengths_agrees_with_the_host() {
    let Some(device) = device() else { return };
    let lengths: Vec<usize> = (0..32).map(|i| if i == 17 { 512 } else { 1 + i }).collect();
    let keys = Arc::new(Sequences::new(&lengths, (0..32).collect()).unwrap());
    attends(&device, &keys, &keys);
}

/// One layer of DistilBERT's width, in bf16, of the sizes that tensor cores and cuBLASLt meet.
#[test]
fn production_training_in_bf16_agrees_with_the_host() {
    let Some(device) = device() else { return };
    let mut config = Config::distilbert_base();
    (config.hidden_dim, config.n_layers, config.vocab_size) = (256, 1, 40);
    let (data, recipe) = (six_texts(), Recipe { batch: 2, lr: 1e-3, seed: 3, ..Recipe::default() });
    let trained = |device: Option<&Arc<Device>>| {
        let mut model = DistilBert::random(&config, 2, DType::BF16, 1).unwrap();
        Method::Lora(LoraConfig::new(8, &["q_lin", "v_lin"])).apply(&mut model, 0).unwrap();
        if let Some(device) = device {
            model.to_device(device).unwrap();
        }
        let mut losses = Losses::default();
        fit(&mut model, &data, &recipe, &mut AdamW::new(0.01), &mut losses).unwrap();
        losses.0
    };
    let (host, found) = (trained(None), trained(Some(&device)));
    assert_eq!(host.len(), found.len());
    for ([loss, norm], [device_loss, device_norm]) in host.iter().zip(&found) {
        assert!((loss - device_loss).abs() <= 2e-2 * loss && (norm - device_norm).abs() <= 5e-2 * norm, "{host:?} {found:?}");
    }
}

/// The layers of DistilBERT as they are adapted, with dropout: ranks of the terms of each linear of a group. The stand-in for cuBLASLt tells nothing where a
/// batch was not asked for; `every_bias_is_added_by_cublaslt` does.
#[test]
fn production_layers_with_low_rank_terms_agree_with_the_host() {
    let Some(device) = device() else { return };
    let sequences = Arc::new(Sequences::new(&[37, 1, 30], vec![7, 8, 3]).unwrap());
    let (t, d, wide) = (sequences.tokens(), 768, 3072);
    let cases: [(usize, usize, &[&[usize]]); 8] = [
        (d, d, &[&[4], &[], &[4]]),
        (d, d, &[&[8], &[], &[8]]),
        (d, d, &[&[16], &[16], &[16]]),
        (d, d, &[&[], &[8]]),      // k and v of the last layer
        (d, d, &[&[8]]),           // out, and q of the last layer
        (d, d, &[&[8, 3], &[20]]), // combined adapters, ranks that are no multiples of 8
        (d, wide, &[&[8]]),
        (wide, d, &[&[8]]),
    ];
    for (i, (input, output, ranks)) in cases.into_iter().enumerate() {
        let mut random = Stream::new(i as u64, "adapted");
        let mut draw = |dims: &[usize]| exact(&random_tensor(&mut random, dims).unwrap(), DType::BF16);
        let (mut inputs, mut members) = (vec![draw(&[t, input])], Vec::new());
        for (linear, ranks) in ranks.iter().enumerate() {
            inputs.extend([draw(&[output, input]), draw(&[output])]);
            inputs.extend(ranks.iter().flat_map(|&r| [vec![r, input], vec![output, r]]).map(|dims| draw(&dims)));
            let mask = |term: usize| lowrank::tensor::Mask { p: 0.1, seed: 5, site: (10 * linear + term) as u32 };
            // rsLoRA's scales are no powers of two.
            let terms = (0..ranks.len()).map(|term| ops::Term { scale: 0.7, mask: Some(mask(term)) }).collect();
            members.push(ops::GroupedLinear { bias: true, terms });
        }
        let group = if ranks.len() > 1 { vec![ranks.len()] } else { Vec::new() };
        let dy = draw(&[group, vec![t, output]].concat());
        let op: Rc<dyn Op> = Rc::new(ops::Linear { members, sequences: Some(sequences.clone()) });
        let wanted = run_in(DType::F64, &op, &inputs, &dy, None).unwrap();
        let found = run_in(DType::BF16, &op, &inputs, &dy, Some(&device)).unwrap();
        assert_close(&found, &wanted, 1e-2, 0.0, &format!("{input} to {output}, ranks {ranks:?}"));
        // y is rounded once: half a unit in the last place of its largest numbers, and what rounding h and s B does.
        assert_close(&found[..1], &wanted[..1], 4e-3, 0.0, &format!("y, {input} to {output}, ranks {ranks:?}"));
    }
}
