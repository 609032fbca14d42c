//! Runs of several ranks, each a thread: the bits of one rank, and the bytes that are sent.

use lowrank::data::Tokenized;
use lowrank::lora::{LoraConfig, Method};
use lowrank::nn::{Config, DistilBert};
use lowrank::tensor::DType;
use lowrank::train::{
    AdamW, FrozenFeatures, Observer, OneRank, Ranks, Recipe, StepReport, ThreadRank, Training, evaluate, evaluate_across, logits,
    logits_while,
};
use lowrank::{Error, Result};
use std::cell::Cell;

fn small() -> Config {
    let mut config = Config::distilbert_base();
    (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (16, 2, 32, 2, 40);
    config
}

/// 21 sequences of 2 to 8 tokens: at 2 in a micro-batch and 4 of these in a step, the last step of an epoch has 3, and the last of these is short.
fn data() -> Tokenized {
    let lengths: Vec<usize> = (0..21).map(|i| 2 + i * 5 % 7).collect();
    let offsets: Vec<usize> = (0..=21).map(|n| lengths[..n].iter().sum()).collect();
    let ids = (0..offsets[21] as u32).map(|i| 1 + i * 17 % 39).collect();
    Tokenized {
        ids,
        offsets,
        labels: (0..21).map(|i| i % 3 % 2).collect(),
        label_names: vec!["a".into(), "b".into()],
        ..Default::default()
    }
}

fn recipe() -> Recipe {
    Recipe { epochs: 2, batch: 2, accumulate: 4, lr: 1e-2, ..Recipe::default() }
}

/// A rank that counts the bytes that it sends to others.
struct Counting<'a> {
    of: &'a dyn Ranks,
    sent: Cell<usize>,
}

impl Ranks for Counting<'_> {
    fn rank(&self) -> usize {
        self.of.rank()
    }

    fn size(&self) -> usize {
        self.of.size()
    }

    fn exchange(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        let others = parts.iter().enumerate().filter(|(to, _)| *to != self.rank());
        self.sent.set(self.sent.get() + others.map(|(_, part)| part.len()).sum::<usize>());
        self.of.exchange(parts)
    }

    fn fail(&self, cause: &Error) {
        self.of.fail(cause);
    }
}

