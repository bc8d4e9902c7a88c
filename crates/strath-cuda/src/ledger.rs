//! Small results of kernels that the host is to know, but not at once: they are put together on the device and copied to the host in one go.
//!
//! Whoever waits for a device for a few bytes has it idle until the next work arrives. A step asks for some numbers of every lane (losses, norms, whether a
//! value is not finite) and needs none of them before it sends its sum.

#![allow(unsafe_code, reason = "numbers are read back from where they were put, as what they were")]

use std::marker::PhantomData;

use crate::error::GpuError;
use crate::vector::{Element, Vector};

/// Words of 8 bytes of the first page: 64 KiB. Each further one is twice as long, so that few are read.
const PAGE: usize = 1 << 13;

/// Values that were put down, and are read together.
#[derive(Debug, Default)]
pub struct Ledger {
    pages: Vec<Page>,
}

#[derive(Debug)]
struct Page {
    there: Vector<u64>,
    /// Words that are taken.
    used: usize,
}

/// Where values were put down.
#[derive(Debug, Clone, Copy)]
pub struct Entry<T> {
    page: usize,
    /// The first word.
    at: usize,
    len: usize,
    of: PhantomData<T>,
}

/// What a ledger held.
#[derive(Debug)]
pub struct Reading(Vec<Vec<u64>>);

impl Ledger {
    /// Puts the values of a vector down, as they are once everything asked of its stream before is done. Nothing is waited for.
    ///
    /// # Errors
    /// As [`Gpu::stale`](crate::Gpu::stale), and the device's.
    pub fn put<T: Element>(&mut self, values: &Vector<T>) -> Result<Entry<T>, GpuError> {
        let words = (values.len() * size_of::<T>()).div_ceil(size_of::<u64>());
        // A stream puts its results down on pages of its own.
        let last = self.pages.iter().rposition(|page| page.there.gpu().is(values.gpu()));
        let page = match last {
            Some(at) if self.pages[at].used + words <= self.pages[at].there.len() => at,
            _ => {
                let longer = last.map_or(PAGE, |at| 2 * self.pages[at].there.len());
                self.pages.push(Page { there: values.gpu().stale(words.max(longer))?, used: 0 });
                self.pages.len() - 1
            }
        };
        let Page { there, used } = &mut self.pages[page];
        let (at, len) = (*used, values.len());
        if words > 0 {
            values.copy_to(&mut there.part_mut(at..at + words))?;
        }
        *used += words;
        Ok(Entry { page, at, len, of: PhantomData })
    }

    /// Reads all that was put down, and empties it. Waits for the streams that anything is of.
    ///
    /// # Errors
    /// The device's, also of what was asked for before.
    pub fn read(&mut self) -> Result<Reading, GpuError> {
        let read = |Page { there, used }: Page| {
            let mut words = vec![0; used];
            there.download_front(&mut words).map(|()| words)
        };
        std::mem::take(&mut self.pages).into_iter().map(read).collect::<Result<_, _>>().map(Reading)
    }
}

impl Reading {
    /// The values that were put down there.
    ///
    /// # Panics
    /// Where the entry is of another reading, and reaches beyond this one.
    pub fn values<T: Element>(&self, entry: &Entry<T>) -> Vec<T> {
        let words = (entry.len * size_of::<T>()).div_ceil(size_of::<u64>());
        let words = &self.0[entry.page][entry.at..entry.at + words];
        // SAFETY: so many values lie in these words, which are aligned for any of them; every pattern of bits is a number.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<T>(), entry.len) }.to_vec()
    }

    /// The one value that was put down there.
    ///
    /// # Panics
    /// As [`values`](Self::values), and where there is none.
    pub fn value<T: Element>(&self, entry: &Entry<T>) -> T {
        self.values(entry)[0]
    }
}
