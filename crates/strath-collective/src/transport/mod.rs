//! The sockets: connections to every peer, and the one thread that serves them.
//!
//! [`mesh`] connects (with [`handshake`]), [`link`] is one peer's two connections with what is being read and written,
//! [`engine`] the thread that drives machines over links. Another transport takes the place of `mesh` and `link`.

#![allow(clippy::disallowed_methods, reason = "this is where the clock is read and where threads wait")]

mod engine;
mod farewell;
mod handshake;
mod link;
mod mesh;
mod wake;

use std::net::TcpListener;
use std::time::Duration;

pub(crate) use engine::{Engine, Outcome, Remote};

use crate::collective::{Identity, Member};
use crate::error::CollectiveError;

/// Connects to every peer and starts the thread that serves them.
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
