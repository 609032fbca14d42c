//! The engine's side of the queue, on the main thread.

use super::Served;
use super::metrics::Metrics;
use super::queue::{Queue, Texts, Work};
use lowrank::train::logits;
use std::time::{Duration, Instant};

/// Tokens that are computed together.
pub const TOKENS: usize = 4096;
/// How often `stopped` is asked while nothing waits.
const WAIT: Duration = Duration::from_millis(50);

/// Computes what the queue holds until it is closed and empty. A task is told to end when `stopped`.
pub fn run(models: &[Served], queue: &Queue, metrics: &Metrics, stopped: fn() -> bool) {
    loop {
        match queue.next(WAIT, TOKENS) {
            Work::Texts(texts) => answer(models, texts, metrics),
            Work::Task(task) => task(models, &mut || {
                let texts = queue.texts(TOKENS);
                if !texts.is_empty() {
                    answer(models, texts, metrics);
                }
                !stopped()
            }),
            Work::Nothing => {}
            Work::End => return,
        }
    }
}

/// Computes the logits of all texts, in batches of up to [`TOKENS`] tokens. The logits of a text depend neither on its batch nor on its place
/// in it.
fn answer(models: &[Served], mut requests: Vec<Texts>, metrics: &Metrics) {
    // Nobody waits for these any more.
    requests.retain(|texts| !texts.answer.is_closed());
    let Some(model) = requests.first().and_then(|first| models.get(first.model)) else { return };
    let all: Vec<&[u32]> = requests.iter().flat_map(|texts| texts.ids.iter().map(Vec::as_slice)).collect();
    let (mut rows, mut rest) = (Ok(Vec::new()), &all[..]);
    while let (Ok(done), false) = (&mut rows, rest.is_empty()) {
        let (mut tokens, started) = (0, Instant::now());
        let fitting = rest.iter().take_while(|ids| {
            tokens += ids.len();
            tokens <= TOKENS
        });
        let (batch, after) = rest.split_at(fitting.count().max(1));
        match logits(&model.model, batch, batch.len()) {
            Ok(found) => done.extend(found),
            Err(e) => rows = Err(e.to_string()),
        }
        metrics.batch(batch.len(), batch.iter().map(|ids| ids.len()).sum(), started.elapsed());
        rest = after;
    }
    let mut rows = rows.map(Vec::into_iter);
    for texts in requests {
        let own = rows.as_mut().map(|rows| rows.take(texts.ids.len()).collect()).map_err(|e| e.clone());
        // An error means that nobody waits any more.
        let _ = texts.answer.send(own);
    }
}
