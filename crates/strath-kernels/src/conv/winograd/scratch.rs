//! Buffers that a thread keeps from call to call, so that no call waits for the system to map pages.

#![allow(unsafe_code, reason = "lines seen as floats")]

use std::cell::Cell;
use std::thread::LocalKey;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line {
    _floats: [f32; 16],
}

/// Lines kept by a thread. Taken while in use, so that a nested user gets fresh ones.
pub(super) type Kept = Cell<Vec<Line>>;

thread_local! {
    /// Transformed weights and sums of their gradients, shared by the threads of a call.
    pub(super) static SHARED: Kept = const { Cell::new(Vec::new()) };
    /// Transformed tiles and their products, of one thread.
    pub(super) static OWN: Kept = const { Cell::new(Vec::new()) };
}

/// Calls `work` with at least `floats` floats of any content.
pub(super) fn with<R>(kept: &'static LocalKey<Kept>, floats: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = kept.take();
    if lines.len() * 16 < floats {
        lines.resize(floats.div_ceil(16), Line { _floats: [0.0; 16] });
    }
    // SAFETY: a line is 16 floats without padding, so `lines.len()` of them are a slice of floats.
    let result = work(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 16) });
    kept.set(lines);
    result
}
