//! Vectors in a device's memory.

#![allow(unsafe_code, reason = "addresses and lengths are kept together here, so that nobody else has to")]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use half::bf16;

use crate::error::GpuError;
use crate::gpu::{Argument, Gpu};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for f64 {}
    impl Sealed for i64 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// A number that vectors are made of: every pattern of bits is one.
pub trait Element: sealed::Sealed + Copy + Default + Send + Sync + 'static {}
impl Element for f32 {}
impl Element for bf16 {}
impl Element for f64 {}
impl Element for i64 {}
impl Element for u32 {}
impl Element for u64 {}

/// Numbers in the device's memory, which goes back to be used again when they are dropped.
pub struct Vector<T: Element> {
    gpu: Gpu,
    /// Whose numbers these are, where they are [lent](Self::lent).
    lender: Option<Arc<Self>>,
    at: u64,
    bytes: usize,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Element> fmt::Debug for Vector<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vector({} values on {:?})", self.len, self.gpu)
    }
}

impl<T: Element> Drop for Vector<T> {
    fn drop(&mut self) {
        match &self.lender {
            None => self.gpu.take_back(self.bytes, self.at),
            // A device that does not even take a mark has failed, and computes nothing any more.
            Some(lender) => drop(lender.gpu.follow(&self.gpu)),
        }
    }
}

/// A part of a vector.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a, T: Element> {
    pub(crate) at: u64,
    pub(crate) len: usize,
    of: PhantomData<&'a T>,
}

/// A part of a vector that is written.
#[derive(Debug)]
pub struct PartMut<'a, T: Element> {
    pub(crate) at: u64,
    pub(crate) len: usize,
    of: PhantomData<&'a mut T>,
}

impl<T: Element> Part<'_, T> {
    pub(crate) fn address(self) -> Argument {
        Argument::Address(self.at)
    }

    /// Values.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

impl<T: Element> PartMut<'_, T> {
    pub(crate) fn address(&mut self) -> Argument {
        Argument::Address(self.at)
    }
}

impl<T: Element> Vector<T> {
    /// So many values at an address of a device, which gave so many bytes there.
    pub(crate) fn new(gpu: Gpu, at: u64, bytes: usize, len: usize) -> Self {
        Self { gpu, lender: None, at, bytes, len, of: PhantomData }
    }

    /// The same numbers to be read on another stream: what is asked of that from now on comes after what was asked of this one's so far, and what is
    /// asked of this one's once they are given back (dropped) after what has read them.
    ///
    /// # Errors
    /// The device's.
    pub fn lent(self: &Arc<Self>, to: &Gpu) -> Result<Arc<Self>, GpuError> {
        to.follow(&self.gpu)?;
        let Self { at, bytes, len, .. } = **self;
        Ok(Arc::new(Self { gpu: to.clone(), lender: Some(self.clone()), at, bytes, len, of: PhantomData }))
    }

    /// Before it is written.
    ///
    /// # Panics
    /// Of numbers that are lent.
    fn expect_own(&self) {
        assert!(self.lender.is_none(), "what is lent is only read");
    }

    /// The stream that whatever is done with it is asked of.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it.
    pub fn all(&self) -> Part<'_, T> {
        self.part(0..self.len)
    }

    /// All of it, to be written.
    pub fn all_mut(&mut self) -> PartMut<'_, T> {
        self.part_mut(0..self.len)
    }

    /// Some of it.
    ///
    /// # Panics
    /// Where it has no such values.
    pub fn part(&self, range: Range<usize>) -> Part<'_, T> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} values", self.len);
        Part { at: self.at + (range.start * size_of::<T>()) as u64, len: range.len(), of: PhantomData }
    }

    /// Some of it, to be written.
    ///
    /// # Panics
    /// Where it has no such values.
    pub fn part_mut(&mut self, range: Range<usize>) -> PartMut<'_, T> {
        self.expect_own();
        let Part { at, len, .. } = self.part(range);
        PartMut { at, len, of: PhantomData }
    }

    /// Several parts that do not overlap, to be written.
    ///
    /// # Panics
    /// Where they overlap, or it has no such values.
    pub fn parts_mut<const N: usize>(&mut self, ranges: [Range<usize>; N]) -> [PartMut<'_, T>; N] {
        self.expect_own();
        for (at, range) in ranges.iter().enumerate() {
            let overlap = |other: &Range<usize>| other.start < range.end && range.start < other.end;
            assert!(!ranges[..at].iter().any(overlap), "{ranges:?} overlap");
        }
        ranges.map(|range| {
            let Part { at, len, .. } = self.part(range);
            PartMut { at, len, of: PhantomData }
        })
    }

    /// Overwrites all values by the host's, which are taken at once; the device is not waited for.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where there are not as many.
    pub fn upload(&mut self, values: &[T]) -> Result<(), GpuError> {
        assert_eq!(values.len(), self.len, "as many values as the vector has");
        self.expect_own();
        // SAFETY: numbers without padding are bytes, and as many as the vector has.
        unsafe {
            let bytes = std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values));
            self.gpu.driver().upload(bytes, self.at)
        }
    }

    /// Copies all values into the host's; waits for the device.
    ///
    /// # Errors
    /// The device's, also of what was asked for before.
    ///
    /// # Panics
    /// Where there are not as many.
    pub fn download(&self, values: &mut [T]) -> Result<(), GpuError> {
        assert_eq!(values.len(), self.len, "as many values as the vector has");
        self.download_front(values)
    }

    /// The same of the first values, as many as are asked for.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    ///
    /// # Panics
    /// Where there are not as many.
    pub(crate) fn download_front(&self, values: &mut [T]) -> Result<(), GpuError> {
        assert!(values.len() <= self.len, "{} of {} values", values.len(), self.len);
        // SAFETY: every pattern of bits is a number, and the vector has as many.
        unsafe {
            let bytes = std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values));
            self.gpu.awaited().download(self.at, bytes)
        }
    }

    /// All values, on the host.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn to_host(&self) -> Result<Vec<T>, GpuError> {
        let mut values = vec![T::default(); self.len];
        self.download(&mut values)?;
        Ok(values)
    }

    /// Sets all values to 0.
    ///
    /// # Errors
    /// The device's.
    pub fn clear(&mut self) -> Result<(), GpuError> {
        self.fill(0)
    }

    /// Sets every byte of all values to one.
    ///
    /// # Errors
    /// The device's.
    pub(crate) fn fill(&mut self, byte: u8) -> Result<(), GpuError> {
        self.expect_own();
        // SAFETY: as many bytes as the vector has.
        unsafe { self.gpu.driver().fill(self.at, byte, self.len * size_of::<T>()) }
    }

    /// Copies the bytes of all values to words that have room for them.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where they have not.
    pub(crate) fn copy_to(&self, words: &mut PartMut<'_, u64>) -> Result<(), GpuError> {
        let bytes = self.len * size_of::<T>();
        assert!(bytes <= words.len * size_of::<u64>(), "{bytes} bytes in {} words", words.len);
        // SAFETY: as many bytes as there are, and room for them, in another vector.
        unsafe { self.gpu.driver().copy(self.at, words.at, bytes) }
    }

    /// A copy on the device.
    ///
    /// # Errors
    /// As [`Gpu::stale`], and the device's.
    pub fn duplicate(&self) -> Result<Self, GpuError> {
        let copy = self.gpu.stale(self.len)?;
        // SAFETY: two vectors of one length.
        unsafe { self.gpu.driver().copy(self.at, copy.at, self.len * size_of::<T>())? };
        Ok(copy)
    }
}
