//! Strath's simulation: the real coordinator, worker and all-reduce machines on virtual time, deterministic from a seed.
//!
//! ```text
//!  seed ──► scenario (workers, steps, faults) ──► world: what happens next? ──► a process hears of it
//!                                                   ▲                              │ its machines decide
//!                                                   │                              ▼
//!  queue (virtual time) ◄── network (streams: late, stuck, reset) ◄── words, segments, timers
//!
//!  facts ──► invariants: the first that does not hold ends the run, with the command that repeats it
//! ```
//!
//! First faults happen, then none: the run has to end in time, with the weights of an undisturbed one. What is real: the machines of
//! `strath-protocol` and `strath-collective`. What stands in for the rest: [`network`] for sockets, [`worker`] and [`coordinator`] for
//! the runtimes of `strath-node`, [`quadratic`] for the model. The rooms besides: [`queue`] is time, [`draws`] what a seed decides,
//! [`scenario`] and [`fault`] what it makes of a run, [`invariant`] what must hold, [`bug`] what shows that it would be found out,
//! [`scale`] how large a cluster the coordinator's machine bears.

pub mod bug;
pub mod coordinator;
pub mod draws;
pub mod env;
pub mod fault;
pub mod invariant;
pub mod network;
pub mod peers;
pub mod quadratic;
pub mod queue;
pub mod scale;
pub mod scenario;
pub mod seed;
mod words;
pub mod worker;
pub mod world;
