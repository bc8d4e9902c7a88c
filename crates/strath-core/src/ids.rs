//! Newtypes for the numbers that must never be mixed up.

use std::fmt;
use std::time::Duration;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Place of a worker in the ring of the current generation, from 0.
    Rank(u32)
);
id!(
    /// Identity of a worker for the life of a run, across generations; handed out by the coordinator from 0.
    WorkerId(u64)
);
id!(
    /// Number of the current membership, from 1; 0 is "none yet". Every message carries it and stale ones are dropped.
    Generation(u64)
);
id!(
    /// Completed optimizer updates.
    Step(u64)
);

impl Rank {
    /// The rank as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Identity of a run, drawn once when its folder is created and shown as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a rank shows to its peers when it connects: a secret of the run, handed out with the admission.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RingKey(pub [u8; 16]);

impl fmt::Debug for RingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RingKey(secret)")
    }
}

/// Time since the start of the process that asks: what state machines are given in place of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub Duration);

impl Timestamp {
    /// The moment `duration` later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }

    /// Time passed from `earlier` to here; zero where `earlier` lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
