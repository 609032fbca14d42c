//! The context of a GPU and its one stream: what every call of the driver needs.
#![allow(unsafe_code)]

use crate::{Error, Result};
use cudarc::driver::{DriverError, result, sys};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Turns an error of the driver into one that begins with `what`.
pub(super) fn failed(what: &str) -> impl FnOnce(DriverError) -> Error {
    move |e| Error::invalid(format!("cuda: {what}: {e}"))
}

/// Locks a mutex. A panic elsewhere leaves what it guards usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// If this variable is set, the host waits after each launch and each product, so that an error names the right one. This is slow.
const SYNC: &str = "LOWRANK_SYNC";

/// A context and a stream of it.
pub(super) struct Context {
    context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    /// Whether the host waits after each launch.
    waits: bool,
}

impl Context {
    /// The primary context of `device`, with a new stream.
    pub(super) fn new(device: sys::CUdevice) -> Result<Context> {
        // SAFETY: `device` comes from the driver. The context is made current on this thread before the stream is created.
        unsafe {
            let context = result::primary_ctx::retain(device).map_err(failed("no context"))?;
            result::ctx::set_current(context).map_err(failed("no context"))?;
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed("no stream"))?;
            Ok(Context { context, stream, waits: std::env::var_os(SYNC).is_some() })
        }
    }

    /// Waits until all launched work is done.
    pub(super) fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream belongs to this context.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("work that was launched failed (which: see LOWRANK_SYNC=1)"))
    }

    /// Waits for what was just launched, if LOWRANK_SYNC asks for that. An error begins with `what`.
    pub(super) fn launched(&self, what: impl FnOnce() -> String) -> Result<()> {
        if !self.waits {
            return Ok(());
        }
        // SAFETY: the stream belongs to this context, which the launch made current.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| failed(&format!("{} failed", what()))(e))
    }

    /// Makes the context current on this thread.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: `new` retained the context, and it is never released.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("the context is lost"))
    }
}
