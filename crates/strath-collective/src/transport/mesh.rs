//! Connecting every pair of ranks: each dials every other and sends on the connection that it dialled.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use strath_core::Rank;

use super::dial::dial;
use super::handshake::Protection;
use super::link::Link;
use super::reception::Reception;
use crate::collective::{Identity, Member};
use crate::error::CollectiveError;
use crate::tls::RingTls;

/// Longest that any wait here lasts before it looks whether the others have failed.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// What the dialling threads and the accepting one share.
pub(super) struct Attempt<'a> {
    pub(super) identity: Identity,
    /// With what connections are encrypted, where they are.
    pub(super) tls: Option<&'a RingTls>,
    started: Instant,
    deadline: Duration,
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
        deadline: Duration,
        cancelled: &'a AtomicBool,
    ) -> Self {
        Self { identity, tls, started: Instant::now(), deadline, given_up: AtomicBool::new(false), cancelled }
    }
}

impl Attempt<'_> {
    pub(super) fn is_over(&self) -> bool {
        let is_given_up = self.given_up.load(Ordering::Relaxed) || self.cancelled.load(Ordering::Relaxed);
        is_given_up || self.started.elapsed() >= self.deadline
    }

    /// Time that is left.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.started.elapsed())
    }

    pub(super) fn protection(&self) -> Protection {
        if self.tls.is_some() { Protection::Tls } else { Protection::None }
    }

    pub(super) fn unreachable(&self, peer: &Member, cause: String) -> CollectiveError {
        CollectiveError::Unreachable { rank: peer.rank, address: peer.address, waited: self.deadline, cause }
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
    deadline: Duration,
    cancelled: &AtomicBool,
) -> Result<Vec<Link>, CollectiveError> {
    let attempt = &Attempt::new(identity, tls, deadline, cancelled);
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
        // A peer that answered wrongly says more than those that were not waited for because of it.
        let wrong = |e: &CollectiveError| !matches!(e, CollectiveError::Unreachable { .. });
        let first = failures.iter().position(wrong).unwrap_or(0);
        if first < failures.len() && (wrong(&failures[first]) || accepted.as_ref().err().is_none_or(|e| !wrong(e))) {
            return Err(failures.swap_remove(first));
        }
        let links = peers.iter().zip(accepted?).zip(outbound);
        links
            .map(|((peer, accepted), dialled)| Link::new(*peer, accepted, dialled))
            .collect::<Result<_, _>>()
            .map_err(|error| local(identity.rank, "set up a connection", &error))
    })
}

pub(super) fn local(rank: Rank, doing: &'static str, error: &std::io::Error) -> CollectiveError {
    CollectiveError::Local { rank, doing, cause: error.to_string() }
}
