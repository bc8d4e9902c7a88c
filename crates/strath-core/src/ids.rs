//! Newtypes for the numbers that must never be mixed up.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;

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

/// What a coordinator makes the tickets of its generations from: random, drawn when its process begins, never told to anybody.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RingKey(pub [u8; 16]);

impl RingKey {
    /// The ticket of a generation: HMAC-SHA-256 (RFC 2104) of its name under this key. Whoever has the tickets of any number of
    /// generations knows nothing of another one's.
    pub fn ticket(&self, run: RunId, generation: Generation) -> Ticket {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(b"strath ticket");
        mac.update(&run.0.to_le_bytes());
        mac.update(&generation.0.to_le_bytes());
        Ticket(mac.finalize().into_bytes().into())
    }

    /// The ticket by which one worker of a generation feeds another that joins it, and nothing else.
    pub fn feed_ticket(&self, run: RunId, generation: Generation, donor: WorkerId, newcomer: WorkerId) -> Ticket {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(b"strath feed");
        for part in [run.0, generation.0, donor.0, newcomer.0] {
            mac.update(&part.to_le_bytes());
        }
        Ticket(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for RingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RingKey(secret)")
    }
}

/// The secret of one generation, which its members prove to each other that they know before their ring connects.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticket(pub [u8; 32]);

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(secret)")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generation_run_and_key_has_a_ticket_of_its_own() {
        let key = RingKey([1; 16]);
        let ticket = key.ticket(RunId(2), Generation(3));
        assert_eq!(ticket, key.ticket(RunId(2), Generation(3)));
        let others = [
            key.ticket(RunId(2), Generation(4)),
            key.ticket(RunId(3), Generation(3)),
            key.ticket(RunId(3), Generation(2)),
            RingKey([2; 16]).ticket(RunId(2), Generation(3)),
            key.feed_ticket(RunId(2), Generation(3), WorkerId(4), WorkerId(5)),
        ];
        assert!(others.iter().all(|other| *other != ticket));
        let feed = |donor, newcomer| key.feed_ticket(RunId(2), Generation(3), WorkerId(donor), WorkerId(newcomer));
        assert!(feed(4, 5) == feed(4, 5) && feed(4, 5) != feed(5, 4) && feed(4, 5) != feed(4, 6));
        assert_eq!(format!("{key:?} {ticket:?}"), "RingKey(secret) Ticket(secret)");
    }
}
