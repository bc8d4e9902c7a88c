//! The sockets and the shared memory: connections to every peer, and who serves them.
//!
//! [`mesh`] connects: every pair of ranks [`dial`]s and is received ([`reception`]), each with a [`handshake`] and, where workers have
//! certificates, a TLS [`session`]. [`link`] is one peer's two connections, with what is being read ([`inbound`]) and
//! written ([`outbound`]), in clear or in [`records`] of TLS under the session's [`keys`], [`engine`] drives machines over links, [`turns`] says which thread has it do so, and [`watch`] is what
//! that thread sleeps on. Once they are connected the ranks come to an [`agreement`]: [`share`] has those of one host go on through
//! [`pipe`]s in shared memory ([`map`]), and [`probe`] measures what links can do. Whoever joins is
//! [fed](feed) over a connection of its own.

#![allow(clippy::disallowed_methods, reason = "this is where the clock is read and where threads wait")]

mod agreement;
mod dial;
mod engine;
mod farewell;
mod feed;
mod handshake;
mod inbound;
mod keys;
mod link;
mod map;
mod mesh;
mod outbound;
mod pipe;
mod probe;
mod reception;
mod records;
mod session;
mod share;
mod short;
mod turns;
pub mod untrusted;
mod wake;
mod watch;

use std::net::TcpListener;
use std::sync::atomic::AtomicBool;

pub(crate) use agreement::Agreement;
pub(crate) use engine::Outcome;
pub use feed::{DONOR, FeedReceiver, FeedSender, NEWCOMER};
pub use mesh::Patience;
pub(crate) use probe::measure;
pub use reception::listen;
pub(crate) use share::share;
pub(crate) use short::ShortSum;
pub(crate) use turns::{Engine, Turns};

use crate::collective::{Identity, Member};
use crate::error::CollectiveError;
use crate::tls::RingTls;

/// Connects to every peer and starts the background thread that serves them while nobody waits.
///
/// # Errors
/// As [`crate::Collective::connect`].
pub(crate) fn connect(
    listener: TcpListener,
    identity: Identity,
    peers: &[Member],
    tls: Option<&RingTls>,
    patience: Patience,
    cancelled: &AtomicBool,
) -> Result<Engine, CollectiveError> {
    Engine::start(identity, mesh::connect(listener, identity, peers, tls, patience, cancelled)?)
}
