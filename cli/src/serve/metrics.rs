//! Counters in the text format of Prometheus.

use super::queue::Queue;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Counters since the start.
#[derive(Default)]
pub struct Metrics {
    /// Requests by path and status. Paths are those of the routes, so there are few.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    request_micros: AtomicU64,
    batches: AtomicU64,
    texts: AtomicU64,
    tokens: AtomicU64,
    compute_micros: AtomicU64,
}

impl Metrics {
    /// Counts an answer.
    pub fn request(&self, path: &'static str, status: u16, time: Duration) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((path, status)).or_default() += 1;
        self.request_micros.fetch_add(time.as_micros() as u64, Relaxed);
    }

    /// Counts a batch.
    pub fn batch(&self, texts: usize, tokens: usize, time: Duration) {
        self.batches.fetch_add(1, Relaxed);
        self.texts.fetch_add(texts as u64, Relaxed);
        self.tokens.fetch_add(tokens as u64, Relaxed);
        self.compute_micros.fetch_add(time.as_micros() as u64, Relaxed);
    }

    /// All of them as text.
    pub fn text(&self, queue: &Queue) -> String {
        let mut out = String::from("# HELP lowrank_requests_total Answered requests.\n# TYPE lowrank_requests_total counter\n");
        for ((path, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(out, "lowrank_requests_total{{path=\"{path}\",status=\"{status}\"}} {count}");
        }
        let seconds = |micros: &AtomicU64| micros.load(Relaxed) as f64 / 1e6;
        let (requests, tokens) = queue.waiting();
        for (name, help, kind, value) in [
            ("lowrank_request_seconds_total", "Time from the head of a request to its answer.", "counter", seconds(&self.request_micros)),
            ("lowrank_batches_total", "Batches that the engine computed.", "counter", self.batches.load(Relaxed) as f64),
            ("lowrank_texts_total", "Texts in these batches.", "counter", self.texts.load(Relaxed) as f64),
            ("lowrank_tokens_total", "Tokens in these batches.", "counter", self.tokens.load(Relaxed) as f64),
            ("lowrank_compute_seconds_total", "Time of these batches.", "counter", seconds(&self.compute_micros)),
            ("lowrank_queue_requests", "Requests that wait.", "gauge", requests as f64),
            ("lowrank_queue_tokens", "Tokens that wait.", "gauge", tokens as f64),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        out
    }
}
