//! Handles that end with their owner.

/// What was made in a context, and may fail to end with `E`.
pub(super) struct Owned<T: Copy, E> {
    handle: T,
    end: unsafe fn(T) -> Result<(), E>,
}

impl<T: Copy, E> Owned<T, E> {
    /// A handle, and what ends it.
    ///
    /// # Safety
    /// `end` may be called of it once, where the context is current; nobody uses it afterwards.
    pub(super) unsafe fn new(handle: T, end: unsafe fn(T) -> Result<(), E>) -> Self {
        Self { handle, end }
    }

    pub(super) fn get(&self) -> T {
        self.handle
    }
}

impl<T: Copy, E> Drop for Owned<T, E> {
    fn drop(&mut self) {
        // SAFETY: as whoever made it says. What fails to end belongs to a device that has failed.
        let _ = unsafe { (self.end)(self.handle) };
    }
}
