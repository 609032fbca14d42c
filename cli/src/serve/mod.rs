//! `lowrank serve`: a page to try a model, and an API that existing clients speak.
//!
//! ```text
//! connection ─► http (limits) ─► guard (who asks) ─► routes ─► predict · insight ─► queue ─► engine ─► model
//!              └────────── one thread, tokio ───────────────────────────────────┘        └─ the main thread ─┘
//! ```
//!
//! One thread speaks HTTP, and the main thread computes: the model never leaves it. Requests that wait while it computes are answered together.

mod engine;
mod guard;
mod http;
mod insight;
mod metrics;
mod page;
mod predict;
mod queue;
mod reply;
mod request;
mod routes;
mod state;
mod watch;

use lowrank::cut::Cut;
use lowrank::data::WordPiece;
use lowrank::nn::{DistilBert, Outputs};
use lowrank::{Error, Result};
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

/// A model with an adapter.
pub struct Served {
    /// What the HTTP side knows of it.
    pub facts: Facts,
    /// The model itself.
    pub model: DistilBert,
}

/// What the HTTP side knows of a model.
#[derive(Clone)]
pub struct Facts {
    /// Name of the adapter.
    pub name: String,
    /// The tokenizer.
    pub wordpiece: Arc<WordPiece>,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Meaning of the logits.
    pub outputs: Outputs,
    /// What the logits of classes are divided by.
    pub temperature: f64,
    /// How texts are cut.
    pub cut: Cut,
    /// Number of layers.
    pub layers: usize,
    /// Number of heads of a layer.
    pub heads: usize,
}

/// What is served, and to whom.
pub struct Options {
    /// Address to bind.
    pub address: IpAddr,
    /// 0: any free port.
    pub port: u16,
    /// What requests must show, if anything.
    pub token: Option<String>,
    /// Most requests that wait; the next one is answered 429.
    pub waiting: usize,
    /// Cut a text that is too long, if the request does not say what to do.
    pub auto_truncate: bool,
    /// Data type of the computation, for `/info`.
    pub dtype: String,
    /// Folder of the base, whose training step is drawn.
    pub base: Option<PathBuf>,
    /// Folder of a training run to watch.
    pub watch: Option<PathBuf>,
}

/// Binds the address, calls `ready` with the URL of the page, and serves until `stopped`.
///
/// # Errors
/// If the address cannot be bound or a thread cannot be started.
pub fn serve(models: &[Served], options: Options, ready: impl FnOnce(&str) -> Result<()>, stopped: fn() -> bool) -> Result<()> {
    let place = (options.address, options.port);
    let cannot = |e: std::io::Error| {
        let advice =
            if e.kind() == std::io::ErrorKind::AddrInUse { "another program uses it: choose another --port" } else { "choose another" };
        Error::invalid(format!("{}:{}: {e}: {advice}", place.0, place.1))
    };
    let listener = TcpListener::bind(place).map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let facts = models.iter().map(|served| served.facts.clone()).collect();
    let state = Arc::new(state::State::new(facts, options, address.port()));
    let (shared, listening) = (state.clone(), std::thread::Builder::new().name("http".to_string()));
    let thread = listening.spawn(move || http::listen(listener, shared, stopped)).map_err(|e| Error::invalid(format!("serve: {e}")))?;
    // The fragment of a URL stays in the browser.
    let token = state.options.token.as_ref().map_or(String::new(), |token| format!("#token={token}"));
    let told = ready(&format!("http://{address}/{token}"));
    if told.is_ok() {
        engine::run(models, &state.queue, &state.metrics, stopped);
    }
    state.queue.close();
    // After an error of `ready` the thread ends with the process.
    told.and_then(|()| thread.join().map_err(|_| Error::invalid("serve: the thread that speaks HTTP failed"))?)
}
