//! Memory for activations and gradients that goes from hand to hand: a step asks for the same lengths as the step before.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Vectors that nobody uses at the moment, by length.
type Free = BTreeMap<usize, Vec<Vec<f32>>>;

/// Those of the process: a pass is computed by any of its compute threads.
static FREE: Mutex<Free> = Mutex::new(Free::new());

fn free() -> MutexGuard<'static, Free> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A vector that is kept when it is dropped, for the next of its length: no page is fetched twice from the system.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// Of values that are left from before: whoever asks for it overwrites them all.
    pub(crate) fn stale(len: usize) -> Self {
        let kept = free().get_mut(&len).and_then(Vec::pop);
        let mut values = kept.unwrap_or_else(|| vec![0.0; len]);
        if cfg!(debug_assertions) {
            values.fill(f32::NAN);
        }
        Self(values)
    }

    /// A copy.
    pub(crate) fn copied(values: &[f32]) -> Self {
        let mut copy = Self::stale(values.len());
        copy.copy_from_slice(values);
        copy
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.0);
        free().entry(values.len()).or_default().push(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_by_the_next_of_its_length() {
        let first = Buffer::stale(12_345);
        let at = first.as_ptr();
        drop(first);
        assert_ne!(Buffer::stale(12_346).as_ptr(), at);
        let again = Buffer::stale(12_345);
        assert_eq!((again.as_ptr(), again.len()), (at, 12_345));
        assert_eq!(*Buffer::copied(&[1.0, 2.0]), [1.0, 2.0]);
    }
}
