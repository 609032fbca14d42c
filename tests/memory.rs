//! What training takes from the system: nothing large once the pool is warm, and no more for varying shapes than for the largest.

use lowrank::autograd::Tape;
use lowrank::lora::{LoraConfig, adapt};
use lowrank::nn::{Config, DistilBert, Pass};
use lowrank::tensor::{DType, Sequences, Tensor};
use lowrank::train::AdamW;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts allocations of 64 KiB or more.
struct Counting;

const LARGE: usize = 64 * 1024;
static LARGE_ONES: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; only counters are touched beside it.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= LARGE {
            LARGE_ONES.fetch_add(1, Ordering::Relaxed);
        }
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn step(model: &mut DistilBert, optimizer: &mut AdamW, lengths: &[usize], recompute: bool) {
    let sequences = Arc::new(Sequences::new(lengths, (0..lengths.len() as u32).collect()).unwrap());
    let ids: Vec<u32> = (0..sequences.tokens() as u32).map(|i| i % 90).collect();
    let pass = Pass { recompute, ..Pass::training(sequences, 1) };
    let mut tape = Tape::new();
    let logits = model.forward(&mut tape, &ids, &pass).unwrap();
    let loss = tape.cross_entropy(&logits, &vec![0; lengths.len()], lengths.len()).unwrap();
    let grads = tape.backward(&loss).unwrap();
    optimizer.update(&mut model.parameters_mut(), grads, 1e-3, 1.0).unwrap();
}

/// One test, so that no other one allocates at the same time.
#[test]
fn training_takes_memory_once() {
    // With more threads, the number of buffers in use at once varies from run to run.
    lowrank::tensor::rows::use_threads(1).unwrap();
    let mut config = Config::distilbert_base();
    (config.dim, config.hidden_dim, config.n_heads, config.n_layers, config.vocab_size) = (128, 512, 4, 3, 100);
    let new = |dtype| {
        let mut model = DistilBert::random(&config, 2, dtype, 0).unwrap();
        adapt(&mut model, &LoraConfig::new(4, &["q_lin", "v_lin", "lin1", "lin2"]), 0).unwrap();
        (model, AdamW::new(0.01))
    };
    let lengths = [200, 120, 64, 130];
    // The pool keeps buffers of each type apart. f32: the largest shape alone.
    let (mut model, mut optimizer) = new(DType::F32);
    let before = HELD.load(Ordering::Relaxed);
    step(&mut model, &mut optimizer, &lengths, false);
    let alone = MOST.load(Ordering::Relaxed) - before;
    // f64, twice as large: shapes that grow until they are the largest.
    let (mut model, mut optimizer) = new(DType::F64);
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    for i in (0..12).rev() {
        step(&mut model, &mut optimizer, &[200 - 13 * i, 120 - 7 * i, 64 - 3 * i, 130 - 9 * i], false);
    }
    let growing = MOST.load(Ordering::Relaxed) - before;
    assert!(growing as f64 <= 1.4 * 2.0 * alone as f64, "{growing} bytes for growing shapes, {} for the largest", 2 * alone);

    for dtype in [DType::F32, DType::BF16] {
        let (mut model, mut optimizer) = new(dtype);
        (0..3).for_each(|_| step(&mut model, &mut optimizer, &lengths, false));
        let before = LARGE_ONES.load(Ordering::Relaxed);
        assert!(before > 0, "the counter counts");
        (0..4).for_each(|_| step(&mut model, &mut optimizer, &lengths, false));
        let large = LARGE_ONES.load(Ordering::Relaxed) - before;
        assert_eq!(large, 0, "{dtype}: large allocations in 4 steps at a shape seen before");

        // Shapes that vary below the largest take little more than the largest alone.
        let largest = MOST.load(Ordering::Relaxed);
        for i in 0..12 {
            step(&mut model, &mut optimizer, &[200 - 13 * i, 120 - 7 * i, 64 - 3 * i, 130 - 9 * i], false);
        }
        let most = MOST.load(Ordering::Relaxed);
        assert!(most as f64 <= 1.3 * largest as f64, "{dtype}: {most} bytes, {largest} at the largest shape");
    }

    // Vectors that were made elsewhere are no burden once their tensors are gone.
    let before = HELD.load(Ordering::Relaxed);
    for i in 0..100 {
        let n = 50_000 + 1_000 * i;
        assert_eq!(Tensor::new(vec![1.0_f32; n], [n]).unwrap().shape().len(), n);
    }
    let left = HELD.load(Ordering::Relaxed).saturating_sub(before);
    assert!(left < 100_000, "{left} bytes stay of vectors that were not the pool's");
}
