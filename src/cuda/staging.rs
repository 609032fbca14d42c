//! The way of uploads: through pinned memory of the host, from which the GPU copies while the host goes on. An upload from other memory may wait until
//! all work before it is done.
#![allow(unsafe_code)]

use super::context::{Context, failed};
use crate::Result;
use cudarc::driver::{result, sys};

/// Pinned buffers, and bytes of each. The host may be ahead of the GPU by all buffers but one; a training step uploads about 0.1 MB.
const BUFFERS: usize = 4;
const BYTES: usize = 2 << 20;

/// Parts of a buffer begin at multiples of this.
const ALIGNMENT: usize = 64;

/// A ring of pinned buffers. Uploads fill one after another.
#[derive(Default)]
pub(super) struct Staging {
    /// Allocated when they are first needed.
    ring: Vec<Pinned>,
    /// The buffer that is being filled, and its bytes in use.
    current: usize,
    used: usize,
}

/// Memory of the host that the GPU can read, and an event that tells when the copies from it are done.
struct Pinned {
    memory: *mut u8,
    event: sys::CUevent,
}

impl Staging {
    /// Copies `bytes` to the address `to` on the device, in the order of the stream. Waits only if the GPU is a whole ring behind.
    pub(super) fn upload(&mut self, context: &Context, mut to: u64, mut bytes: &[u8]) -> Result<()> {
        context.enter()?;
        while !bytes.is_empty() {
            if self.ring.is_empty() || self.used == BYTES {
                self.turn(context)?;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(BYTES - self.used));
            // SAFETY: `used` + the part's length is at most BYTES, the size of the buffer. No copy reads these bytes: `turn` waited for those of the last
            // round, and those of this round read the bytes before. The memory is never freed.
            let staged = unsafe {
                let start = self.ring[self.current].memory.add(self.used);
                start.copy_from_nonoverlapping(part.as_ptr(), part.len());
                std::slice::from_raw_parts(start, part.len())
            };
            // SAFETY: the caller's buffer has these bytes. What is staged stays as it is until `turn` comes round and has waited for this copy.
            unsafe { result::memcpy_htod_async(to, staged, context.stream) }.map_err(failed("copying to the GPU"))?;
            self.used = (self.used + part.len()).next_multiple_of(ALIGNMENT);
            (to, bytes) = (to + part.len() as u64, rest);
        }
        Ok(())
    }

    /// Goes on to the next buffer: waits until the copies from it are done.
    fn turn(&mut self, context: &Context) -> Result<()> {
        if let Some(full) = self.ring.get(self.current) {
            // SAFETY: the event and the stream belong to the current context.
            unsafe { result::event::record(full.event, context.stream) }.map_err(failed("an upload"))?;
        }
        let next = if self.ring.is_empty() { 0 } else { (self.current + 1) % BUFFERS };
        match self.ring.get(next) {
            // SAFETY: the event belongs to the current context. It was recorded when this buffer was left.
            Some(pinned) => unsafe { result::event::synchronize(pinned.event) }.map_err(failed("an upload"))?,
            None => self.ring.push(Pinned::new()?),
        }
        (self.current, self.used) = (next, 0);
        Ok(())
    }
}

impl Pinned {
    /// A buffer of the current context.
    fn new() -> Result<Pinned> {
        let failed = failed("no pinned memory for uploads");
        // SAFETY: the context is current.
        let memory = unsafe { result::malloc_host(BYTES, 0) };
        let event = memory.and_then(|memory| {
            Ok(Pinned { memory: memory.cast(), event: result::event::create(sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING)? })
        });
        event.map_err(failed)
    }
}
