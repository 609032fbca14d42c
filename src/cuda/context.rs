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

/// A context and a stream of it.
pub(super) struct Context {
    context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
}

impl Context {
    /// The primary context of `device`, with a new stream.
    pub(super) fn new(device: sys::CUdevice) -> Result<Context> {
        // SAFETY: `device` comes from the driver. The context is made current on this thread before the stream is created.
        unsafe {
            let context = result::primary_ctx::retain(device).map_err(failed("no context"))?;
            result::ctx::set_current(context).map_err(failed("no context"))?;
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed("no stream"))?;
            Ok(Context { context, stream })
        }
    }

    /// Waits until all launched work is done.
    pub(super) fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream belongs to this context.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("work that was launched failed"))
    }

    /// Makes the context current on this thread.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: `new` retained the context, and it is never released.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("the context is lost"))
    }
}
