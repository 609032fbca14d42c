//! Connections, and their limits.

use super::reply::Reply;
use super::routes;
use super::state::State;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lowrank::{Error, Result};
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Open connections; further ones wait until one ends.
const CONNECTIONS: usize = 512;
/// Time for which a connection may be idle while all are taken.
const CROWDED_TIME: Duration = Duration::from_secs(2);
/// Time for the head of a request, the wait for its first byte included.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Time after an answer in which the client must have read it.
const READ_TIME: Duration = Duration::from_secs(60);
/// Largest head of a request, in bytes and in headers.
const HEAD_BYTES: usize = 32 * 1024;
const HEADERS: usize = 100;
/// How often the program is asked whether it should stop, and how long it then waits for open requests.
const TICK: Duration = Duration::from_millis(100);
const LAST_TIME: Duration = Duration::from_secs(5);

/// Accepts connections until `stopped`, and then closes the queue.
///
/// # Errors
/// If the system has no room for another event loop.
pub fn listen(listener: TcpListener, state: Arc<State>, stopped: fn() -> bool) -> Result<()> {
    let failed = |e: std::io::Error| Error::invalid(format!("serve: {e}"));
    let served = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed).and_then(|runtime| {
        runtime.block_on(async {
            listener.set_nonblocking(true).map_err(failed)?;
            accept(tokio::net::TcpListener::from_std(listener).map_err(failed)?, &state, stopped).await;
            Ok(())
        })
    });
    // The engine ends when it has answered what is left.
    state.queue.close();
    served
}

async fn accept(listener: tokio::net::TcpListener, state: &Arc<State>, stopped: fn() -> bool) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while !stopped() {
        let Ok(Ok(permit)) = timeout(TICK, room.clone().acquire_owned()).await else { continue };
        let stream = match timeout(TICK, listener.accept()).await {
            Ok(Ok((stream, _))) => stream,
            // The client has gone, or the process has too many open files.
            Ok(Err(_)) => {
                sleep(TICK).await;
                continue;
            }
            Err(_) => continue,
        };
        let state = state.clone();
        let room = room.clone();
        tokio::spawn(async move {
            let is_full = || room.available_permits() == 0;
            converse(stream, state, stopped, is_full).await;
            drop(permit);
        });
    }
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    let _ = timeout(LAST_TIME, room.acquire_many(all)).await;
}

/// Answers the requests of one connection.
async fn converse(stream: TcpStream, state: Arc<State>, stopped: fn() -> bool, is_full: impl Fn() -> bool) {
    let _ = stream.set_nodelay(true);
    // Milliseconds from the start of the connection to the last answer; the largest number while a request is answered.
    let (started, last) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let answered = last.clone();
    let service = service_fn(move |request| {
        let (state, last) = (state.clone(), answered.clone());
        async move {
            last.store(u64::MAX, Relaxed);
            let reply = routes::answer(&state, request).await;
            last.store(started.elapsed().as_millis() as u64, Relaxed);
            Ok::<Reply, Infallible>(reply)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut ending = false;
    while timeout(TICK * 5, connection.as_mut()).await.is_err() {
        // While a request is answered, this is 0.
        let idle = started.elapsed().saturating_sub(Duration::from_millis(last.load(Relaxed)));
        if idle > if is_full() { CROWDED_TIME } else { READ_TIME } {
            return;
        }
        if stopped() && !ending {
            ending = true;
            connection.as_mut().graceful_shutdown();
        }
    }
}
