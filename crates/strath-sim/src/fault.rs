//! What goes wrong.

use std::time::Duration;

use strath_protocol::message::Shortage;

use crate::network::{Host, Plane};

/// Something that goes wrong, or that somebody does to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The worker of a host dies, and is started again after a while.
    Crashes {
        /// The host.
        host: Host,
        /// Whether the host loses its power, so that nobody is told.
        silently: bool,
        /// When the host has a worker again, if it is to have one.
        back_after: Option<Duration>,
    },
    /// A process does nothing for a while (SIGSTOP); what comes meanwhile waits.
    Stalls {
        /// Its host.
        host: Host,
        /// For how long.
        lasting: Duration,
    },
    /// The training of a worker does nothing for a while; its process goes on.
    Hangs {
        /// Its host.
        host: Host,
        /// For how long.
        lasting: Duration,
    },
    /// A link lets nothing through.
    Parts {
        /// From here,
        one: Host,
        /// to there,
        other: Host,
        /// and back too.
        both: bool,
        /// For how long.
        lasting: Duration,
    },
    /// The connections between two hosts break.
    Resets {
        /// Which of them.
        plane: Plane,
        /// One host.
        one: Host,
        /// The other.
        other: Host,
    },
    /// A direction of a link becomes slow.
    Slows {
        /// From here,
        one: Host,
        /// to there.
        other: Host,
        /// By how much.
        by: Duration,
        /// For how long.
        lasting: Duration,
    },
    /// A worker is asked to leave (SIGTERM).
    Leaves(Host),
    /// The coordinator is asked to have a worker leave.
    Drains {
        /// Its host.
        host: Host,
        /// What to do where too few others are left.
        shortage: Shortage,
    },
    /// A worker comes, where the host has none.
    Joins(Host),
    /// A segment of an old generation comes once more, to the worker of a host, as soon as it may be taken for one that is due.
    Strays(Host),
    /// The coordinator dies, and is started again after a while.
    CoordinatorCrashes {
        /// Whether nobody is told.
        silently: bool,
        /// After how long it is there again.
        back_after: Duration,
    },
    /// The owner stops the run (Ctrl-C), and resumes it.
    OwnerStops,
}
