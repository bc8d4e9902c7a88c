//! One peer: the connection it sends on, the connection this rank sends on, and what is under way on both.
//!
//! Between ranks of one host frames go through [`pipe`](super::pipe)s in shared memory. The connections stay: their end is the peer's
//! end, and a byte on them wakes a peer that sleeps.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use strath_core::Step;

use super::dial::Dialled;
use super::inbound::Inbound;
use super::outbound::Outbound;
use super::pipe::{Reader, Writer};
use super::reception::Accepted;
use crate::bucket::Bucket;
use crate::collective::Member;
use crate::frame::{HEADER_BYTES, Header};

/// Names an operation among those under way.
pub(super) type Key = (Step, Bucket);

/// Bytes read at once while no long segment is due, and small frames written at once.
pub(super) const SMALL_BYTES: usize = 16 * 1024;
/// A connection whose other end answers nothing for so long is broken, where nothing else is asked for.
pub(super) const SILENCE: Duration = Duration::from_secs(3);
/// A connection on which nothing is sent is asked for a sign so often.
pub(super) const PROBE: Duration = Duration::from_secs(1);
/// What a kept frame costs beside its values: its header and its place in a map of queues, generously.
pub(super) const KEPT_BYTES: usize = HEADER_BYTES + 256;
/// Bytes that are kept a peer for operations that have not been started here. The machines send at most 2 MiB early for
/// each, so this is reached by a peer that is more than 32 operations ahead; it is then not read until some are started.
const EARLY_BYTES: usize = 64 * 1024 * 1024;

/// Whether a peer can still be counted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presence {
    /// Connected.
    Here,
    /// It has finished all it took part in.
    Left,
    /// Its connection ended without a farewell.
    Lost(String),
}

/// A peer's two connections.
#[derive(Debug)]
pub(super) struct Link {
    /// The peer.
    pub(super) member: Member,
    /// Whether it can still be counted on.
    pub(super) presence: Presence,
    /// When the connection that this rank sends on was found broken; the other one is then read to its end first.
    pub(super) broken_since: Option<Instant>,
    /// The next frame, where it lies until others' are there.
    pub(super) lying: Option<Header>,
    /// What it sends.
    pub(super) inbound: Inbound,
    /// What it is sent.
    pub(super) outbound: Outbound,
}

impl Link {
    /// A link over two connections that are through their handshake, which accepted one and dialled the other; both break after so long a
    /// `silence`.
    ///
    /// Buffer sizes are left to the kernel: asking for one turns its tuning off and is cut to a limit below what tuning
    /// reaches.
    pub(super) fn new(member: Member, accepted: Accepted, dialled: Dialled, silence: Duration) -> io::Result<Self> {
        for stream in [&accepted.stream, &dialled.stream] {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            notice_silence(stream, silence)?;
        }
        Ok(Self {
            member,
            presence: Presence::Here,
            broken_since: None,
            lying: None,
            inbound: Inbound::new(accepted.stream, accepted.opener),
            outbound: Outbound::new(dialled.stream, dialled.sealer),
        })
    }

    /// Whether the peer is to be read now.
    pub(super) fn is_read(&self) -> bool {
        let parked = self.inbound.early_bytes() > EARLY_BYTES && self.broken_since.is_none();
        self.presence == Presence::Here && !parked && self.lying.is_none()
    }

    /// Has frames go through shared memory from now on. Nothing may be under way on the connections, on either side.
    pub(super) fn share(&mut self, writer: Writer, reader: Reader) {
        self.outbound.share(writer);
        self.inbound.share(reader);
        // One that has gone on before this rank may have gone for good, and said why there.
        if matches!(self.presence, Presence::Lost(_)) {
            self.presence = Presence::Here;
        }
    }

    /// Wakes the peer where it sleeps and has found something in shared memory since.
    pub(super) fn ring(&mut self) {
        // Both are asked, so that both are false afterwards.
        if self.inbound.has_taken() | self.outbound.has_published() {
            self.outbound.ring();
        }
    }

    /// Says to the peer that this process is about to sleep: it is then woken by whatever is there later. `true`: something is
    /// there already. `reads`: whether frames would be read.
    pub(super) fn say_asleep(&self, reads: bool) -> bool {
        let Some(reader) = &self.inbound.shared else { return false };
        reader.say_asleep();
        (reads && reader.has_more()) || self.outbound.has_room()
    }

    /// Whether the peer will wake this process.
    pub(super) fn will_be_rung(&self) -> bool {
        self.inbound.shared.as_ref().is_none_or(Reader::will_be_rung)
    }
}

/// Has the kernel end a connection whose other end answers nothing for some time: a host that lost its power or its network
/// sends no reset. What is sent is to be acknowledged by then, and an idle connection is probed every second.
pub(super) fn notice_silence(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    // The kernel's limits.
    let (most_ms, most_probes) = (i32::MAX as u128, 127);
    sockopt::set_tcp_user_timeout(stream, silence.as_millis().min(most_ms) as u32)?;
    sockopt::set_tcp_keepidle(stream, PROBE)?;
    sockopt::set_tcp_keepintvl(stream, PROBE)?;
    sockopt::set_tcp_keepcnt(stream, silence.as_secs().clamp(1, most_probes) as u32)?;
    Ok(sockopt::set_socket_keepalive(stream, true)?)
}
