//! The control plane's decisions: the lives of coordinator and worker as pure state machines.
//!
//! Nothing here performs IO or reads a clock. Events go in with the time they happened, commands come out in the order they
//! are to be carried out, and a rejected event leaves a machine unchanged.
//!
//! ```text
//! worker       Register ─────> coordinator      Admitted (configuration) <─────
//!              Prepared ─────>                  every worker is compared with the first
//!                                               (enough have come) Assign, State <─────
//!              RingReady ────>                  (all are ready) Start <─────
//!              Heartbeat, Step, Eval, State ─>  Ack <─────
//!              CaughtUp, Holds (newcomer) ───>  Follow (to a newcomer), Feed (to one at work) <─────
//!              Finished ─────>                  (all agree, all is saved) End <─────
//!              Failed ───────>                  (to all, at once) End <─────
//!              State (rank 0) ────> close       (all is saved, or patience is over) ends
//! ```

pub mod command;
pub mod coordinator;
pub mod decision;
pub mod event;
pub mod message;
pub mod status;
pub mod worker;

pub use command::{CoordinatorCommand, Outcome, Place, Record, WorkerCommand, WorkerOutcome};
pub use coordinator::{Coordinator, Former, Gather, Settings, Start};
pub use decision::Decision;
pub use event::{Connection, CoordinatorEvent, WorkerEvent};
pub use status::{ClusterStatus, DecisionStatus, SurveyStatus, WorkerStatus};
pub use worker::Worker;

/// An event that the machine cannot take in its present state, or that contradicts what it knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The session is not known.
    #[error("session {0} is not known")]
    UnknownConnection(u64),
    /// The session is known already.
    #[error("session {0} began twice")]
    KnownConnection(u64),
    /// The message does not fit the sender's state.
    #[error("{what} came while {state}")]
    OutOfOrder {
        /// The message.
        what: &'static str,
        /// The sender's state.
        state: &'static str,
    },
    /// The message is of a generation that is not the current one.
    #[error("{what} is of generation {found}, the current one is {expected}")]
    StaleGeneration {
        /// The message.
        what: &'static str,
        /// Its generation.
        found: u64,
        /// The current one.
        expected: u64,
    },
    /// Only rank 0 reports.
    #[error("{what} came from rank {rank}, only rank 0 reports")]
    NotTheReporter {
        /// The message.
        what: &'static str,
        /// The sender's rank.
        rank: u32,
    },
    /// The machine has ended.
    #[error("the run has ended")]
    Ended,
}
