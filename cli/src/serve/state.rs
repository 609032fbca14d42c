//! What all requests share.

use super::guard::Guard;
use super::metrics::Metrics;
use super::page::Page;
use super::queue::Queue;
use super::{Facts, Options};
use hyper::body::Bytes;
use std::sync::OnceLock;
use tokio::sync::Mutex;

/// What all requests share.
pub struct State {
    pub models: Vec<Facts>,
    pub options: Options,
    pub guard: Guard,
    pub queue: Queue,
    pub metrics: Metrics,
    pub page: Page,
    /// Held by the request that reads the folder of the watched run.
    pub watching: Mutex<()>,
    /// The drawing of a training step, once it is computed.
    pub step: OnceLock<Bytes>,
}

impl State {
    /// `port` is the one that was bound.
    pub fn new(models: Vec<Facts>, options: Options, port: u16) -> State {
        let guard = Guard::new(options.address, port, options.token.clone());
        let (queue, page) = (Queue::new(options.waiting), Page::new());
        State { models, options, guard, queue, metrics: Metrics::default(), page, watching: Mutex::new(()), step: OnceLock::new() }
    }
}
