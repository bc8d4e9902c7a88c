//! Connecting every pair of ranks: each dials every other and sends on the connection that it dialled.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use strath_core::Rank;

use super::dial::dial;
use super::handshake::Protection;
use super::link::{Link, PROBE, SILENCE};
use super::reception::Reception;
use crate::collective::{Identity, Member};
use crate::error::CollectiveError;
use crate::tls::RingTls;

/// Longest that any wait here lasts before it looks whether the others have failed.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// How long a rank waits for its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until every peer is connected.
    pub whole: Duration,
    /// For a sign of a peer's host that is dialled. One that is up gives it at once, also where nobody listens or whoever does hangs.
    pub sign: Duration,
    /// For a sign of it on a connection that stands.
    pub silence: Duration,
}

/// However short a lease is, a sign of a host that is dialled is waited for so long.
const LEAST_SIGN: Duration = Duration::from_secs(1);

impl Patience {
    /// That of a cluster which gives up whoever gives no sign for a lease. On a connection that stands one question or answer may get lost.
    pub fn with_lease(whole: Duration, lease: Duration) -> Self {
        let sign = lease.max(LEAST_SIGN);
        Self { whole, sign, silence: sign.saturating_add(PROBE).max(SILENCE) }
    }
}

impl From<Duration> for Patience {
    fn from(whole: Duration) -> Self {
        Self { whole, sign: whole, silence: SILENCE }
    }
}

/// What the dialling threads and the accepting one share.
pub(super) struct Attempt<'a> {
    pub(super) identity: Identity,
    /// With what connections are encrypted, where they are.
    pub(super) tls: Option<&'a RingTls>,
    started: Instant,
    patience: Patience,
    /// Set once the outcome is known to be a failure.
    given_up: AtomicBool,
    /// Set from outside: nobody wants the outcome any more.
    cancelled: &'a AtomicBool,
}

impl<'a> Attempt<'a> {
    /// An attempt that begins now.
    pub(super) fn new(
        identity: Identity,
        tls: Option<&'a RingTls>,
        patience: Patience,
        cancelled: &'a AtomicBool,
    ) -> Self {
        Self { identity, tls, started: Instant::now(), patience, given_up: AtomicBool::new(false), cancelled }
    }
}

impl Attempt<'_> {
    pub(super) fn is_over(&self) -> bool {
        let is_given_up = self.given_up.load(Ordering::Relaxed) || self.cancelled.load(Ordering::Relaxed);
        is_given_up || self.started.elapsed() >= self.patience.whole
    }

    /// Time that is left.
    pub(super) fn left(&self) -> Duration {
        self.patience.whole.saturating_sub(self.started.elapsed())
    }

    /// How long a sign of a host that is dialled is waited for.
    pub(super) fn sign(&self) -> Duration {
        self.patience.sign
    }

    /// How long a sign of it is waited for on a connection that stands.
    pub(super) fn silence(&self) -> Duration {
        self.patience.silence
    }

    pub(super) fn protection(&self) -> Protection {
        if self.tls.is_some() { Protection::Tls } else { Protection::None }
    }

    pub(super) fn unreachable(&self, peer: &Member, cause: String) -> CollectiveError {
        CollectiveError::Unreachable { rank: peer.rank, address: peer.address, waited: self.patience.whole, cause }
    }
}

/// A peer whose certificate, or whose words under it, are not what they must be.
pub(super) fn untrusted(rank: Rank, peer: SocketAddr, error: &rustls::Error) -> CollectiveError {
    CollectiveError::Untrusted { rank, peer, cause: crate::tls::explain(error) }
}

/// Connects to every peer and is connected to by every peer.
///
/// # Errors
/// As [`crate::Collective::connect`].
pub(super) fn connect(
    listener: TcpListener,
    identity: Identity,
    peers: &[Member],
    tls: Option<&RingTls>,
    patience: Patience,
    cancelled: &AtomicBool,
) -> Result<Vec<Link>, CollectiveError> {
    let attempt = &Attempt::new(identity, tls, patience, cancelled);
    thread::scope(|scope| {
        let dials: Vec<_> = peers
            .iter()
            .map(|peer| {
                thread::Builder::new().name(format!("strath-dial-{}", peer.rank)).spawn_scoped(scope, move || {
                    let dialled = dial(attempt, peer);
                    if dialled.as_ref().is_err_and(|e| !matches!(e, CollectiveError::Unreachable { .. })) {
                        attempt.given_up.store(true, Ordering::Relaxed);
                    }
                    dialled
                })
            })
            .collect();
        let all_dialled = || dials.iter().all(|dial| dial.as_ref().is_ok_and(thread::ScopedJoinHandle::is_finished));
        let accepted = Reception::new(listener, attempt, peers).and_then(|reception| reception.run(all_dialled));
        if accepted.is_err() {
            attempt.given_up.store(true, Ordering::Relaxed);
        }
        let mut outbound = Vec::new();
        let mut failures = Vec::new();
        for dial in dials {
            match dial.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(Ok(dialled))) => outbound.push(dialled),
                Ok(Ok(Err(failure))) => failures.push(failure),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(error) => failures.push(local(identity.rank, "start a dialling thread", &error)),
            }
        }
        // A peer that answered wrongly says most, one whose host does not answer more than those that were not waited for because of it.
        let says = |e: &CollectiveError| match e {
            CollectiveError::Unreachable { .. } => 0,
            CollectiveError::Unanswered { .. } => 1,
            _ => 2,
        };
        let most = failures.iter().map(says).max();
        if let Some(most) = most.filter(|most| accepted.as_ref().err().is_none_or(|e| says(e) <= *most)) {
            let first = failures.iter().position(|e| says(e) == most);
            return Err(failures.swap_remove(first.expect("one of them says most")));
        }
        let links = peers.iter().zip(accepted?).zip(outbound);
        links
            .map(|((peer, accepted), dialled)| Link::new(*peer, accepted, dialled, patience.silence))
            .collect::<Result<_, _>>()
            .map_err(|error| local(identity.rank, "set up a connection", &error))
    })
}

pub(super) fn local(rank: Rank, doing: &'static str, error: &std::io::Error) -> CollectiveError {
    CollectiveError::Local { rank, doing, cause: error.to_string() }
}
