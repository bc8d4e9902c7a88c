//! Copies to the host beside what a stream is asked for: on a stream of their own, which does them in orders that nobody promised.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use strath_cuda::{Copying, GpuError, Mark};

use crate::streams::Streams;

/// The copies from what one stream computes.
#[derive(Default)]
pub struct Copies {
    /// Opened with the first copy.
    stream: OnceLock<usize>,
    /// Where each goes to, by its mark on that stream, which is its name too.
    under_way: Mutex<BTreeMap<u64, Arc<Mutex<Vec<u8>>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copies {
    /// Begins a copy from what stream `of` has computed then.
    ///
    /// # Safety
    /// So many bytes lie there, and stay as they are until the copy is taken or given up.
    pub unsafe fn begin(&self, streams: &Streams, of: usize, from: u64, bytes: usize) -> Result<Copying, GpuError> {
        let stream = *self.stream.get_or_init(|| streams.open());
        let to = Arc::new(Mutex::new(vec![0; bytes]));
        let there = to.clone();
        // Held until it has its mark, as that is of all that was asked so far.
        let mut under_way = lock(&self.under_way);
        streams.after(stream, streams.mark(of));
        streams.ask(stream, move || {
            // SAFETY: as this function's.
            lock(&there).copy_from_slice(unsafe { std::slice::from_raw_parts(from as *const u8, bytes) });
            Ok(())
        })?;
        let Mark(over) = streams.mark(stream);
        under_way.insert(over, to);
        Ok(Copying(over))
    }

    /// Waits for a copy, and takes what it brought.
    pub fn take(&self, streams: &Streams, copy: Copying, to: &mut [u8]) -> Result<(), GpuError> {
        let (there, over) = self.ended(copy);
        streams.reach(over)?;
        to.copy_from_slice(&lock(&there));
        Ok(())
    }

    /// Has what stream `of` is asked for from now on come after a copy that nobody takes.
    pub fn give_up(&self, streams: &Streams, of: usize, copy: Copying) {
        streams.after(of, self.ended(copy).1);
    }

    fn ended(&self, Copying(over): Copying) -> (Arc<Mutex<Vec<u8>>>, Mark) {
        (lock(&self.under_way).remove(&over).expect("a copy is taken or given up once"), Mark(over))
    }
}