/// Runs `f` on each of `n` ranks.
fn on_ranks<T: Send>(n: usize, f: impl Fn(&dyn Ranks) -> T + Sync) -> Vec<T> {
    if n == 1 {
        return vec![f(&OneRank)];
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = ThreadRank::all(n).into_iter().map(|rank| scope.spawn(|| f(&{ rank }))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The reports of a run, as JSON without the fields about ranks; and who computed what.
#[derive(Default)]
struct Reports(Vec<String>, Vec<Vec<usize>>);

impl Observer for Reports {
    fn step(&mut self, report: &StepReport) -> bool {
        let mut report = report.clone();
        self.1.extend(report.ranks.take().map(|ranks| ranks.computed_by));
        self.0.push(serde_json::to_string(&report).unwrap());
        true
    }
}

fn model(method: &Method, dtype: DType) -> DistilBert {
    let mut model = DistilBert::random(&small(), 2, dtype, 1).unwrap();
    method.apply(&mut model, 3).unwrap();
    model
}

/// The parameters and their moments after training, and the reports.
fn trained(ranks: &dyn Ranks, method: &Method, dtype: DType, recipe: &Recipe) -> (Vec<Vec<f64>>, Reports) {
    let (data, mut model, mut optimizer) = (data(), model(method, dtype), AdamW::new(0.01));
    let mut reports = Reports::default();
    assert!(Training::across(ranks, &model, &data, recipe).unwrap().run(&mut model, &mut optimizer, usize::MAX, &mut reports).unwrap());
    let all = model.parameters().into_iter().flat_map(|p| {
        let (m, v) = optimizer.moments(p).unwrap();
        [p.value(), m, v].map(|t| t.to_f64().unwrap())
    });
    (all.collect(), reports)
}

fn lora() -> Method {
    Method::Lora(LoraConfig::new(2, &["q_lin", "lin1"]))
}

#[test]
fn any_number_of_ranks_gives_the_bits_of_one() {
    let dora = Method::Lora(LoraConfig { dora: true, ..LoraConfig::new(2, &["q_lin", "lin2"]) });
    let recipes = [recipe(), Recipe { recompute: true, group_by_length: true, nested_rank: Some(2), ..recipe() }];
    let mut cases: Vec<(Method, Recipe)> = Vec::new();
    for method in [lora(), dora, Method::Full, Method::Selective { frozen_layers: 1 }] {
        cases.push((method, recipes[0].clone()));
    }
    cases.push((lora(), recipes[1].clone()));
    cases.push((Method::Selective { frozen_layers: 1 }, Recipe { cache_trunk: true, ..recipe() }));
    cases.push((Method::Head { pre_classifier: true }, Recipe { cache_trunk: true, ..recipe() }));
    for dtype in [DType::F32, DType::BF16] {
        for (method, recipe) in &cases {
            let (alone, reports) = trained(&OneRank, method, dtype, recipe);
            assert!(reports.1.is_empty() && reports.0.len() == 6);
            for n in [2, 3, 4] {
                for (found, again) in on_ranks(n, |ranks| trained(ranks, method, dtype, recipe)) {
                    assert!(found == alone && again.0 == reports.0, "{n} ranks, {dtype}, {method:?}, {recipe:?}");
                    let whole: Vec<usize> = (0..4).map(|i| i % n).collect();
                    assert_eq!(again.1, [&whole[..], &whole, &whole[..3], &whole, &whole, &whole[..3]]);
                }
            }
        }
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let data = data();
    let steps = |ranks: &dyn Ranks, until: usize, model: &mut DistilBert, optimizer: &mut AdamW| {
        let recipe = recipe();
        Training::across(ranks, model, &data, &recipe).unwrap().run(model, optimizer, until, &mut ()).unwrap();
    };
    let values = |model: &DistilBert| model.parameters().iter().map(|p| p.value().to_f64().unwrap()).collect::<Vec<_>>();
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("checkpoint.safetensors");
    on_ranks(3, |ranks| {
        let (mut model, mut optimizer) = (model(&lora(), DType::F32), AdamW::new(0.01));
        steps(ranks, 2, &mut model, &mut optimizer);
        if ranks.rank() == 0 {
            lowrank::train::save_checkpoint(&path, &model, &optimizer, "").unwrap();
        }
    });
    let found = on_ranks(2, |ranks| {
        let (mut model, mut optimizer) = (model(&lora(), DType::F32), AdamW::new(0.01));
        lowrank::train::load_checkpoint(&path, &mut model, &mut optimizer, "").unwrap();
        steps(ranks, 6, &mut model, &mut optimizer);
        values(&model)
    });
    let (mut alone, mut optimizer) = (model(&lora(), DType::F32), AdamW::new(0.01));
    steps(&OneRank, 6, &mut alone, &mut optimizer);
    assert!(found.iter().all(|found| *found == values(&alone)));
}

#[test]
fn the_bytes_sent_are_those_of_the_formula() {
    let data = data();
    let (classes, bytes) = (2, 8);
    for (method, n) in [(lora(), 2), (lora(), 3), (Method::Full, 4)] {
        // One epoch: 2 steps of 4 micro-batches of 2 sequences, and one of 3 with 5 sequences.
        let recipe = Recipe { epochs: 1, ..recipe() };
        let sent = on_ranks(n, |ranks| {
            let ranks = Counting { of: ranks, sent: Cell::new(0) };
            let mut model = model(&method, DType::F32);
            Training::across(&ranks, &model, &data, &recipe).unwrap().run(&mut model, &mut AdamW::new(0.0), 9, &mut ()).unwrap();
            ranks.sent.get()
        });
        let model = model(&method, DType::F32);
        let (parameters, elements) = (model.parameters().len(), model.parameters().iter().map(|p| p.value().shape().len()).sum::<usize>());
        for (rank, sent) in sent.into_iter().enumerate() {
            let slice = 4 * (elements * (rank + 1) / n - elements * rank / n);
            let step = |sequences: &[usize]| {
                let own: Vec<usize> = sequences.iter().copied().skip(rank).step_by(n).collect();
                // Loss, tokens, kept bytes, two counts; a label and the logits of each sequence.
                let report = bytes * (5 * own.len() + own.iter().sum::<usize>() * (1 + classes));
                // A byte says whether to go on.
                own.len() * (4 * elements - slice) + (n - 1) * (slice + parameters + report + 1)
            };
            assert_eq!(sent, 2 * step(&[2, 2, 2, 2]) + step(&[2, 2, 1]), "rank {rank} of {n}");
        }
    }
}

#[test]
fn evaluation_is_that_of_one_rank() {
    let (data, model) = (data(), || model(&lora(), DType::F32));
    let alone = evaluate(&model(), &data, 4).unwrap();
    let rows = logits(&model(), &data.sequences(), 4).unwrap();
    for n in [2, 3, 9] {
        let found = on_ranks(n, |ranks| {
            let counted = Counting { of: ranks, sent: Cell::new(0) };
            let found = evaluate_across(&counted, &model(), &data, 4).unwrap();
            // Two logits of 8 bytes for each sequence, and a byte that says that nobody stopped.
            let own: usize = [4, 4, 4, 4, 4, 1].into_iter().skip(ranks.rank()).step_by(n).sum();
            assert_eq!(counted.sent.get(), (n - 1) * (16 * own + 1));
            let rows = logits_while(ranks, &model(), &data.sequences(), 4, &mut |_| true).unwrap().unwrap();
            let mut go_on = |_| ranks.rank() != 1;
            let stopped = logits_while(ranks, &model(), &data.sequences(), 4, &mut go_on).unwrap();
            assert!(stopped.is_none(), "one rank stops all");
            (found, rows)
        });
        assert!(found.iter().all(|(e, r)| *e == alone && *r == rows), "{n} ranks");
    }
}

#[test]
fn a_cached_trunk_is_computed_once() {
    let data = data();
    let model = || model(&Method::Selective { frozen_layers: 1 }, DType::BF16);
    let all: Vec<usize> = (0..21).rev().collect();
    let rows = |features: &FrozenFeatures| features.rows(&all).unwrap().to_f64().unwrap();
    let alone = rows(&FrozenFeatures::new(&model(), &data, 2).unwrap());
    let found = on_ranks(3, |ranks| {
        let ranks = Counting { of: ranks, sent: Cell::new(0) };
        (rows(&FrozenFeatures::across(&ranks, &model(), &data, 2).unwrap()), ranks.sent.get())
    });
    assert!(found.iter().all(|(rows, _)| *rows == alone));
    // Each row of 16 bf16 numbers is sent to two ranks, by the one that computed it.
    assert_eq!(found.iter().map(|(_, sent)| sent).sum::<usize>(), 2 * data.ids.len() * 16 * 2);
}

#[test]
fn what_goes_wrong_on_one_rank_ends_all() {
    let data = data();
    let few = Recipe { accumulate: 2, ..recipe() };
    let found = on_ranks(3, |ranks| Training::across(ranks, &model(&lora(), DType::F32), &data, &few).map(|_| ()));
    assert!(found.iter().all(|r| r.as_ref().is_err_and(|e| e.to_string().contains("3 ranks") && e.to_string().contains("--accumulate 2"))));

    // The data of rank 1 has a token that the model does not know.
    let found = on_ranks(3, |ranks| {
        let mut data = data.clone();
        if ranks.rank() == 1 {
            data.ids.fill(40);
        }
        let (mut model, recipe) = (model(&lora(), DType::F32), recipe());
        let training = Training::across(ranks, &model, &data, &recipe).unwrap();
        training.run(&mut model, &mut AdamW::new(0.0), 9, &mut ()).map(|_| ()).map_err(|e| e.to_string())
    });
    let said: Vec<String> = found.into_iter().map(|result| result.unwrap_err()).collect();
    assert!(said[0] == said[2] && said[0] == format!("rank 1: {}", said[1]), "{said:?}");

    // A rank asks to stop: all stop after the same step.
    struct Stop(usize);
    impl Observer for Stop {
        fn step(&mut self, report: &StepReport) -> bool {
            report.step < self.0
        }
    }
    let steps = on_ranks(2, |ranks| {
        let (mut model, mut optimizer, recipe) = (model(&lora(), DType::F32), AdamW::new(0.0), recipe());
        let training = Training::across(ranks, &model, &data, &recipe).unwrap();
        let mut stop = Stop(if ranks.rank() == 1 { 3 } else { 99 });
        assert!(!training.run(&mut model, &mut optimizer, 9, &mut stop).unwrap());
        optimizer.steps()
    });
    assert_eq!(steps, [3, 3]);
}
