//! Vectors on their way to the host, while the device goes on.

#![allow(unsafe_code, reason = "numbers without padding are bytes, and as many as the vector has")]

use std::fmt;

use crate::driver::Copying;
use crate::error::GpuError;
use crate::vector::{Element, Vector};

/// A vector whose values are being copied to the host. Dropped before they are [taken](Self::take), they are waited for by the device alone.
pub struct Fetch<T: Element> {
    /// Nobody writes it any more.
    vector: Vector<T>,
    /// Until it is taken.
    copy: Option<Copying>,
}

impl<T: Element> fmt::Debug for Fetch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetch of {:?}", self.vector)
    }
}

impl<T: Element> Drop for Fetch<T> {
    fn drop(&mut self) {
        if let Some(copy) = self.copy.take() {
            self.vector.gpu().driver().give_up(copy);
        }
    }
}

impl<T: Element> Vector<T> {
    /// Has all values copied to the host, as they are once everything asked of the vector's stream so far is done; what is asked of it later does not wait
    /// for the copy. Nobody waits.
    ///
    /// # Errors
    /// The device's.
    pub fn fetch(self) -> Result<Fetch<T>, GpuError> {
        let all = self.all();
        // SAFETY: as many bytes as there are, which nobody writes while this holds the vector.
        let copy = unsafe { self.gpu().driver().begin_download(all.at, all.len * size_of::<T>())? };
        Ok(Fetch { vector: self, copy: Some(copy) })
    }
}

impl<T: Element> Fetch<T> {
    /// Waits for the copy: its values.
    ///
    /// # Errors
    /// The device's.
    pub fn take(mut self) -> Result<Vec<T>, GpuError> {
        let mut values = vec![T::default(); self.vector.len()];
        if let Some(copy) = self.copy.take() {
            // SAFETY: every pattern of bits is a number.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values.as_slice())) };
            self.vector.gpu().driver().take(copy, bytes)?;
        }
        Ok(values)
    }
}
