//! Memory of the host that the device reads and writes by itself.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;

use cudarc::driver::{result as driver, sys};

use super::{after, event, failed};
use crate::error::GpuError;

/// Pinned bytes, and the event of the last copy from or to them.
#[derive(Clone, Copy)]
pub(super) struct Pinned {
    at: *mut u8,
    bytes: usize,
    copied: sys::CUevent,
    /// Memory as the process has it, where the host pins no more: copies are as right, and the host waits for them.
    is_plain: bool,
}

/// Of plain memory.
fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 4096).expect("what lies on a device is no half of the address space")
}

impl Pinned {
    /// So many bytes, of any content.
    ///
    /// # Safety
    /// A context is current.
    pub(super) unsafe fn new(bytes: usize) -> Result<Self, GpuError> {
        let copied = event()?;
        // SAFETY: as this function's.
        match unsafe { driver::malloc_host(bytes, 0) } {
            Ok(at) => Ok(Self { at: at.cast(), bytes, copied, is_plain: false }),
            Err(error) => {
                // SAFETY: nothing waits for it.
                let _ = unsafe { driver::event::destroy(copied) };
                Err(failed("pin memory of the host")(error))
            }
        }
    }

    /// The same, not 0, and not pinned where the host pins no more.
    ///
    /// # Safety
    /// A context is current.
    pub(super) unsafe fn or_plain(bytes: usize) -> Result<Self, GpuError> {
        // SAFETY: as this function's.
        if let Ok(pinned) = unsafe { Self::new(bytes) } {
            return Ok(pinned);
        }
        let copied = event()?;
        // SAFETY: not 0 bytes.
        let at = unsafe { alloc(layout(bytes)) };
        if at.is_null() {
            std::alloc::handle_alloc_error(layout(bytes));
        }
        Ok(Self { at, bytes, copied, is_plain: true })
    }

    /// Gives both back.
    ///
    /// # Safety
    /// The context is current, no copy is under way, and nobody uses it any more.
    pub(super) unsafe fn end(self) {
        // SAFETY: as this function's; a device that has failed cannot be tidied up.
        unsafe {
            let _ = driver::event::destroy(self.copied);
            if self.is_plain {
                dealloc(self.at, layout(self.bytes));
            } else {
                let _ = driver::free_host(self.at.cast::<c_void>());
            }
        }
    }

    /// How many bytes there are.
    pub(super) fn bytes(self) -> usize {
        self.bytes
    }

    /// The first bytes.
    ///
    /// # Safety
    /// There are so many, no copy is under way, and nobody else uses them meanwhile.
    pub(super) unsafe fn front<'a>(self, bytes: usize) -> &'a mut [u8] {
        assert!(bytes <= self.bytes, "{bytes} of {} bytes", self.bytes);
        // SAFETY: as this function's.
        unsafe { std::slice::from_raw_parts_mut(self.at, bytes) }
    }

    /// Marks that a copy from or to it is the last thing that a stream was asked for.
    ///
    /// # Safety
    /// The stream lives.
    pub(super) unsafe fn record(self, stream: sys::CUstream) -> Result<(), GpuError> {
        // SAFETY: as this function's.
        unsafe { driver::event::record(self.copied, stream) }.map_err(failed("copy values"))
    }

    /// Has what a stream is asked for from now on come after its last copy.
    ///
    /// # Safety
    /// The stream lives.
    pub(super) unsafe fn before(self, stream: sys::CUstream) -> Result<(), GpuError> {
        // SAFETY: as this function's; the event lives as long as the memory.
        unsafe { after(stream, self.copied) }
    }

    /// Whether its last copy is over.
    pub(super) fn is_settled(self) -> bool {
        // SAFETY: the event lives as long as the memory.
        unsafe { driver::event::query(self.copied) }.is_ok()
    }

    /// Waits until its last copy is over; without one there is nothing to wait for.
    pub(super) fn settle(self) -> Result<(), GpuError> {
        // SAFETY: the event lives as long as the memory.
        unsafe { driver::event::synchronize(self.copied) }.map_err(failed("copy values"))
    }
}
