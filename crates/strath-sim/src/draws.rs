//! What a seed decides.

use std::time::Duration;

use strath_core::random::{Purpose, Stream};

/// Draws of one seed, in order.
#[derive(Debug)]
pub struct Draws(Stream);

impl Draws {
    /// The draws of a seed, from the first.
    pub fn new(seed: u64) -> Self {
        Self(Stream::new(seed, Purpose::Probe))
    }

    /// One of `from..=to`.
    pub fn among(&mut self, from: u64, to: u64) -> u64 {
        from + self.0.below(to - from + 1)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.0.below(100) < percent
    }

    /// A time between two, in microseconds.
    pub fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.among(from, to))
    }

    /// A time between two, in milliseconds, to the microsecond.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        self.micros(1000 * from, 1000 * to)
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.among(0, of.len() as u64 - 1) as usize]
    }
}
