//! Copies to the host beside what the device computes: on a stream of their own, into pinned memory, as far as the host pins any, that serves again from step to step.

use cudarc::driver::{DriverError, result as driver, sys};

use super::owned::Owned;
use super::pinned::Pinned;
use super::{after, failed, stream};
use crate::driver::{Copying, Mark};
use crate::error::GpuError;

/// The copies to the host from what one stream computes.
pub(super) struct Copies {
    /// Whose values are copied.
    of: sys::CUstream,
    /// Opened with the first copy.
    stream: Option<Owned<sys::CUstream, DriverError>>,
    places: Vec<Place>,
}

/// Where a copy goes to.
struct Place {
    pinned: Pinned,
    /// Bytes of the last copy.
    copied: usize,
    /// Whether nobody is about to take what lies there. The next copy there comes after the last, on their stream.
    is_free: bool,
}

impl Copies {
    /// None yet of a stream's.
    ///
    /// # Safety
    /// The stream outlives this.
    pub(super) unsafe fn new(of: sys::CUstream) -> Self {
        Self { of, stream: None, places: Vec::new() }
    }

    /// Gives everything back.
    ///
    /// # Safety
    /// The context is current, and nothing is under way.
    pub(super) unsafe fn end(&mut self) {
        for Place { pinned, .. } in self.places.drain(..) {
            // SAFETY: as this function's.
            unsafe { pinned.end() };
        }
        self.stream = None;
    }

    /// Begins a copy of what lies on the device, once what was asked for by a mark is done.
    ///
    /// # Safety
    /// The context is current, so many bytes are the device's there, and nobody writes them before the copy is over.
    pub(super) unsafe fn begin(&mut self, asked: Mark, from: u64, bytes: usize) -> Result<Copying, GpuError> {
        // SAFETY: as this function's.
        let stream = unsafe { self.opened()? };
        // SAFETY: as this function's.
        let at = unsafe { self.place(bytes)? };
        let pinned = self.places[at].pinned;
        // SAFETY: as this function's; streams and events live as long as this, and the place has room for as many bytes.
        unsafe {
            after(stream, asked.0 as sys::CUevent)?;
            driver::memcpy_dtoh_async(pinned.front(bytes), from, stream).map_err(failed("give values back"))?;
            pinned.record(stream)?;
        }
        (self.places[at].copied, self.places[at].is_free) = (bytes, false);
        Ok(Copying(at as u64))
    }

    /// Where a copy of so many bytes goes to, to be waited for.
    ///
    /// # Panics
    /// Where it is of another number, or was taken or given up.
    pub(super) fn place_of(&self, Copying(at): Copying, bytes: usize) -> Pinned {
        let Place { pinned, copied, is_free } = &self.places[at as usize];
        assert!(!is_free && *copied == bytes, "{bytes} bytes of a copy of {copied}, or of one that was taken");
        *pinned
    }

    /// What a copy brought was taken.
    pub(super) fn taken(&mut self, Copying(at): Copying) {
        self.places[at as usize].is_free = true;
    }

    /// Nobody takes a copy: what is asked of the stream that it is of comes after it.
    pub(super) fn give_up(&mut self, copy: Copying) {
        let Copying(at) = copy;
        // SAFETY: the stream outlives this. A device that cannot even be told to wait has failed, and computes nothing any more.
        let _ = unsafe { self.places[at as usize].pinned.before(self.of) };
        self.taken(copy);
    }

    /// The stream of the copies.
    ///
    /// # Safety
    /// The context is current.
    unsafe fn opened(&mut self) -> Result<sys::CUstream, GpuError> {
        if let Some(opened) = &self.stream {
            return Ok(opened.get());
        }
        // SAFETY: as this function's.
        Ok(self.stream.insert(unsafe { stream()? }).get())
    }

    /// A free place for so many bytes: the smallest that has them, or one more.
    ///
    /// # Safety
    /// The context is current.
    unsafe fn place(&mut self, bytes: usize) -> Result<usize, GpuError> {
        let free = self.places.iter().enumerate().filter(|(_, p)| p.is_free && p.pinned.bytes() >= bytes);
        if let Some((at, _)) = free.min_by_key(|(_, place)| place.pinned.bytes()) {
            return Ok(at);
        }
        // SAFETY: as this function's.
        let pinned = unsafe { Pinned::or_plain(bytes.max(1))? };
        self.places.push(Place { pinned, copied: 0, is_free: true });
        Ok(self.places.len() - 1)
    }
}
