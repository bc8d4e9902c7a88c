//! Strath's wire: the control plane's messages as protobuf over gRPC.
//!
//! ```text
//! worker                                                                    coordinator
//! Session::connect ──── dial, HTTP/2, rpc Session ────> Server ── SessionEvent::Connected ──>
//! SessionSender::send ─> queue ─> convert, chunks ─────> inbound ── SessionEvent::Message ──>
//! Session::receive <──── inbound <──── convert, chunks <── queue <── Server::send
//! ```
//!
//! With certificates ([`tls`]) a connection is encrypted and each side knows the other's role; without, it is in clear.
//!
//! This is the only crate that knows protobuf and gRPC, and nothing of either leaves it: what goes in and comes out are the
//! values of [`strath_protocol`]. What arrives malformed is an error and ends its session, never a panic.
//!
//! A [`State`](strath_protocol::message::State) is a whole value outside and pieces of 64 KiB on the wire. Heartbeats,
//! reports and failures overtake the pieces; everything else keeps its place behind them.

use std::time::Duration;

mod chunks;
mod client;
mod connection;
mod convert;
mod counted;
mod error;
mod inbound;
mod message;
mod outbound;
mod server;
mod service;
#[cfg(test)]
mod tests;
pub mod tls;
#[doc(hidden)]
pub mod untrusted;
mod wire;

pub use client::{Session, SessionSender, drain, status};
pub use error::RpcError;
pub use server::{DrainCall, Server, SessionEvent, SessionHappening};
pub use tls::{CertificateError, ClientTls, Credentials, ServerTls};

/// Largest message on the wire in either direction, bytes.
const MESSAGE_LIMIT: usize = 4 << 20;

/// HTTP/2 receive window of a stream, bytes: enough for a gigabit at 4 ms, little enough that what overtakes a state, and
/// has to wait for what is on its way already, arrives within its lease on a link of some Mbit/s.
const STREAM_WINDOW: u32 = 512 << 10;

/// Messages that may wait to be sent to a worker.
const TO_WORKER: usize = 1024;

/// Messages that may wait to be sent to the coordinator: half a minute of steps at 500 a second, should it hang for a while.
const TO_COORDINATOR: usize = 16 << 10;

/// How long a worker waits for room among them before it takes the coordinator for one that does not read.
const ROOM: Duration = Duration::from_secs(5);
