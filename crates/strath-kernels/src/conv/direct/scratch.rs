//! Memory that a thread keeps from call to call, so that a step in steady state asks the system for none.

use std::cell::RefCell;

/// Floats of a line of cache.
const LINE: usize = 16;

thread_local! {
    static KEPT: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `floats` floats of any values, at the start of a line of cache.
///
/// A call from within `work` gets memory of its own: a thread that waits for others may be lent to a second convolution.
pub(crate) fn with<R>(floats: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut kept = KEPT.take();
    if kept.len() < floats + LINE {
        kept = vec![0.0; floats + LINE];
    }
    let start = kept.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let result = work(&mut kept[start..start + floats]);
    KEPT.replace(kept);
    result
}
