//! The sockets: connections to every peer, and who serves them.
//!
//! [`mesh`] connects (with [`handshake`]), [`link`] is one peer's two connections with what is being read, [`outbound`] what is
//! being written, [`engine`] drives machines over links, [`turns`] says which thread has it do so, and [`watch`] is what that
//! thread sleeps on. [`probe`] measures links once they are there. Another transport takes the place of `mesh` and `link`.

#![allow(clippy::disallowed_methods, reason = "this is where the clock is read and where threads wait")]

mod engine;
mod farewell;
mod handshake;
mod link;
mod mesh;
mod outbound;
mod probe;
mod turns;
mod wake;
mod watch;

use std::net::TcpListener;
use std::time::Duration;

pub(crate) use engine::Outcome;
pub(crate) use probe::measure;
pub(crate) use turns::{Engine, Turns};

use crate::collective::{Identity, Member};
use crate::error::CollectiveError;

/// Connects to every peer and starts the background thread that serves them while nobody waits.
///
/// # Errors
/// As [`crate::Collective::connect`].
pub(crate) fn connect(
    listener: TcpListener,
    identity: Identity,
    peers: &[Member],
    deadline: Duration,
) -> Result<Engine, CollectiveError> {
    Engine::start(identity, mesh::connect(listener, identity, peers, deadline)?)
}
