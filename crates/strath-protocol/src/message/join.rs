//! How a worker that joins comes by the state while the others go on: one of them feeds it.
//!
//! ```text
//! coordinator ── Follow ──> newcomer      coordinator ── Feed ──> donor, a worker of the generation
//!                newcomer <── state, then what each step reduced ── donor       (data plane, by a ticket of theirs)
//! coordinator <── CaughtUp ── newcomer    the change is planned; the generation ends, and with it the feed
//! coordinator <── Holds ── newcomer       the same step and digest as everyone holds
//! ```

use strath_core::{Digest, Generation, Step, Ticket};

use super::Member;

/// What a donor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// The generation that it works in.
    pub generation: Generation,
    /// Whom it is to feed, and where that one listens.
    pub to: Member,
    /// The secret of this feed, which both ends prove to each other that they know.
    pub ticket: Ticket,
}

/// What a newcomer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    /// The generation that it follows.
    pub generation: Generation,
    /// Who connects to it.
    pub from: Member,
    /// Steps of the whole run.
    pub steps: Step,
    /// The secret of this feed.
    pub ticket: Ticket,
}

/// What a worker without a place in a generation holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holds {
    /// The generation that it has followed; 0: none, the state is of an earlier session.
    pub generation: Generation,
    /// The state, if any: completed steps, and SHA-256 of everything that the next step depends on.
    pub held: Option<(Step, Digest)>,
    /// Why the feed has ended before the generation, in one line; `None`: it has not.
    pub broken: Option<String>,
}
