//! Sums and failures of ranks that share memory: the same tests.
#![allow(clippy::unwrap_used, reason = "a test that fails names the line")]
#![allow(clippy::disallowed_methods, reason = "real connections take real time")]

mod common;
#[path = "common/failures.rs"]
mod failures;
#[path = "common/world.rs"]
mod ranks;
#[path = "common/sums.rs"]
mod sums;

use strath_core::config::Transport;

/// What the ranks of [`ranks::world`] have carry their sums.
const CARRIER: Transport = Transport::Shm;
