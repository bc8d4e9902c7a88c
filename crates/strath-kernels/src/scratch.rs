//! Memory that a thread keeps from call to call, so that a step in steady state asks the system for none.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Floats of a line of cache.
const LINE: usize = 16;

/// Floats kept by a thread.
pub(crate) type Kept = RefCell<Vec<f32>>;

thread_local! {
    /// Packed weights and sums of their gradients, shared by the threads of a call.
    pub(crate) static SHARED: Kept = const { RefCell::new(Vec::new()) };
    /// Copies of patches, of one thread.
    pub(crate) static OWN: Kept = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `floats` floats of any values, at the start of a line of cache.
///
/// A call from within `work` gets memory of its own: a thread that waits for others may be lent to a second convolution.
pub(crate) fn with<R>(key: &'static LocalKey<Kept>, floats: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut kept = key.take();
    if kept.len() < floats + LINE {
        kept = vec![0.0; floats + LINE];
    }
    let start = kept.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let result = work(&mut kept[start..start + floats]);
    key.replace(kept);
    result
}
