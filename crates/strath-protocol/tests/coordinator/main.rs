//! The coordinator's machine by whole command lists: a run from the first registration to its end, and every way it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod admission;
mod balance;
mod communicator;
mod draining;
mod endings;
mod failures;
mod hanging;
mod joining;
mod lateness;
mod life;
mod operations;
mod pause;
mod random;
mod regroup;
mod returning;
mod support;
