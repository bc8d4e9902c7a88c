//! Virtual time: what is to happen, in order, and the moment that it is.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use strath_core::Timestamp;

/// What is to happen, in order of time; of two that happen at one moment, the one that was planned first.
#[derive(Debug)]
pub struct Queue<T> {
    now: Timestamp,
    planned: u64,
    heap: BinaryHeap<Planned<T>>,
}

#[derive(Debug)]
struct Planned<T> {
    at: Timestamp,
    order: u64,
    what: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { now: Timestamp::default(), planned: 0, heap: BinaryHeap::new() }
    }
}

impl<T> Queue<T> {
    /// The moment that it is.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Plans something for a moment; one that has passed is now.
    pub fn at(&mut self, at: Timestamp, what: T) {
        self.planned += 1;
        self.heap.push(Planned { at: at.max(self.now), order: self.planned, what });
    }

    /// Plans something for later.
    pub fn after(&mut self, delay: Duration, what: T) {
        self.at(self.now.after(delay), what);
    }

    /// The next thing that happens; it is then the moment of that.
    pub fn advance(&mut self) -> Option<T> {
        let Planned { at, what, .. } = self.heap.pop()?;
        self.now = at;
        Some(what)
    }
}

impl<T> PartialEq for Planned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Planned<T> {}

impl<T> PartialOrd for Planned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Planned<T> {
    /// The heap gives its greatest first, so the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
